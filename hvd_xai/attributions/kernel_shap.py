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
from hvd_xai.protocols import Attributed, Baseline, Channels, Score
from hvd_xai.tracing import micro_batches
from hvd_xai.tracing.channels import settle_channels


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
    channels: Channels | None = None,
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
        inputs: examples `[n, ...]`, computed in float32: tables `[n, f]`, series, images or
            volumes.
        targets: what the score selects for each example, such as a class id, `[n]`.
        ids: sample ids, `[n]`, which with the seed decide an example's coalitions.
        patch: side of a feature in places, one number for all axes or one for each; by default a
            seventh of each axis, and single values in tables. All cells of an axis have nearly
            equal sides.
        n_samples: largest number of coalitions of an example, at least `2 m + 2`, or all there are.
        baseline: values of absent features: name of a baseline in `hvd_xai.baselines`, or function
            of the inputs.
        channels: where the inputs have their channels: `last`, `first`, or `none` if every axis has
            places; by default, where the model has them.
        score: scalar to explain: name of a score in `hvd_xai.scores`, or function of outputs and
            targets.
        seed: seed of the random numbers.
        micro_batch: largest number of (example x coalition) micro-batch rows that go through the
            model at once; it bounds the memory and leaves the attributions as they are.

    Returns:
        Attributions of the features, `[n, cells along h, cells along w]` (`[n, f]` of a table),
        float32, signed, in the units of the score; in `per_sample` `standard_errors` of the same
        shape, and `standard_error` `[n]`, the largest among an example's features.

    Raises:
        ValueError: if there is but one feature, too few samples for the features, the baseline has
            another shape, or the model does not tell where channels are.

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
        The standard errors are ours: those of the fit if its pairs were drawn again, zero where all
        coalitions are listed. They hold if a few dozen pairs are drawn.
    """
    shape = tuple(inputs.shape[1:])
    where = settle_channels(model, shape, channels, asker="kernel_shap")
    cells = coalitions.divide(shape, patch, where)
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

    def attribute(
        x: tf.Tensor, target: tf.Tensor, sample_id: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        present = tf.tile(tf.constant(listed)[None], [cut.n_examples, 1, 1])
        if n_pairs > 0:
            order = coalitions.orders(coalitions.uniform(seed, sample_id, (n_pairs, n_features)))
            drawn = order < tf.constant(drawn_sizes, tf.int32)[:, None]
            present = tf.concat([present, drawn, ~drawn], axis=1)
        # Rows 0 and 1 are F(0) and F(1), for the constraint; the coalitions of the fit follow.
        ends = tf.tile(tf.constant([[[False], [True]]]), [cut.n_examples, 1, n_features])
        with_ends = tf.concat([ends, present], axis=1)
        absent = baselines.reference(baseline, model, x, sample_id, where)
        values = coalitions.evaluate_rows(
            model,
            lambda row: coalitions.mix(
                x, absent, coalitions.spread(cells, tf.gather(with_ends, row, axis=1)), where
            ),
            target,
            score,
            cut,
        )
        values = tf.cast(values, tf.float64)
        fitted, errors = _fit(
            tf.cast(present, tf.float64),
            weights,
            values[:, 2:] - values[:, :1],
            values[:, 1] - values[:, 0],
            drawn_sizes,
        )
        shape = [cut.n_examples, *cells.counts]
        return (
            tf.reshape(tf.cast(fitted, tf.float32), shape),
            tf.reshape(tf.cast(errors, tf.float32), shape),
        )

    attributions, errors = micro_batches.map_blocks(
        attribute, (tf.cast(inputs, tf.float32), targets, ids), cut.n_examples
    )
    largest = tf.reduce_max(errors, axis=list(range(1, len(errors.shape))))
    return Attributed(
        attributions,
        {"standard_errors": errors, "standard_error": largest},
        attributed_to=inputs_or_places(attributions, inputs),
        signed=True,
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
    drawn_sizes: Int[np.ndarray, "pairs"],
) -> tuple[Float64[tf.Tensor, "n m"], Float64[tf.Tensor, "n m"]]:
    """Returns the weighted least-squares coefficients of `gains`, held to sum to `total`.

    Beside them it returns their standard errors.
    """
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
    fitted = free - along * excess[:, None]
    n_pairs = len(drawn_sizes)
    if n_pairs == 0:
        return fitted, tf.zeros_like(fitted)
    return fitted, _standard_errors(present, weights, gains, fitted, (factor, along), drawn_sizes)


def _standard_errors(
    present: Float64[tf.Tensor, "n r m"],
    weights: Float64[np.ndarray, "r"],
    gains: Float64[tf.Tensor, "n r"],
    fitted: Float64[tf.Tensor, "n m"],
    system: tuple[Float64[tf.Tensor, "n m m"], Float64[tf.Tensor, "n m"]],
    drawn_sizes: Int[np.ndarray, "pairs"],
) -> Float64[tf.Tensor, "n m"]:
    """Returns how far the coefficients of a fit would spread if its pairs were drawn again.

    Both coalitions of a pair together fix the sum, so it is their difference that the fit uses:

        φ̂ - φ = Σ_p H q_p w/2 e_p    q_p = z_p - (1 - z_p),  e_p = gain(z_p) - gain(1 - z_p) - φ q_p
        H = G⁻¹ - G⁻¹1 1ᵀG⁻¹ / 1ᵀG⁻¹1

    A pair pulls the fit towards itself, so that its e_p looks too small; it is divided by
    `√(1 - h_p)` with the leverage `h_p = w/2 q_pᵀ H q_p`, as in the estimator called HC2.

    Args:
        present: coalitions of the fit, the drawn ones last: one of each pair, then all complements.
        weights: weights of the coalitions.
        gains: gains of the coalitions.
        fitted: coefficients of the fit.
        system: Cholesky factor of G, and G⁻¹1.
        drawn_sizes: size of the smaller coalition of each drawn pair.
    """
    n_pairs, (factor, along) = len(drawn_sizes), system
    half_weight = float(weights[-1]) / 2
    signs = 2 * present[:, -2 * n_pairs : -n_pairs] - 1
    misses = (
        gains[:, -2 * n_pairs : -n_pairs] - gains[:, -n_pairs:] - tf.linalg.matvec(signs, fitted)
    )
    # H q_p for every pair, [n, pairs, m]
    pulls = tf.linalg.matrix_transpose(
        tf.linalg.cholesky_solve(factor, tf.linalg.matrix_transpose(signs))
    )
    excess = tf.reduce_sum(pulls, axis=2) / tf.reduce_sum(along, axis=1)[:, None]
    pulls -= excess[..., None] * along[:, None]
    leverage = half_weight * tf.reduce_sum(signs * pulls, axis=2)
    # a pair that the fit goes through exactly says nothing of its own error
    scale = half_weight * misses / tf.sqrt(tf.maximum(1 - leverage, 1e-6))
    moved = _deviations(pulls * scale[..., None], drawn_sizes)
    return tf.sqrt(tf.reduce_sum(moved**2, axis=1))


def _deviations(
    values: Float64[tf.Tensor, "n pairs m"], sizes: Int[np.ndarray, "pairs"]
) -> Float64[tf.Tensor, "n pairs m"]:
    """Returns the deviations of pairs from the mean of their size, whose squares sum to a variance.

    Sizes are given and not drawn, so only what differs within a size is chance; n pairs of a size
    are scaled by `sqrt(n / (n - 1))`. A size that is drawn once keeps its value, which is too large
    rather than too small.
    """
    _, group, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    is_in = (group == np.arange(len(counts))[:, None]).astype(np.float64)
    means = tf.linalg.matmul(tf.constant(is_in / counts[:, None]), values)
    is_one = (counts == 1)[group, None]
    scale = np.sqrt(counts / np.maximum(counts - 1, 1))[group, None]
    deviations = tf.constant(scale) * (values - tf.gather(means, group, axis=1))
    return tf.where(tf.constant(is_one), values, deviations)
