"""RISE."""

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float32, Int64, Shaped

from hvd_xai import baselines
from hvd_xai.primitives import coalitions
from hvd_xai.primitives.axes import inputs_or_places
from hvd_xai.protocols import Attributed, Baseline, Channels, Score
from hvd_xai.tracing import micro_batches
from hvd_xai.tracing.channels import settle_channels


def rise(
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    /,
    *,
    ids: Int64[tf.Tensor, "n"],
    patch: int | tuple[int, ...] | None = None,
    n_masks: int = 500,
    probability: float = 0.5,
    baseline: str | Baseline = "zero",
    channels: Channels | None = None,
    score: str | Score = "output",
    seed: int = 0,
    micro_batch: int = 256,
) -> Attributed:
    """Hides the input behind random smooth masks, and averages the masks weighted by the scores.

    The attribution of a place is the mean score of the masked inputs that show the place. Other
    places contribute to that mean, so compare places with one another, not with 0.

        S_p(x) = 1 / (E[M] K) Σ_k F(x ⊙ M_k) M_k(p)

    Args:
        model: any built Keras model of one input.
        inputs: examples `[n, ...]`, computed in float32: tables `[n, f]`, series, images or
            volumes.
        targets: what the score selects for each example, such as a class id, `[n]`.
        ids: sample ids, `[n]`, which with the seed decide an example's masks.
        patch: side of a cell of the coarse masks in places, one number for all axes or one for
            each; by default a seventh of each axis, and single values in tables.
        n_masks: number K of masks, at least 1. The paper takes 4,000 to 8,000 for images of 224 x
            224; errors fall with the root of K.
        probability: probability E[M] that a cell is shown, between 0 and 1.
        baseline: values of hidden places: name of a baseline in `hvd_xai.baselines`, or function of
            the inputs.
        channels: where the inputs have their channels: `last`, `first`, or `none` if every axis has
            places; by default, where the model has them.
        score: scalar to explain: name of a score in `hvd_xai.scores`, or function of outputs and
            targets.
        seed: seed of the random numbers.
        micro_batch: largest number of (example x mask) micro-batch rows that go through the model
            at once; it bounds the memory and leaves the attributions as they are.

    Returns:
        Maps of the inputs' places, `[n, h, w]` (`[n, t]` of a series, `[n, f]` of a table),
        float32, in the units of the score.

    Raises:
        ValueError: if an option is out of range, the baseline has another shape, or the model does
            not tell where channels are.

    Example:
        >>> method = partial(rise, patch=2, n_masks=100)
        >>> computed = Compute(model, method)(inputs, targets, ids)
        >>> computed.attributions.shape
        (4, 8, 8)

    Reference:
        V. Petsiuk, A. Das, K. Saenko: RISE: Randomized Input Sampling for Explanation of Black-box
        Models. BMVC 2018. https://arxiv.org/abs/1806.07421, equation 6 and section 3.2. The
        expectation of the masks is the true one, the same at every place, so that the estimate is
        unbiased; cells keep their side, and there is one more of them along each axis, where the
        paper stretches h cells to the length of h + 1; the random shift is each mask's own, as in
        the paper, along every axis there is.
    """
    if n_masks < 1:
        raise ValueError(f"`rise` needs n_masks >= 1; got {n_masks}")
    if not 0 < probability < 1:
        raise ValueError(f"`rise` needs a probability between 0 and 1; got {probability}")
    shape = tuple(inputs.shape[1:])
    where = settle_channels(model, shape, channels, asker="rise")
    sizes, sides = coalitions.places(shape, where), coalitions.sides(shape, patch, where)
    # One cell more than covers an axis, because masks are shifted by up to a cell.
    corners = tuple(-(-size // side) + 1 for size, side in zip(sizes, sides, strict=True))
    n_cells, n_places = int(np.prod(corners)), int(np.prod(sizes))
    blocks = micro_batches.cut(
        np.arange(n_masks, dtype=np.float64),
        np.full(n_masks, 1 / (probability * n_masks)),
        micro_batch,
    )

    def attribute(x: tf.Tensor, target: tf.Tensor, sample_id: tf.Tensor) -> tf.Tensor:
        # Of each mask: its cells, then its shift along each axis.
        drawn = coalitions.uniform(seed, sample_id, (n_masks, n_cells + len(sizes)))
        absent = baselines.reference(baseline, model, x, sample_id, where)

        def weighted_masks(number: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
            of_masks = tf.gather(drawn, tf.cast(number, tf.int32), axis=1)
            flat = tf.reshape(of_masks, [-1, n_cells + len(sizes)])
            masks = _masks(
                tf.reshape(tf.cast(flat[:, :n_cells] < probability, tf.float32), [-1, *corners]),
                flat[:, n_cells:],
                sizes,
                sides,
            )
            masks = coalitions.settled(
                model, tf.reshape(masks, [blocks.n_examples, number.shape[0], *sizes])
            )
            values = coalitions.evaluate(
                model, coalitions.mix(x, absent, masks, where), target, score
            )
            return tf.matmul(
                (weight * values)[:, None], tf.reshape(masks, [*values.shape, n_places])
            )[:, 0]

        maps = micro_batches.sum_over_chunks(weighted_masks, blocks, (blocks.n_examples, n_places))
        return tf.reshape(maps, [blocks.n_examples, *sizes])

    maps = micro_batches.map_blocks(
        attribute, (tf.cast(inputs, tf.float32), targets, ids), blocks.n_examples
    )
    # Masks are weighted by the score itself: where it is below 0, so are the maps.
    return Attributed(maps, attributed_to=inputs_or_places(maps, inputs), signed=True)


def _masks(
    coarse: Float32[tf.Tensor, "r ..."],
    shifts: Float32[tf.Tensor, "r axes"],
    sizes: tuple[int, ...],
    sides: tuple[int, ...],
) -> Float32[tf.Tensor, "r ..."]:
    """Returns masks enlarged linearly from coarse ones, cropped at shifts of less than a cell.

    Args:
        coarse: coarse masks, `[r, cells along h + 1, cells along w + 1]`.
        shifts: shift of each mask along each axis, as a share of a cell from 0 to 1, `[r, axes]`.
        sizes: number of places along each axis.
        sides: number of places of a cell along each axis.
    """
    for axis in reversed(range(len(sizes))):
        n_corners = coarse.shape[-1]
        place = tf.range(sizes[axis], dtype=tf.float32) + tf.floor(
            shifts[:, axis, None] * sides[axis]
        )
        # Linear weights between the corners: 1 at a corner, 0 one cell away.
        at = tf.clip_by_value((place + 0.5) / sides[axis] - 0.5, 0, n_corners - 1)
        share = tf.nn.relu(1 - tf.abs(at[:, None] - tf.range(n_corners, dtype=tf.float32)[:, None]))
        lines = tf.matmul(
            tf.reshape(coarse, [-1, int(np.prod(coarse.shape[1:-1])), n_corners]), share
        )
        # The axis that is done goes to the front of the others, so that the next one comes last.
        coarse = tf.reshape(tf.transpose(lines, [0, 2, 1]), [-1, sizes[axis], *coarse.shape[1:-1]])
    return coarse
