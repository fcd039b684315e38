"""Computes what the ranks have logged together, with and without a metric behind it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from hvd_xai.keras.collectives import reduce_values
from hvd_xai.keras.horovod_names import Sum
from hvd_xai.keras.metric_states import Results, numbers_in
from hvd_xai.ranks.transport import ROOT
from hvd_xai.ranks.world import World

# A step that Keras compiles, and the metric itself, may compute one result with other roundings.
_ROUNDING = 1e-5


# shape, fingerprint of a metric's result, rows of the last batch
_Told: TypeAlias = tuple[list[int], list[float], int]


class Part(NamedTuple):
    """The logs of training or of validation.

    Attributes:
        prefix: beginning of the names, "val_" for validation.
        results: results of the metrics.
        n_rows: number of rows of this rank's last batch; 0 if it is not known.
    """

    prefix: str
    results: Results
    n_rows: int


def logs_of_all_ranks(
    world: World, logs: Mapping[str, Any], parts: Sequence[Part]
) -> dict[str, float | np.ndarray]:
    """Returns the numbers and arrays among the logs over all ranks.

    Collective: every rank must call this.

    Args:
        world: ranks that have logged.
        logs: values that this rank has logged, by name.
        parts: parts of the logs; names belong to the last part whose prefix they have.

    Raises:
        ValueError: on all ranks, if a rank has logged a name that another has not, or another
            shape under it.
    """
    mine = numbers_in(logs)
    results: dict[str, np.ndarray] = {}
    told: dict[str, _Told] = {}
    for name, value in mine.items():
        part = [part for part in parts if name.startswith(part.prefix)][-1]
        metric = name.removeprefix(part.prefix)
        if _is_result(value, part.results.mine.get(metric)):
            results[name] = part.results.together[metric]
        told[name] = (list(value.shape), _fingerprint(results.get(name)), part.n_rows)
    ranks = world.allgather("comparing the logs", told)
    _compare(world, ranks)

    names, sent, shares = sorted(mine), [], []
    for name in names:
        _, fingerprints, n_rows = zip(*(theirs[name] for theirs in ranks), strict=True)
        if _are_one(fingerprints):
            # The root's counts, so that all ranks have the same bits, whatever their hardware.
            weights = [float(rank == ROOT) for rank in range(world.size)]
            sent.append(results[name] if world.rank == ROOT else np.zeros_like(mine[name]))
        else:
            weights = list(n_rows) if all(n_rows) else [1] * world.size
            sent.append(np.asarray(mine[name] * weights[world.rank]))
        shares.append(sum(weights))
    sums = reduce_values(sent, op=Sum, name="hvd_xai.logs")
    # Divided last, so that a value that all ranks have stays as it is.
    means = [np.asarray(total / share) for total, share in zip(sums, shares, strict=True)]
    return {
        name: float(mean) if mean.ndim == 0 else mean
        for name, mean in zip(names, means, strict=True)
    }


def _fingerprint(result: np.ndarray | None) -> list[float]:
    """Returns two sums by which results are compared; none if there is no result."""
    if result is None:
        return []
    values = np.nan_to_num(result.reshape(-1))
    return [float(np.abs(values).sum()), float(values @ np.cos(np.arange(values.size)))]


def _are_one(fingerprints: Sequence[list[float]]) -> bool:
    """Returns whether all ranks have one result, up to rounding.

    Only then does it follow from the states, which are combined. Results of a metric that keeps
    more than variables differ between ranks.
    """
    if not all(fingerprints):
        return False
    magnitude = fingerprints[ROOT][0]
    return bool(np.allclose(fingerprints, fingerprints[ROOT], rtol=0, atol=_ROUNDING * magnitude))


def _is_result(logged: np.ndarray, result: np.ndarray | None) -> bool:
    return (
        result is not None
        and result.shape == logged.shape
        and np.allclose(logged, result, rtol=_ROUNDING, atol=0, equal_nan=True)
    )


def _compare(world: World, ranks: Sequence[Mapping[str, _Told]]) -> None:
    """Raises on all ranks if they have logged different names or shapes.

    Collective: every rank must call this.
    """
    for rank, theirs in enumerate(ranks):
        for has, lacks in ((0, rank), (rank, 0)):
            names = sorted({*ranks[has]} - {*ranks[lacks]})
            if names:
                world.agree(
                    "comparing the logs",
                    ValueError(
                        f"rank {has} logs {', '.join(map(repr, names))} and rank {lacks} does not."
                        " Log the same names, as numbers, on every rank; a callback that logs on"
                        " one rank alone belongs behind MetricAverageCallback."
                    ),
                )
        for name in theirs:
            shapes = [tuple(ranks[0][name][0]), tuple(theirs[name][0])]
            if shapes[0] != shapes[1]:
                world.agree(
                    "comparing the logs",
                    ValueError(
                        f"'{name}' has the shape {shapes[0]} on rank 0 and {shapes[1]} on rank"
                        f" {rank}; log one shape on every rank"
                    ),
                )
