"""Kernel SHAP."""

import itertools
import math

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float64, Int, Int64, Shaped

from hvd_xai import baselines
from hvd_xai.primitives import coalitions
from hvd_xai.primitives.axes import inputs_or_places
from hvd_xai.protocols import Attributed, Baseline, Score
from hvd_xai.tracing import micro_batches


def kernel_shap(
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    /,
    *,
    ids: Int64[tf.Tensor, "n"],
    patch: int | tuple[int, ...] | None = None,
    n_samples: int = 512,
    baseline: str | Baseline = "zero",
    score: str | Score = "output",
    seed: int = 0,
    micro_batch: int = 256,
) -> Attributed:
    """Fits Shapley values to the scores of coalitions of features, by weighted least squares.

    The values are exact where `n_samples` is enough for all `2^m - 2` coalitions of m features. The
    attributions of an example always sum to `F(x) - F(baseline)`.

        min_φ Σ_z π(z) [F(z) - F(0) - Σ_j φ_j z_j]²   with   Σ_j φ_j = F(1) - F(0)
        π(z) = (m - 1) / [C(m, |z|) |z| (m - |z|)]

    Args:
        model: any built Keras model of one input.
        inputs: examples `[n, ...]`, computed in float32: tables `[n, f]`, or series, images and
            volumes with channels last.
        targets: what the score selects for each example, such as a class id, `[n]`.
        ids: sample ids, `[n]`, which with the seed decide an example's coalitions.
        patch: side of a feature in places, one number for all axes or one for each; by default a
            seventh of each axis, and single values in tables. All cells of an axis have nearly
            equal sides.
        n_samples: largest number of coalitions of an example, at least `2 m + 2`, or all there are.
        baseline: values of absent features: name of a baseline in `hvd_xai.baselines`, or function
            of the inputs.
        score: scalar to explain: name of a score in `hvd_xai.scores`, or function of outputs and
            targets.
        seed: seed of the random numbers.
        micro_batch: largest number of (example x coalition) micro-batch rows that go through the
            model at once; it bounds the memory and leaves the attributions as they are.

    Returns:
        Attributions of the features, `[n, cells along h, cells along w]` (`[n, f]` of a table),
        float32, signed, in the units of the score.

    Raises:
        ValueError: if there is but one feature, too few samples for the features, or the baseline
            has another shape.

    Example:
        >>> computed = Compute(model, partial(kernel_shap, patch=4))(inputs, targets, ids)
        >>> computed.attributions.shape
        (4, 2, 2)
        >>> gain = (model(inputs) - model(0 * inputs)).numpy()[np.arange(4), targets]
        >>> bool(np.allclose(computed.attributions.sum(axis=(1, 2)), gain, atol=1e-5))
        True

    Reference:
        S. M. Lundberg, S.-I. Lee: A Unified Approach to Interpreting Model Predictions. NeurIPS
        2017. https://arxiv.org/abs/1705.07874, theorem 2. As in the authors' own program,
        coalitions of the smallest and the largest sizes are all taken as long as the budget lasts,
        and the others are drawn in pairs with their complements; here sizes are drawn in
        proportion, not at random, the sum is a constraint of the fit, and no features are selected.
    """
    cells = coalitions.divide(tuple(inputs.shape[1:]), patch)
    n_features = cells.n_features
    least = min(2 * n_features + 2, 2**n_features - 2)
    if n_features < 2 or n_samples < least:
        raise ValueError(
            f"`kernel_shap` of {n_features} features needs at least 2 features, and n_samples >="
            f" {max(least, 2)}; got {n_samples}. Raise n_samples, or make patches of another side."
        )
    listed, weights, drawn_sizes = _plan(n_features, n_samples)
    n_pairs = len(drawn_sizes)
    cut = coalitions.cut(2 + len(listed) + 2 * n_pairs, micro_batch)

    def attribute(x: tf.Tensor, target: tf.Tensor, sample_id: tf.Tensor) -> tf.Tensor:
        present = tf.tile(tf.constant(listed)[None], [cut.n_examples, 1, 1])
        if n_pairs > 0:
            order = coalitions.orders(coalitions.uniform(seed, sample_id, (n_pairs, n_features)))
            drawn = order < tf.constant(drawn_sizes, tf.int32)[:, None]
            present = tf.concat([present, drawn, ~drawn], axis=1)
        # Rows 0 and 1 are F(0) and F(1), for the constraint; the coalitions of the fit follow.
        ends = tf.tile(tf.constant([[[False], [True]]]), [cut.n_examples, 1, n_features])
        with_ends = tf.concat([ends, present], axis=1)
        absent = baselines.reference(baseline, x, sample_id)
        values = coalitions.evaluate_rows(
            model,
            lambda row: coalitions.mix(
                x, absent, coalitions.spread(cells, tf.gather(with_ends, row, axis=1))
            ),
            target,
            score,
            cut,
        )
        values = tf.cast(values, tf.float64)
        fitted = _fit(
            tf.cast(present, tf.float64),
            weights,
            values[:, 2:] - values[:, :1],
            values[:, 1] - values[:, 0],
        )
        return tf.reshape(tf.cast(fitted, tf.float32), [cut.n_examples, *cells.counts])

    attributions = micro_batches.map_blocks(
        attribute, (tf.cast(inputs, tf.float32), targets, ids), cut.n_examples
    )
    return Attributed(
        attributions, attributed_to=inputs_or_places(attributions, inputs), signed=True
    )


