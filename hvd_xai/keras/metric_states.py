"""Combines the states of a model's metrics over the ranks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import keras
import numpy as np
import tensorflow as tf
import xxhash

from hvd_xai.keras.collectives import reduce_values
from hvd_xai.keras.horovod_names import Max, Sum
from hvd_xai.keras.metric_sums import is_no_sum, leaves
from hvd_xai.ranks.world import World

Aggregation: TypeAlias = Literal["sum", "mean", "max", "min", "only_first_replica"]


@dataclass(frozen=True, slots=True)
class Results:
    """The results of a model's metrics by name, flat, as Keras logs them.

    Attributes:
        mine: results over the examples of this rank.
        together: results over the examples of all ranks.
    """

    mine: Mapping[str, np.ndarray]
    together: Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class _State:
    metric: str
    variable: "keras.Variable"
    aggregation: str  # an Aggregation, or "none" where nothing says how
    is_no_sum: bool  # though its variable says so


def numbers_in(values: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns the numbers and arrays of numbers among logged values, by name, in float64.

    Names of values that are dictionaries become names of the result, as in Keras's logs. Values
    that are no numbers are left out.

    Example:
        >>> numbers_in({"loss": 0.5, "of_classes": {"cat": [0.25, 1]}, "note": "warm"})
        {'loss': array(0.5), 'cat': array([0.25, 1.  ])}
    """
    numbers: dict[str, np.ndarray] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            numbers |= numbers_in(value)
            continue
        try:
            # NumPy makes no array of a single number of TensorFlow in bfloat16.
            array = np.asarray(value.numpy() if tf.is_tensor(value) else value)
        except ValueError:  # a list whose items have several lengths
            continue
        if array.dtype.kind in "biuf" or array.dtype.name == "bfloat16":
            numbers[name] = array.astype(np.float64)
    return numbers


def check_aggregation(model: "keras.Model", aggregation: Mapping[str, Aggregation]) -> None:
    """Raises unless it is known of every state of the model's metrics how it is combined.

    Args:
        model: model that has trained on a batch, so that its metrics have their states.
        aggregation: how the states of a metric are combined, by the metric's name, where their
            variables do not say it.

    Raises:
        ValueError: if a variable does not say it, or says "sum" of what is found to be none, or
            no metric has one of the names.
    """
    states = list(_states(model, aggregation))
    unknown = sorted({*aggregation} - {state.metric for state in states})
    if unknown:
        known = ", ".join(sorted({repr(state.metric) for state in states})) or "none"
        raise ValueError(
            f"aggregation= names {', '.join(map(repr, unknown))}; metrics with states are: {known}"
        )
    for state in states:
        named = f"metric '{state.metric}'"
        if state.aggregation not in get_args(Aggregation):
            said = (
                f"{named} does not say how its state '{state.variable.name}' is combined over the"
                f" ranks: its aggregation is '{state.aggregation}'"
            )
        elif state.is_no_sum:
            said = (
                f"{named} says that its states are summed over the ranks, as add_weight does, but"
                " they are no sums: a batch that counts twice does not count double"
            )
        else:
            continue
        raise ValueError(
            f"{said}. Say how: MetricAverageCallback(aggregation={{'{state.metric}': 'max'}}), or"
            f" another of {', '.join(map(repr, get_args(Aggregation)))}."
        )


def combine_metrics(
    model: "keras.Model", aggregation: Mapping[str, Aggregation], world: World, moment: str
) -> Results:
    """Computes the model's metrics from the states of all ranks.

    Collective: every rank must call this. The metrics of this rank are left as they were.

    Args:
        model: compiled model that has just been trained or evaluated.
        aggregation: how the states of a metric are combined, by the metric's name, where their
            variables do not say it.
        world: ranks whose states are combined.
        moment: what the ranks are doing, such as "the validation begins", the same on all ranks.

    Raises:
        ValueError: on all ranks, if the ranks do something else, their metrics differ, or it is
            not known how a state is combined.
    """
    with world.together("looking at the metrics"):
        check_aggregation(model, aggregation)
    states = list(_states(model, aggregation))
    _compare(states, world, moment)
    mine = [np.asarray(state.variable.value.numpy()) for state in states]
    combined = _combine([state.aggregation for state in states], mine, world)
    alone: dict[str, np.ndarray] = {}
    together: dict[str, np.ndarray] = {}
    with world.together("computing the metrics"):
        alone = numbers_in(model.get_metrics_result())
        try:
            # Keras computes metrics only from their states: these hold those of all ranks for a
            # moment.
            _assign(states, combined)
            together = numbers_in(model.get_metrics_result())
        finally:
            _assign(states, mine)
    return Results(alone, together)


