"""Permutation importance, one example at a time."""

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float32, Int32, Int64, Shaped

from hvd_xai import baselines
from hvd_xai.primitives import coalitions
from hvd_xai.primitives.axes import inputs_or_places
from hvd_xai.protocols import Attributed, Baseline, Channels, Score
from hvd_xai.tracing import micro_batches
from hvd_xai.tracing.channels import settle_channels


def feature_permutation(
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    /,
    *,
    ids: Int64[tf.Tensor, "n"],
    background: Shaped[np.ndarray, "b ..."] | None = None,
    n_samples: int = 32,
    patch: int | tuple[int, ...] | None = None,
    baseline: str | Baseline = "zero",
    channels: Channels | None = None,
    score: str | Score = "output",
    seed: int = 0,
    micro_batch: int = 256,
) -> Attributed:
    """Replaces a feature by its values in other examples, and averages the score's drop.

    Permutation importance shuffles a feature between the examples of a data set and measures how
    much worse the model gets. Here each example gets its own share of that: take the data set as
    the background and a score that is high where the model is right, and the mean over the data set
    is the importance of the feature. Every value of a feature occurs in the data, but combinations
    of values may not.

        A_j(x) = 1/K Σ_k F(x) - F(x with its j-th feature from b_k)

    Args:
        model: any built Keras model of one input.
        inputs: examples `[n, ...]`, computed in float32: tables `[n, f]`, series, images or
            volumes.
        targets: what the score selects for each example, such as a class id, `[n]`.
        ids: sample ids, `[n]`, which with the seed decide which examples of the background are
            drawn.
        background: other examples, `[b, ...]` of the shape of the inputs; by default the baseline
            alone.
        n_samples: number K of examples drawn from the background without repetition, at least 1;
            all of them if there are no more. An example of m features costs `K m + 1` micro-batch
            rows.
        patch: side of a feature in places, one number for all axes or one for each; by default a
            seventh of each axis, and single values in tables. All cells of an axis have nearly
            equal sides.
        baseline: replacement where no background is given: name of a baseline in
            `hvd_xai.baselines`, or function of the inputs.
        channels: where the inputs have their channels: `last`, `first`, or `none` if every axis has
            places; by default, where the model has them.
        score: scalar to explain: name of a score in `hvd_xai.scores`, or function of outputs and
            targets.
        seed: seed of the random numbers.
        micro_batch: largest number of (example x replacement) micro-batch rows that go through the
            model at once; it bounds the memory and leaves the attributions as they are.

    Returns:
        Attributions of the features, `[n, cells along h, cells along w]` (`[n, f]` of a table),
        float32, signed, in the units of the score.

    Raises:
        ValueError: if an option is out of range, background or baseline have another shape, or the
            model does not tell where channels are.

    Example:
        >>> method = partial(feature_permutation, background=inputs, patch=4)
        >>> computed = Compute(model, method)(inputs, targets, ids)
        >>> computed.attributions.shape
        (4, 2, 2)

    Reference:
        A. Fisher, C. Rudin, F. Dominici: All Models are Wrong, but Many are Useful. JMLR 2019.
        https://arxiv.org/abs/1801.01489, section 3, and L. Breiman: Random Forests. Machine
        Learning 2001. Both average over a data set; here the summand of each example is kept, a
        difference of scores takes the place of the ratio of losses, and the example's own value is
        among the replacements if it is in the background.
    """
    shape = tuple(inputs.shape[1:])
    if n_samples < 1:
        raise ValueError(f"`feature_permutation` needs n_samples >= 1; got {n_samples}")
    if background is not None and (len(background) == 0 or background.shape[1:] != shape):
        raise ValueError(
            f"`feature_permutation` needs a background of shape {('b', *shape)}, b >= 1; got"
            f" {background.shape}"
        )
    where = settle_channels(model, shape, channels, asker="feature_permutation")
    cells = coalitions.divide(shape, patch, where)
    n_drawn = min(n_samples, 1 if background is None else len(background))
    cut = coalitions.cut(1 + n_drawn * cells.n_features, micro_batch)

    def attribute(x: tf.Tensor, target: tf.Tensor, sample_id: tf.Tensor) -> tf.Tensor:
        if background is None:
            others = baselines.reference(baseline, model, x, sample_id, where)[:, None]
        else:
            others = _draw(background, n_drawn, seed, sample_id)

        def points(row: tf.Tensor) -> tf.Tensor:
            return _replace(x, others, cells, row, where)

        values = coalitions.evaluate_rows(model, points, target, score, cut)
        # Row 0 is F(x); rows 1 + k m + j fall into [example drawn, feature].
        drops = tf.reshape(values[:, :1] - values[:, 1:], [cut.n_examples, n_drawn, *cells.counts])
        return tf.reduce_mean(drops, axis=1)

    attributions = micro_batches.map_blocks(
        attribute, (tf.cast(inputs, tf.float32), targets, ids), cut.n_examples
    )
    return Attributed(
        attributions, attributed_to=inputs_or_places(attributions, inputs), signed=True
    )


def _draw(
    background: Shaped[np.ndarray, "b ..."], n_drawn: int, seed: int, ids: Int64[tf.Tensor, "n"]
) -> Float32[tf.Tensor, "n k ..."]:
    """Draws `n_drawn` examples of the background for each sample id, none of them twice."""
    # The first entries of a random order are a draw without repetition.
    order = coalitions.orders(coalitions.uniform(seed, ids, (len(background),)))
    return tf.gather(tf.constant(background, tf.float32), order[:, :n_drawn])


def _replace(
    x: Float32[tf.Tensor, "n ..."],
    others: Float32[tf.Tensor, "n k ..."],
    cells: coalitions.Cells,
    row: Int32[tf.Tensor, "r"],
    channels: Channels,
) -> Float32[tf.Tensor, "n r ..."]:
    """Returns the inputs of some micro-batch rows, in which one feature comes from another example.

        row            0        1 ... m          m+1 ... 2m
        replaced    nothing   0 ... m-1           0 ... m-1        (feature j)
        by                    example k = 0     example k = 1      (drawn)

    Row 0 replaces nothing; row `1 + k m + j` replaces the j-th feature by that of the k-th example
    drawn.
    """
    m = cells.n_features
    replaced = (tf.range(m) == (row[:, None] - 1) % m) & (row[:, None] > 0)
    present = coalitions.spread(cells, ~replaced[None])
    other = tf.gather(others, tf.maximum(row - 1, 0) // m, axis=1)
    return coalitions.mix(x, other, present, channels)