def _plan(
    n_features: int, n_samples: int
) -> tuple[Bool[np.ndarray, "listed m"], Float64[np.ndarray, "r"], Int[np.ndarray, "pairs"]]:
    """Divides a budget between coalitions that are listed and coalitions that are drawn.

    A size of coalitions is listed whole if random draws from the rest of the budget would be
    expected to reach each of its coalitions anyway, so that listing costs no more. Single features
    are always listed, which makes the fit unique whatever is drawn.

    Returns:
        The listed coalitions; the weights of these and of the drawn ones, which sum to 1; the size
        of the smaller coalition of each pair to draw.
    """
    # Sizes end at the half: a coalition of more features is the complement of a listed or drawn
    # one.
    size = np.arange(1, n_features // 2 + 1)
    is_half = 2 * size == n_features
    # of all coalitions of a size and of its complement
    mass = np.where(is_half, 0.5, 1.0) / (size * (n_features - size))
    mass /= mass.sum()
    left, n_listed = n_samples, 0
    for count in (
        math.comb(n_features, int(s)) * (1 if half else 2)
        for s, half in zip(size, is_half, strict=True)
    ):
        # A size is listed while drawing would give each of its coalitions a turn; the first is
        # always listed.
        if count > left or (n_listed > 0 and left * mass[n_listed] / mass[n_listed:].sum() < count):
            break
        left, n_listed = left - count, n_listed + 1
    listed: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    for s, half, share in zip(size[:n_listed], is_half, mass, strict=False):
        present = np.zeros((math.comb(n_features, int(s)), n_features), bool)
        np.put_along_axis(
            present, np.array(list(itertools.combinations(range(n_features), int(s)))), True, axis=1
        )
        both = present if half else np.concatenate([present, ~present])
        listed.append(both)
        weights.append(np.full(len(both), share / len(both)))
    if n_listed == len(size):
        return np.concatenate(listed), np.concatenate(weights), np.zeros(0, np.int64)
    n_pairs = left // 2
    # The pairs are spread over the sizes that are left by their mass: pair p of n stands at (p +
    # 1/2) / n of it.
    edges = np.cumsum(mass[n_listed:]) / mass[n_listed:].sum()
    drawn = size[
        n_listed + np.searchsorted(edges[:-1], (np.arange(n_pairs) + 0.5) / n_pairs, side="right")
    ]
    weights.append(np.full(2 * n_pairs, mass[n_listed:].sum() / (2 * n_pairs)))
    return np.concatenate(listed), np.concatenate(weights), drawn


def _fit(
    present: Float64[tf.Tensor, "n r m"],
    weights: Float64[np.ndarray, "r"],
    gains: Float64[tf.Tensor, "n r"],
    total: Float64[tf.Tensor, "n"],
) -> Float64[tf.Tensor, "n m"]:
    """Returns the weighted least-squares coefficients of `gains`, held to sum to `total`."""
    weighted = present * tf.constant(weights)[:, None]
    factor = tf.linalg.cholesky(tf.matmul(weighted, present, transpose_a=True))
    # Two right sides are solved at once: Σ w z gain for the fit, and ones for its constraint.
    right = tf.stack(
        [tf.linalg.matvec(weighted, gains, transpose_a=True), tf.ones_like(present[:, 0])], axis=2
    )
    solved = tf.linalg.cholesky_solve(factor, right)
    free, along = solved[..., 0], solved[..., 1]
    # Lagrange: φ = free - λ G⁻¹ 1, where λ makes Σ_j φ_j = F(1) - F(0).
    excess = (tf.reduce_sum(free, axis=1) - total) / tf.reduce_sum(along, axis=1)
    return free - along * excess[:, None]