def _states(model: "keras.Model", aggregation: Mapping[str, Aggregation]) -> Iterator[_State]:
    """Yields the states of all metrics, each once; a metric may be listed by several layers."""
    met = set()
    for metric in model.metrics:
        for leaf in leaves(metric):
            for variable in leaf.variables:
                if id(variable) not in met:
                    met.add(id(variable))
                    how = aggregation.get(leaf.name, variable.aggregation)
                    guessed = how == "sum" and leaf.name not in aggregation
                    yield _State(leaf.name, variable, how, guessed and is_no_sum(leaf))


def _compare(states: list[_State], world: World, moment: str) -> None:
    """Raises on all ranks unless all are at one moment, with the same metrics.

    Collective: every rank must call this.
    """
    phase = "comparing the metrics"
    mine = [
        f"'{state.metric}' {tuple(state.variable.shape)} {state.aggregation}" for state in states
    ]
    digest = xxhash.xxh3_128_hexdigest("\n".join(mine).encode())
    ranks = world.allgather(phase, (moment, digest))
    moments = [theirs for theirs, _ in ranks]
    odd = next((rank for rank, theirs in enumerate(ranks) if theirs != ranks[0]), None)
    if odd is None:
        return
    if moments[odd] != moments[0]:
        error = (
            f"on rank 0 {moments[0]} while on rank {odd} {moments[odd]}. Give every rank"
            " validation data, and the same validation_freq; a rank may have fewer rows than"
            " another."
        )
    else:
        listed = world.allgather(phase, mine)
        here, there = (
            ", ".join(line for line in listed[one] if line not in listed[other]) or "none other"
            for one, other in ((0, odd), (odd, 0))
        )
        error = (
            f"the ranks have different metrics: rank 0 has {here} where rank {odd} has {there}."
            " Compile every rank's model with the same metrics."
        )
    world.agree(phase, ValueError(error))


def _combine(how: list[str], mine: list[np.ndarray], world: World) -> list[np.ndarray]:
    """Combines states over the ranks, each as said. Collective: every rank must call this."""
    combined: dict[int, np.ndarray] = {}
    summed = [index for index, one in enumerate(how) if one not in ("max", "min")]
    sums = reduce_values(
        [
            # That of the first rank, plus zeros of the others.
            np.zeros_like(mine[index])
            if how[index] == "only_first_replica" and not world.is_root
            else mine[index]
            for index in summed
        ],
        op=Sum,
        name="hvd_xai.metrics",
    )
    for index, value in zip(summed, sums, strict=True):
        combined[index] = np.asarray(value / world.size) if how[index] == "mean" else value
    extreme = [index for index, one in enumerate(how) if one in ("max", "min")]
    # The smallest is the negative of the largest of the negatives.
    signs = [1 if how[index] == "max" else -1 for index in extreme]
    largest = reduce_values(
        [
            np.asarray(sign * mine[index].astype(np.float64))
            for sign, index in zip(signs, extreme, strict=True)
        ],
        op=Max,
        name="hvd_xai.metrics.largest",
    )
    for sign, index, value in zip(signs, extreme, largest, strict=True):
        combined[index] = np.asarray(sign * value)
    return [combined[index] for index in range(len(how))]


def _assign(states: list[_State], values: list[np.ndarray]) -> None:
    for state, value in zip(states, values, strict=True):
        # Keras casts a tensor to the variable's own dtype.
        state.variable.assign(tf.constant(value))
