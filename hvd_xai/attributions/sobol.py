"""Sobol indices."""

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float64, Int64, Shaped

from hvd_xai import baselines
from hvd_xai.primitives import coalitions
from hvd_xai.primitives.axes import inputs_or_places
from hvd_xai.protocols import Attributed, Baseline, Channels, Score
from hvd_xai.tracing import micro_batches
from hvd_xai.tracing.channels import settle_channels


def sobol(
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    /,
    *,
    ids: Int64[tf.Tensor, "n"],
    patch: int | tuple[int, ...] | None = None,
    n_designs: int = 32,
    baseline: str | Baseline = "zero",
    channels: Channels | None = None,
    score: str | Score = "output",
    seed: int = 0,
    micro_batch: int = 256,
) -> Attributed:
    """Measures each feature's part in the variance of the score, alone or with others.

    It dims the features independently of one another. It finds features that act only together,
    which are missed by methods that remove one feature at a time. Indices have no sign, so they do
    not tell support from opposition; they sum to 1 only where each feature acts alone.

        S_j = 1/2K Σ_k [F(a_k) - F(a_k with its j-th from b_k)]² / V[F]
        a, b: uniform on [0, 1]^m

    Args:
        model: any built Keras model of one input.
        inputs: examples `[n, ...]`, computed in float32: tables `[n, f]`, series, images or
            volumes.
        targets: what the score selects for each example, such as a class id, `[n]`.
        ids: sample ids, `[n]`, which seed random baselines; all examples share one design.
        patch: side of a feature in places, one number for all axes or one for each; by default a
            seventh of each axis, and single values in tables. All cells of an axis have nearly
            equal sides.
        n_designs: number K of pairs of points, at least 2; an example of m features costs `K (m +
            1)` micro-batch rows.
        baseline: values that features are dimmed to: name of a baseline in `hvd_xai.baselines`, or
            function of the inputs.
        channels: where the inputs have their channels: `last`, `first`, or `none` if every axis has
            places; by default, where the model has them.
        score: scalar to explain: name of a score in `hvd_xai.scores`, or function of outputs and
            targets.
        seed: seed of the design.
        micro_batch: largest number of (example x point) micro-batch rows that go through the model
            at once; it bounds the memory and leaves the attributions as they are.

    Returns:
        Total-order indices of the features, `[n, cells along h, cells along w]` (`[n, f]` of a
        table), float32, never negative; 0 where the score does not vary.

    Raises:
        ValueError: if an option is out of range, the baseline has another shape, or the model does
            not tell where channels are.

    Example:
        >>> computed = Compute(model, partial(sobol, patch=4))(inputs, targets, ids)
        >>> computed.attributions.shape
        (4, 2, 2)
        >>> bool(np.all(computed.attributions >= 0))
        True

    Reference:
        T. Fel, R. Cadène, M. Chalvidal, M. Cord, D. Vigouroux, T. Serre: Look at the Variance!
        Efficient Black-box Explanations with Sobol-based Sensitivity Analysis. NeurIPS 2021.
        https://arxiv.org/abs/2111.04138, section 3, with the estimator of M. J. W. Jansen, Computer
        Physics Communications 1999. The design is a Latin hypercube instead of a Sobol sequence,
        drawn once for all examples, and the variance is taken over all points instead of the first
        of each pair.
    """
    if n_designs < 2:
        raise ValueError(f"`sobol` needs n_designs >= 2; got {n_designs}")
    shape = tuple(inputs.shape[1:])
    where = settle_channels(model, shape, channels, asker="sobol")
    cells = coalitions.divide(shape, patch, where)
    n_features = cells.n_features
    # Both points of a design come from one cube of 2 m axes, so that they are independent.
    a, b = np.split(_latin_hypercube(seed, n_designs, 2 * n_features), 2, axis=1)
    cut = coalitions.cut(n_designs * (n_features + 1), micro_batch)

    def attribute(x: tf.Tensor, target: tf.Tensor, sample_id: tf.Tensor) -> tf.Tensor:
        absent = baselines.reference(baseline, model, x, sample_id, where)

        def points(row: tf.Tensor) -> tf.Tensor:
            """Returns the inputs of some micro-batch rows.

                row      0 ... m-1                    m        m+1 ... 2m                   2m+1
                point    a_0, its j-th from b_0      a_0       a_1, its j-th from b_1       a_1

            Row `k (m + 1) + j` is `a_k` with its j-th feature from `b_k`; j = m is no feature, so
            that `a_k` stays whole.
            """
            design, feature = row // (n_features + 1), row % (n_features + 1)
            from_b = tf.range(n_features) == feature[:, None]
            dimmed = tf.where(
                from_b,
                tf.gather(tf.constant(b, tf.float32), design),
                tf.gather(tf.constant(a, tf.float32), design),
            )
            return coalitions.mix(
                x, absent, coalitions.settled(model, coalitions.spread(cells, dimmed[None])), where
            )

        values = tf.cast(coalitions.evaluate_rows(model, points, target, score, cut), tf.float64)
        of_design = tf.reshape(values, [cut.n_examples, n_designs, n_features + 1])
        # S_j = 1/2K Σ_k [F(a_k) - F(a_k with its j-th from b_k)]² / V[F]
        share = tf.reduce_mean((of_design[..., -1:] - of_design[..., :-1]) ** 2, axis=1) / 2
        indices = tf.math.divide_no_nan(
            share, tf.math.reduce_variance(values, axis=1, keepdims=True)
        )
        return tf.cast(tf.reshape(indices, [cut.n_examples, *cells.counts]), tf.float32)

    indices = micro_batches.map_blocks(
        attribute, (tf.cast(inputs, tf.float32), targets, ids), cut.n_examples
    )
    return Attributed(indices, attributed_to=inputs_or_places(indices, inputs), signed=False)


def _latin_hypercube(
    seed: int, n_points: int, n_axes: int
) -> Float64[np.ndarray, "n_points n_axes"]:
    """Returns points of the unit cube, spread evenly along each axis.

    Every n-th part of an axis holds a coordinate of one of the n points.
    """
    generator = np.random.default_rng(seed)
    parts = generator.permuted(np.tile(np.arange(n_points)[:, None], n_axes), axis=0)
    return (parts + generator.random(parts.shape)) / n_points
