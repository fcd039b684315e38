"""Baselines: functions from inputs to the reference inputs where a path starts.

Each public function of this module whose first parameter is `inputs` can be given by its name; its
options are bound with `functools.partial`. A baseline returns one reference for each input, `[n,
...]`, or several, `[b, n, ...]`, over which a method averages. A baseline with an option `ids` gets
the sample ids, to seed its random numbers. A baseline with an option `channels` that is left open
gets where the model has the channels of its inputs.
"""

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float32, Int64, Shaped

from hvd_xai.errors import shorten
from hvd_xai.protocols import Baseline, Channels
from hvd_xai.tracing import packed_model
from hvd_xai.tracing.channels import check_channels, place_axes, settle_channels

# Reach of a blur to each side, in standard deviations.
_WIDTH = 4.0


def zero(inputs: Float32[tf.Tensor, "n ..."]) -> Float32[tf.Tensor, "n ..."]:
    """Returns zeros: a black image, or the mean where inputs are standardised.

    Example:
        >>> zero(tf.constant([[1.0, 2.0]])).numpy().tolist()
        [[0.0, 0.0]]
    """
    return tf.zeros_like(inputs)


def constant(
    inputs: Float32[tf.Tensor, "n ..."], *, value: float | np.ndarray = 0.5
) -> Float32[tf.Tensor, "n ..."]:
    """Returns the same value everywhere: a grey image, a colour, or one reference example.

    Args:
        inputs: examples `[n, ...]`.
        value: a number, or an array that broadcasts to one example, such as a colour `[c]`.

    Raises:
        ValueError: if the array does not broadcast to an example.

    Example:
        >>> grey = constant(tf.constant(inputs), value=0.5)
        >>> grey.shape.as_list(), float(grey[0, 0, 0, 0])
        ([4, 8, 8, 1], 0.5)
    """
    shape = tuple(inputs.shape[1:])
    try:
        one = np.broadcast_to(np.asarray(value, np.float32), shape)
    except ValueError as error:
        raise ValueError(
            f"the value of baseline 'constant' must broadcast to an example's shape {shape}; got"
            f" {np.shape(value)}"
        ) from error
    return tf.zeros_like(inputs) + tf.constant(one)


def mean(
    inputs: Float32[tf.Tensor, "n ..."], *, channels: Channels | None = None
) -> Float32[tf.Tensor, "n ..."]:
    """Returns each example's own mean, channel by channel.

    The mean is taken over its places, or over all features where there are no places.

    Args:
        inputs: examples `[n, ...]`.
        channels: `last`, `first`, or `none` if every axis has places; by default, where the model
            that is explained has them.

    Raises:
        ValueError: if nobody says where channels are.

    Example:
        >>> mean(tf.constant([[1.0, 2.0], [4.0, 8.0]])).numpy().tolist()
        [[1.5, 1.5], [6.0, 6.0]]
    """
    places = _places("mean", inputs, channels)
    return tf.zeros_like(inputs) + tf.reduce_mean(inputs, axis=places, keepdims=True)


def blurred(
    inputs: Float32[tf.Tensor, "n ..."], *, sigma: float = 10.0, channels: Channels | None = None
) -> Float32[tf.Tensor, "n ..."]:
    """Returns each example blurred by a Gaussian over its places.

    Shapes are gone, colours are not. Beyond the edge there is nothing, and the weights inside sum
    to 1: what is of one colour stays so.

    Args:
        inputs: series, images or volumes.
        sigma: standard deviation in places, above 0.
        channels: `last`, `first`, or `none` if every axis has places; by default, where the model
            that is explained has them.

    Raises:
        ValueError: if the inputs have no places, nobody says where channels are, or sigma is not
            above 0.

    Example:
        >>> pictures = blurred(tf.constant(inputs), sigma=2.0, channels="last")
        >>> pictures.shape.as_list()
        [4, 8, 8, 1]
        >>> bool(np.ptp(pictures) < np.ptp(inputs))
        True
    """
    if inputs.shape.rank < 3:
        raise ValueError(
            "baseline 'blurred' needs inputs with places, of shape (n, h, w, c) or alike; got"
            f" {tuple(inputs.shape)}"
        )
    if sigma <= 0:
        raise ValueError(f"baseline 'blurred' needs sigma > 0 places; got {sigma}")
    for axis in _places("blurred", inputs, channels):
        places = np.arange(inputs.shape[axis])
        weights = np.exp(-0.5 * (np.subtract.outer(places, places) / sigma) ** 2)
        weights[np.abs(np.subtract.outer(places, places)) > max(1.0, _WIDTH * sigma)] = 0
        weights = tf.constant(weights / weights.sum(axis=1, keepdims=True), tf.float32)
        # tensordot puts the new axis last; it goes back to where it was.
        last_axes = [*range(axis), inputs.shape.rank - 1, *range(axis, inputs.shape.rank - 1)]
        inputs = tf.transpose(tf.tensordot(inputs, weights, [[axis], [1]]), last_axes)
    return inputs


