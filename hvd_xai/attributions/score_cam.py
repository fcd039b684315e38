"""Score-CAM."""

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float32, Int64, Shaped

from hvd_xai import baselines, scores
from hvd_xai.primitives import cam, coalitions
from hvd_xai.protocols import Attributed, Baseline, Channels, Score
from hvd_xai.tracing import micro_batches
from hvd_xai.tracing.channels import channel_axis, settle_channels


def score_cam(
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    /,
    *,
    ids: Int64[tf.Tensor, "n"],
    layer: str | None = None,
    n_channels: int | None = None,
    channels: Channels | None = None,
    baseline: str | Baseline = "zero",
    score: str | Score = "output",
    micro_batch: int = 256,
) -> Attributed:
    """Weighs a layer's channels by the score of the input that each channel lets through.

    It keeps places where the weighted sum is positive. It needs no gradient, but one forward pass
    for each channel. A mixture of two inputs must be an input too, so it fits images but not
    tokens.

        H_k = s(up(A^k)), s(M) = (M - min M) / (max M - min M)
        α = softmax_k F(x' + H_k ⊙ (x - x'))        L = ReLU(Σ_k α_k A^k)

    Args:
        model: any built Keras model of one input.
        inputs: examples `[n, ...]`, computed in float32, with as many axes of places as the layer
            has and at most one axis of channels.
        targets: what the score selects for each example, such as a class id, `[n]`.
        ids: sample ids, `[n]`, which seed random baselines.
        layer: name of a layer, or as much of its path as identifies it, such as `backbone/conv`; by
            default the last layer with a spatial output that leads to the score.
        n_channels: number of channels to look at in each example, those with the largest
            activations; by default all.
        channels: where the inputs have their channels: `last`, `first`, or `none` if every axis has
            places; by default, where the model has them.
        baseline: inputs where a channel lets nothing through: name of a baseline in
            `hvd_xai.baselines`, or function of the inputs.
        score: scalar to explain: name of a score in `hvd_xai.scores`, or function of outputs and
            targets. Weights differ by as many powers of e as scores do: probabilities leave them
            nearly equal, logits do not.
        micro_batch: largest number of (example x channel) micro-batch rows that go through the
            model at once; it bounds the memory and leaves the attributions as they are.

    Returns:
        Maps `[n, h, w]` at the layer's own resolution (`[n, t]` of a series, `[n, d, h, w]` of a
        volume), float32, never negative.

    Raises:
        ValueError: if an option is out of range, the layer is not there, is not one, or has no
            spatial output, its maps do not fit the inputs, or the model does not tell where
            channels are.

    Example:
        >>> method = partial(score_cam, score="logit")
        >>> computed = Compute(model, method)(inputs, targets, ids)
        >>> computed.attributions.shape
        (4, 2, 2)
        >>> bool(np.all(computed.attributions >= 0))
        True

    Reference:
        H. Wang et al.: Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural
        Networks. CVPR Workshops 2020. https://arxiv.org/abs/1910.01279, algorithm 1, whose baseline
        is zero. The score at the baseline, which it takes off, does not change the softmax. A
        channel that is the same everywhere lets nothing through; the paper divides by zero there.
    """
    if n_channels is not None and n_channels < 1:
        raise ValueError(f"`score_cam` needs n_channels >= 1; got {n_channels}")
    micro_batches.check_micro_batch(micro_batch)

    def activations_of(x: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        return cam.activations(model, x, layer, asker="score_cam", targets=target, score=score)

    # How many examples make a micro-batch depends on the layer, which is known once the model was
    # traced.
    traced = tf.function(activations_of, autograph=False).get_concrete_function(
        tf.TensorSpec([1, *inputs.shape[1:]], tf.float32), tf.TensorSpec([1], targets.dtype)
    )
    shape = traced.structured_outputs.shape
    size, axis = _places(model, inputs, shape, channels)
    n_kept = min(n_channels or shape[-1], shape[-1])
    n_examples = max(1, micro_batch // n_kept)
    n_rows = n_examples * n_kept
    n_rows_at_once = micro_batches.size_of_parts(n_rows, micro_batch)

    def attribute(x: tf.Tensor, target: tf.Tensor, sample_id: tf.Tensor) -> tf.Tensor:
        activations = _strongest(activations_of(x, target), n_kept)
        maps = _one_row_each(activations)
        x_start = baselines.reference(baseline, model, x, sample_id, channels)

        def score_of(row: tf.Tensor) -> tf.Tensor:
            # H_k = s(up(A^k)); row r stands for channel r % n_kept of example r // n_kept
            mask = _between_0_and_1(_resized(tf.gather(maps, row), size))
            if axis is not None:
                mask = tf.expand_dims(mask, axis)
            x_of_row, x_start_of_row, target_of_row = (
                tf.gather(values, row // n_kept) for values in (x, x_start, target)
            )
            return scores.evaluate(
                model, x_start_of_row + mask * (x_of_row - x_start_of_row), target_of_row, score
            )

        values = micro_batches.map_blocks(score_of, (tf.range(n_rows),), n_rows_at_once)
        # α = softmax_k F(x' + H_k ⊙ (x - x')), then L = ReLU(Σ_k α_k A^k)
        alpha = tf.nn.softmax(tf.reshape(values, [n_examples, n_kept]))
        weight = tf.reshape(alpha, [n_examples, *[1] * len(cam.places(activations)), n_kept])
        return tf.nn.relu(tf.reduce_sum(weight * activations, axis=-1))

    maps: tf.Tensor = micro_batches.map_blocks(
        attribute, (tf.cast(inputs, tf.float32), targets, ids), n_examples
    )
    return Attributed(maps, attributed_to="places", signed=False)


def _strongest(activations: tf.Tensor, n_kept: int) -> tf.Tensor:
    """Returns the channels with each example's largest activations, `[n, ..., n_kept]`."""
    if n_kept == activations.shape[-1]:
        return activations
    largest = tf.reduce_max(activations, axis=cam.places(activations))
    return tf.gather(activations, tf.math.top_k(largest, n_kept).indices, axis=-1, batch_dims=1)


def _one_row_each(activations: tf.Tensor) -> tf.Tensor:
    """Puts the maps of examples' channels, `[n, *places, k]`, below each other, `[n * k, *places]`.

    Row r is the map of channel r % k of example r // k.
    """
    n_examples, *places, n_channels = activations.shape
    by_channel = tf.transpose(
        activations, [0, activations.shape.rank - 1, *cam.places(activations)]
    )
    return tf.reshape(by_channel, [n_examples * n_channels, *places])


def _places(
    model: keras.Model, inputs: tf.Tensor, of_layer: tf.TensorShape, channels: Channels | None
) -> tuple[tuple[int, ...], int | None]:
    """Returns the lengths of the inputs' axes of places, and the axis of their channels.

    The layer's activations, of shape `of_layer`, have their channels last.

    Raises:
        ValueError: if the layer has another number of axes of places than the inputs, or nobody
            says where channels are.
    """
    shape, rank, n_axes = tuple(inputs.shape[1:]), inputs.shape.rank, len(of_layer) - 2
    # The layer has an axis of places for each of the inputs' axes, or for each but one.
    where: Channels | None = "none" if rank - 1 == n_axes else None
    if rank - 2 == n_axes:
        where = settle_channels(model, shape, channels, asker="score_cam")
    size = () if where is None else coalitions.places(shape, where)
    if where is None or len(size) != n_axes:
        raise ValueError(
            "`score_cam` needs a layer whose maps can be laid over the inputs; inputs have shape"
            f" {(None, *shape)}, and the maps {(None, *of_layer[1:-1])}. Pass layer= one with an"
            " axis for each of the inputs'."
        )
    return size, channel_axis(where, rank)


def _resized(
    maps: Float32[tf.Tensor, "n *places"], size: tuple[int, ...]
) -> Float32[tf.Tensor, "n *size"]:
    """Resizes maps linearly along each axis, centres of places aligned."""
    # Each turn takes the first axis that is left, and puts the resized one last: after all turns
    # the axes stand in their old order.
    for length in size:
        n_old = maps.shape[1]
        centres = np.clip((np.arange(length) + 0.5) * n_old / length - 0.5, 0, n_old - 1)
        weights = np.maximum(0, 1 - np.abs(centres - np.arange(n_old)[:, None]))
        maps = tf.tensordot(maps, tf.constant(weights, tf.float32), [[1], [0]])
    return maps


def _between_0_and_1(maps: Float32[tf.Tensor, "n *size"]) -> Float32[tf.Tensor, "n *size"]:
    """Spreads each map over 0 to 1; a map that is the same everywhere becomes 0."""
    axes = list(range(1, maps.shape.rank))
    low, high = (
        reduce(maps, axis=axes, keepdims=True) for reduce in (tf.reduce_min, tf.reduce_max)
    )
    return tf.math.divide_no_nan(maps - low, high - low)
