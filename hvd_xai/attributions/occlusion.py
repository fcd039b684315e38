"""Occlusion."""

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Int64, Shaped

from hvd_xai import baselines
from hvd_xai.primitives import coalitions
from hvd_xai.primitives.axes import inputs_or_places
from hvd_xai.protocols import Attributed, Baseline, Channels, Score
from hvd_xai.tracing import micro_batches
from hvd_xai.tracing.channels import settle_channels


def occlusion(
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    /,
    *,
    ids: Int64[tf.Tensor, "n"],
    patch: int | tuple[int, ...] | None = None,
    stride: int | tuple[int, ...] | None = None,
    baseline: str | Baseline = "zero",
    channels: Channels | None = None,
    score: str | Score = "output",
    micro_batch: int = 256,
) -> Attributed:
    """Slides a patch over the input and records how much the score drops where it covers a place.

    It asks the plainest question that one can ask a model, and needs no gradient. It misses
    features that appear in two places: covering one of the places then changes nothing.

        A_p(x) = 1/|W_p| Σ_{w in W_p} F(x) - F(x with w covered)
        W_p: the positions of the patch that cover place p

    Args:
        model: any built Keras model of one input.
        inputs: examples `[n, ...]`, computed in float32: tables `[n, f]`, series, images or
            volumes.
        targets: what the score selects for each example, such as a class id, `[n]`.
        ids: sample ids, `[n]`, which seed random baselines.
        patch: side of the patch in places, one number for all axes or one for each; by default a
            seventh of each axis, and single values in tables. All channels of a place are covered
            together.
        stride: distance between two positions in places, at most the side; by default the side
            itself, which is the least work. The last position of an axis ends where the axis does.
        baseline: values of covered places: name of a baseline in `hvd_xai.baselines`, or function
            of the inputs.
        channels: where the inputs have their channels: `last`, `first`, or `none` if every axis has
            places; by default, where the model has them.
        score: scalar to explain: name of a score in `hvd_xai.scores`, or function of outputs and
            targets.
        micro_batch: largest number of (example x position) micro-batch rows that go through the
            model at once; it bounds the memory and leaves the attributions as they are.

    Returns:
        Maps of the inputs' places, `[n, h, w]` (`[n, t]` of a series, `[n, f]` of a table),
        float32, signed, in the units of the score.

    Raises:
        ValueError: if patch or stride do not fit the inputs, the baseline has another shape, or the
            model does not tell where channels are.

    Example:
        >>> method = partial(occlusion, patch=4, stride=2)
        >>> computed = Compute(model, method)(inputs, targets, ids)
        >>> computed.attributions.shape
        (4, 8, 8)

    Reference:
        M. D. Zeiler, R. Fergus: Visualizing and Understanding Convolutional Networks. ECCV 2014.
        https://arxiv.org/abs/1311.2901, section 4.2, which maps the score itself by the patch's
        position; here it is the drop, and averaged where positions overlap.
    """
    shape = tuple(inputs.shape[1:])
    where = settle_channels(model, shape, channels, asker="occlusion")
    sizes, sides = coalitions.places(shape, where), coalitions.sides(shape, patch, where)
    covers = [
        _positions(size, side, step)
        for size, side, step in zip(sizes, sides, _strides(sides, stride), strict=True)
    ]
    counts = tuple(len(cover) for cover in covers)
    cut = coalitions.cut(1 + int(np.prod(counts)), micro_batch)

    def covered(row: tf.Tensor) -> tf.Tensor:
        """Returns whether the position of each row covers a place, `[r, h, w]`.

        Row 0 covers nothing.
        """
        # Row 1 + w covers the w-th position, counted along the last axis first.
        window = tf.unravel_index(tf.maximum(row - 1, 0), counts)
        is_covered = tf.reshape(row > 0, [-1, *[1] * len(covers)])
        for axis, cover in enumerate(covers):
            along = tf.gather(cover, window[axis])
            is_covered &= tf.reshape(
                along, [-1, *[1] * axis, cover.shape[1], *[1] * (len(covers) - 1 - axis)]
            )
        return is_covered

    def attribute(x: tf.Tensor, target: tf.Tensor, sample_id: tf.Tensor) -> tf.Tensor:
        absent = baselines.reference(baseline, model, x, sample_id, where)
        values = coalitions.evaluate_rows(
            model,
            lambda row: coalitions.mix(x, absent, ~covered(row)[None], where),
            target,
            score,
            cut,
        )
        # Row 0 is F(x); the other rows fall into the positions along h and along w.
        drops = tf.reshape(values[:, :1] - values[:, 1:], [cut.n_examples, *counts])
        # the mean over all positions that cover a place is one over each axis in turn
        for cover in covers:
            drops = tf.tensordot(
                drops, tf.constant(cover / cover.sum(axis=0), tf.float32), [[1], [0]]
            )
        return drops

    drops = micro_batches.map_blocks(
        attribute, (tf.cast(inputs, tf.float32), targets, ids), cut.n_examples
    )
    return Attributed(drops, attributed_to=inputs_or_places(drops, inputs), signed=True)


def _strides(sides: tuple[int, ...], stride: int | tuple[int, ...] | None) -> tuple[int, ...]:
    """Returns the stride along each axis.

    Raises:
        ValueError: if there is not one for each axis, or one leaves out places.
    """
    steps = (
        sides
        if stride is None
        else (stride,) * len(sides)
        if isinstance(stride, int)
        else tuple(stride)
    )
    if len(steps) != len(sides) or any(
        not 1 <= step <= side for step, side in zip(steps, sides, strict=True)
    ):
        raise ValueError(
            f"`occlusion` needs a stride for each side of the patch, {sides}, from 1 to that side;"
            f" got stride={stride}"
        )
    return steps


def _positions(size: int, side: int, step: int) -> Bool[np.ndarray, "w size"]:
    """Returns which places of an axis each position of the patch covers."""
    # The last position ends at the border, and may be less than a stride after the one before:
    #
    #     size 8, side 3, stride 3     [0 1 2] 3 4 5 6 7
    #                                   0 1 2 [3 4 5] 6 7
    #                                   0 1 2 3 4 [5 6 7]
    starts = np.append(np.arange(0, size - side, step), size - side)[:, None]
    return (np.arange(size) >= starts) & (np.arange(size) < starts + side)
