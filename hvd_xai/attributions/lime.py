"""LIME."""

import keras
import tensorflow as tf
from jaxtyping import Float64, Int64, Shaped

from hvd_xai import baselines
from hvd_xai.primitives import coalitions
from hvd_xai.primitives.axes import inputs_or_places
from hvd_xai.protocols import Attributed, Baseline, Channels, Score
from hvd_xai.tracing import micro_batches
from hvd_xai.tracing.channels import settle_channels


def lime(
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    /,
    *,
    ids: Int64[tf.Tensor, "n"],
    patch: int | tuple[int, ...] | None = None,
    n_samples: int = 256,
    kernel_width: float = 0.25,
    ridge: float = 1.0,
    baseline: str | Baseline = "zero",
    channels: Channels | None = None,
    score: str | Score = "output",
    seed: int = 0,
    micro_batch: int = 256,
) -> Attributed:
    """Fits, around each example, a linear model of the score by which features are present.

    It repeatedly takes away a random half of the features, and returns the coefficients of a ridge
    regression in which versions with more features count more. `local_r2` says how well the score
    follows such a model: where it is low, the attributions say little.

        min_{β, β0} Σ_z π(z) [F(z) - β0 - β·z]² + λ |β|²
        π(z) = exp(-D(z)² / σ²)        D(z) = 1 - √(|z| / m)

    Args:
        model: any built Keras model of one input.
        inputs: examples `[n, ...]`, computed in float32: tables `[n, f]`, series, images or
            volumes.
        targets: what the score selects for each example, such as a class id, `[n]`.
        ids: sample ids, `[n]`, which with the seed decide which features are taken away.
        patch: side of a feature in places, one number for all axes or one for each; by default a
            seventh of each axis, and single values in tables. All cells of an axis have nearly
            equal sides.
        n_samples: number of versions of an example, the whole example among them, at least 2; take
            several times the number of features.
        kernel_width: width σ of the kernel, above 0: the smaller, the more the versions count in
            which little is missing.
        ridge: penalty λ, above 0, that draws coefficients to 0, against a sum of weights of up to
            `n_samples`.
        baseline: values of absent features: name of a baseline in `hvd_xai.baselines`, or function
            of the inputs.
        channels: where the inputs have their channels: `last`, `first`, or `none` if every axis has
            places; by default, where the model has them.
        score: scalar to explain: name of a score in `hvd_xai.scores`, or function of outputs and
            targets.
        seed: seed of the random numbers.
        micro_batch: largest number of (example x version) micro-batch rows that go through the
            model at once; it bounds the memory and leaves the attributions as they are.

    Returns:
        Coefficients β, `[n, cells along h, cells along w]` (`[n, f]` of a table), float32, signed,
        in the units of the score; in `per_sample` `intercept` `[n]`, β0, and `local_r2` `[n]`, the
        weighted share of the score's variance that the linear model explains.

    Raises:
        ValueError: if an option is out of range, the baseline has another shape, or the model does
            not tell where channels are.

    Example:
        >>> computed = Compute(model, partial(lime, patch=4))(inputs, targets, ids)
        >>> computed.attributions.shape
        (4, 2, 2)
        >>> sorted(computed.per_sample)
        ['intercept', 'local_r2']

    Reference:
        M. T. Ribeiro, S. Singh, C. Guestrin: "Why Should I Trust You?": Explaining the Predictions
        of Any Classifier. KDD 2016. https://arxiv.org/abs/1602.04938, equations 1 and 2, with the
        cosine distance its section 3.4 proposes for text. Features are cells of a grid instead of
        superpixels, present or absent for tabular data too, and none are selected: the ridge keeps
        all of them, as the authors' program does for images. That program takes the root of π.
    """
    if n_samples < 2:
        raise ValueError(f"`lime` needs n_samples >= 2; got {n_samples}")
    for name, value in (("kernel_width", kernel_width), ("ridge", ridge)):
        if not value > 0:
            raise ValueError(f"`lime` needs {name} > 0; got {value}")
    shape = tuple(inputs.shape[1:])
    where = settle_channels(model, shape, channels, asker="lime")
    cells = coalitions.divide(shape, patch, where)
    cut = coalitions.cut(n_samples, micro_batch)

    def attribute(x: tf.Tensor, target: tf.Tensor, sample_id: tf.Tensor) -> Attributed:
        drawn = coalitions.uniform(seed, sample_id, (n_samples - 1, cells.n_features)) < 0.5
        # Row 0 is the whole example; in the others each feature is present by the toss of a coin.
        present = tf.concat([tf.fill([cut.n_examples, 1, cells.n_features], True), drawn], axis=1)
        absent = baselines.reference(baseline, model, x, sample_id, where)
        values = coalitions.evaluate_rows(
            model,
            lambda row: coalitions.mix(
                x, absent, coalitions.spread(cells, tf.gather(present, row, axis=1)), where
            ),
            target,
            score,
            cut,
        )
        z, y = tf.cast(present, tf.float64), tf.cast(values, tf.float64)
        # D(z) = 1 - √(|z| / m) and π(z) = exp(-D² / σ²), the cosine distance from all ones
        distance = 1 - tf.sqrt(tf.reduce_mean(z, axis=2))
        coefficients, intercept, r2 = _ridge(z, y, tf.exp(-(distance**2) / kernel_width**2), ridge)
        attributions = tf.reshape(coefficients, [cut.n_examples, *cells.counts])
        per_sample = {
            "intercept": tf.cast(intercept, tf.float32),
            "local_r2": tf.cast(r2, tf.float32),
        }
        return Attributed(
            tf.cast(attributions, tf.float32),
            per_sample,
            attributed_to=inputs_or_places(attributions, x),
            signed=True,
        )

    attributed: Attributed = micro_batches.map_blocks(
        attribute, (tf.cast(inputs, tf.float32), targets, ids), cut.n_examples
    )
    return attributed


def _ridge(
    z: Float64[tf.Tensor, "n r m"],
    y: Float64[tf.Tensor, "n r"],
    weights: Float64[tf.Tensor, "n r"],
    ridge: float,
) -> tuple[Float64[tf.Tensor, "n m"], Float64[tf.Tensor, "n"], Float64[tf.Tensor, "n"]]:
    """Returns coefficients, intercepts and R² of the weighted ridge regressions of `y` by `z`.

    The penalty does not draw the intercept to 0.
    """
    # Centred by the weighted means, so that the intercept is not drawn to 0.
    shares = weights / tf.reduce_sum(weights, axis=1, keepdims=True)
    z_mean, y_mean = tf.einsum("nr,nrm->nm", shares, z), tf.reduce_sum(shares * y, axis=1)
    z, y = z - z_mean[:, None], y - y_mean[:, None]
    weighted = weights[..., None] * z
    normal = tf.matmul(weighted, z, transpose_a=True)
    normal = tf.linalg.set_diag(normal, tf.linalg.diag_part(normal) + ridge)
    right = tf.linalg.matvec(weighted, y, transpose_a=True)
    coefficients = tf.linalg.cholesky_solve(tf.linalg.cholesky(normal), right[..., None])[..., 0]
    left_over = tf.reduce_sum(weights * (y - tf.linalg.matvec(z, coefficients)) ** 2, axis=1)
    r2 = 1 - tf.math.divide_no_nan(left_over, tf.reduce_sum(weights * y**2, axis=1))
    return coefficients, y_mean - tf.reduce_sum(coefficients * z_mean, axis=1), r2