def uniform(
    inputs: Float32[tf.Tensor, "n ..."],
    *,
    ids: Int64[tf.Tensor, "n"],
    low: float = 0.0,
    high: float = 1.0,
    n_references: int = 1,
    seed: int = 0,
) -> Float32[tf.Tensor, "b n ..."]:
    """Returns uniform noise, drawn anew for each sample id, the same at every call.

    Args:
        inputs: examples `[n, ...]`.
        ids: sample ids, `[n]`, which seed the noise together with `seed`.
        low: least value.
        high: largest value, on the inputs' scale: 255 where they are not scaled.
        n_references: number of references of each example, at least 1.
        seed: seed of the noise.

    Raises:
        ValueError: if there is no reference, or no range.

    Example:
        >>> noise = partial(uniform, n_references=3, seed=1)
        >>> noise(tf.constant(inputs), ids=tf.constant(ids)).shape.as_list()
        [3, 4, 8, 8, 1]
    """
    if n_references < 1 or not low < high:
        raise ValueError(
            f"baseline 'uniform' needs n_references >= 1 and low < high; got {n_references}, {low}"
            f" and {high}"
        )
    shape = [n_references, *inputs.shape[1:]]
    noise = tf.map_fn(
        lambda sample_id: tf.random.stateless_uniform(
            shape, tf.stack([tf.constant(seed, tf.int64), sample_id]), low, high
        ),
        ids,
        fn_output_signature=tf.TensorSpec(shape, tf.float32),
    )
    #     [n, b, ...] -> [b, n, ...]
    return tf.transpose(noise, [1, 0, *range(2, len(shape) + 1)])


def black_and_white(
    inputs: Float32[tf.Tensor, "n ..."], *, black: float = 0.0, white: float = 1.0
) -> Float32[tf.Tensor, "2 n ..."]:
    """Returns a black and a white reference of each input.

    With both, neither black nor white features count for nothing.

    Args:
        inputs: examples `[n, ...]`.
        black: least value that inputs have.
        white: largest value that inputs have, 255 where they are not scaled.

    Example:
        >>> black_and_white(tf.constant([[0.25]]), white=255.0).numpy().tolist()
        [[[0.0]], [[255.0]]]
    """
    return tf.stack([tf.fill(tf.shape(inputs), black), tf.fill(tf.shape(inputs), white)])


def samples(
    inputs: Float32[tf.Tensor, "n ..."], *, data: Shaped[np.ndarray, "b ..."]
) -> Float32[tf.Tensor, "b 1 ..."]:
    """Returns examples of the data, the same for all inputs.

    A method then explains how the input differs from them on average.

    Args:
        inputs: examples `[n, ...]`.
        data: examples `[b, ...]` of the shape of the inputs, at least one.

    Raises:
        ValueError: if there are no data, or they have another shape.

    Example:
        >>> background = samples(tf.constant(inputs), data=inputs[:2])
        >>> background.shape.as_list()
        [2, 1, 8, 8, 1]
    """
    if len(data) == 0 or data.shape[1:] != tuple(inputs.shape[1:]):
        raise ValueError(
            f"baseline 'samples' needs data of shape (b, {', '.join(map(str, inputs.shape[1:]))});"
            f" got {data.shape}"
        )
    return tf.constant(data[:, None], tf.float32)


def resolve(baseline: str | Baseline) -> Baseline:
    """Returns the baseline of that name; a function is returned as it is.

    Raises:
        TypeError: if it is neither.
        ValueError: if there is none of that name, or it has an option that must be bound.
    """
    if callable(baseline):
        return baseline
    if not isinstance(baseline, str):
        raise TypeError(
            f"a baseline is a name, or a function of the inputs; got {type(baseline).__name__}. For"
            " a value or an array pass functools.partial(hvd_xai.baselines.constant, value=...)."
        )
    named = {
        name: value
        for name, value in globals().items()
        if inspect.isfunction(value)
        and not name.startswith("_")
        and next(iter(inspect.signature(value).parameters), "") == "inputs"
    }
    if baseline not in named:
        names = ", ".join(map(repr, named))
        raise ValueError(
            f"unknown baseline {shorten(baseline)}; pass baseline= one of {names}, or a function of"
            " the inputs"
        )
    if baseline == samples.__name__:
        raise ValueError(
            "baseline 'samples' needs the data: pass"
            " baseline=functools.partial(hvd_xai.baselines.samples, data=...)"
        )
    found: Baseline = named[baseline]
    return found


def references(
    baseline: str | Baseline,
    model: keras.Model,
    inputs: Float32[tf.Tensor, "n ..."],
    ids: Int64[tf.Tensor, "n"],
    channels: Channels | None = None,
) -> Float32[tf.Tensor, "b m ..."]:
    """Returns the references of inputs in the one form that all methods use.

    Args:
        baseline: name of a baseline, or function of the inputs.
        model: model to explain, which tells where the inputs have their channels.
        inputs: examples `[n, ...]`.
        ids: sample ids, `[n]`.
        channels: where the inputs have their channels, for a method that knows; the model is asked
            if None.

    Returns:
        References `[b, n, ...]`, at least one of each input; `[b, 1, ...]` where all inputs share
        them.

    Raises:
        ValueError: if they have another shape, or the baseline needs to know where channels are and
            the model does not tell.
    """
    function: Callable[..., Any] = resolve(baseline)
    parameters = inspect.signature(function).parameters
    options: dict[str, Any] = {"ids": ids} if "ids" in parameters else {}
    # The signature of a `functools.partial` has what is bound for a default: that stays.
    open_ones = (None, inspect.Parameter.empty)
    if "channels" in parameters and parameters["channels"].default in open_ones:
        options["channels"] = settle_channels(
            model,
            tuple(inputs.shape[1:]),
            channels,
            asker=f"baseline {getattr(function, '__name__', baseline)}",
            setting="baseline.channels",
        )
    returned = tf.cast(function(inputs, **options), tf.float32)
    # One reference each is a list of one.
    several = returned if returned.shape.rank == inputs.shape.rank + 1 else returned[None]
    one_each = several.shape[1:].is_compatible_with(inputs.shape)
    same_for_all = several.shape[1:].is_compatible_with([1, *inputs.shape[1:]])
    if not (one_each or same_for_all) or not several.shape[0]:
        raise ValueError(
            f"a baseline has the shape of the inputs, {tuple(inputs.shape)}, or returns several of"
            f" them; {shorten(baseline)} returned {tuple(returned.shape)}"
        )
    return several


def reference(
    baseline: str | Baseline,
    model: keras.Model,
    inputs: Float32[tf.Tensor, "n ..."],
    ids: Int64[tf.Tensor, "n"],
    channels: Channels | None = None,
) -> Float32[tf.Tensor, "n ..."]:
    """Returns the one reference of each input, for methods that do not average over several.

    Args are those of `references`.

    Raises:
        ValueError: as `references`, or if there are several of an input.
    """
    several = references(baseline, model, inputs, ids, channels)
    if several.shape[0] != 1:
        raise ValueError(
            f"this method takes one reference of each input, and {shorten(baseline)} returned"
            f" {several.shape[0]}; `integrated_gradients` and `expected_gradients` average over"
            " several"
        )
    return tf.broadcast_to(several[0], tf.shape(inputs)) if several.shape[1] == 1 else several[0]


def held(
    model: keras.Model, inputs: Float32[tf.Tensor, "n ..."], references: Float32[tf.Tensor, "..."]
) -> Float32[tf.Tensor, "..."]:
    """Returns references whose whole numbers are replaced by the inputs' whole numbers.

    A path from them to the inputs then moves no whole number, such as a token among several packed
    inputs.

    Args:
        model: model to explain; only a `hvd_xai.tracing.packed_model.PackedModel` has such values.
        inputs: examples `[n, ...]`.
        references: references of the inputs, as `references` or `reference` returned them.
    """
    is_whole = packed_model.whole_numbers(model)
    return references if is_whole is None else tf.where(is_whole, inputs, references)


def _places(name: str, inputs: tf.Tensor, channels: Channels | None) -> list[int]:
    """Returns the axes of inputs that have places.

    Raises:
        ValueError: if that is not known.
    """
    rank = inputs.shape.rank
    if rank < 3:
        return list(range(1, rank))
    if channels is None:
        raise ValueError(
            f"baseline '{name}' needs to know where inputs of shape {tuple(inputs.shape)} have"
            " their channels. Pass channels='last', 'first' or 'none'; a method that is given the"
            " baseline asks the model."
        )
    check_channels(channels)
    return place_axes(channels, rank)
