"""Blur integrated gradients."""

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float32, Float64, Int64, Shaped

from hvd_xai.primitives import coalitions, gradients
from hvd_xai.protocols import Attributed, Channels, Score
from hvd_xai.tracing import micro_batches
from hvd_xai.tracing.channels import channel_axis, settle_channels

# letters of the places and of their frequencies, in equations for `tf.einsum`
_AXES = (
    "abd",
    "xyz",
)


def blur_integrated_gradients(
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    /,
    *,
    ids: Int64[tf.Tensor, "n"],
    max_sigma: float | None = None,
    n_steps: int = 50,
    channels: Channels | None = None,
    score: str | Score = "output",
    micro_batch: int = 256,
) -> Attributed:
    """Integrates gradients along the path from a blurred image to the image itself.

    No baseline has to be chosen, and no point of the path shows edges that the image does not have.
    The attributions of an example sum to the score's gain along the path, `F(x) - F(L(x, σ_max))`;
    `convergence_delta` says how far they miss it. It works on series, images and volumes.

        BlurIG_i(x) = ∫ ∂F(L(x, σ)) / ∂L_i * ∂L_i(x, σ) / ∂σ dσ, from σ_max to 0
        L(x, σ): x blurred by a Gaussian

    Args:
        model: any built Keras model of one input.
        inputs: examples with one to three axes of places, such as `[n, h, w, c]`; computed in
            float32.
        targets: what the score selects for each example, such as a class id, `[n]`.
        ids: sample ids, `[n]`; not used, because nothing here is random.
        max_sigma: standard deviation of the strongest blur in places, above 0; by default half the
            longest axis, which leaves little but the mean.
        n_steps: number of steps of the path, at least 1.
        channels: where the inputs have their channels: `last`, `first`, or `none` if every axis has
            places; by default, where the model has them.
        score: scalar to explain: name of a score in `hvd_xai.scores`, or function of outputs and
            targets.
        micro_batch: largest number of (example x step) micro-batch rows that go through the model
            at once; it bounds the memory and leaves the attributions as they are.

    Returns:
        Attributions of the shape of the inputs, signed, float32, in the units of the score; in
        `per_sample` `convergence_delta` `[n]`, the sum of an example's attributions minus `F(x) -
        F(L(x, σ_max))`.

    Raises:
        ValueError: if an option is out of range, the inputs have no places, the model does not tell
            where channels are, or the score has no gradient at the inputs.

    Example:
        >>> computed = Compute(model, blur_integrated_gradients)(inputs, targets, ids)
        >>> computed.attributions.shape
        (4, 8, 8, 1)
        >>> bool(np.abs(computed.per_sample["convergence_delta"]).max() < 0.01)
        True

    Reference:
        S. Xu, S. Venugopalan, M. Sundararajan: Attribution in Scale and Space. CVPR 2020.
        https://arxiv.org/abs/2004.03383. Deviations: images go on as in a mirror beyond their
        edges, where the authors' code has zeros, so that a constant image stays as it is; scales
        are denser where they are small, σ = σ_max u² for equal steps of u, as most detail is lost
        there; and each step takes the gradient at its middle times what the step changes, so that
        linear models are exact.
    """
    del ids
    if not 3 <= inputs.shape.rank <= 2 + len(_AXES[0]):
        raise ValueError(
            "`blur_integrated_gradients` needs inputs (n, places..., channels) of rank 3 to 5; got"
            f" {tuple(inputs.shape)}, which has no places to blur. Take `integrated_gradients`."
        )
    shape = tuple(inputs.shape[1:])
    where = settle_channels(model, shape, channels, asker="blur_integrated_gradients")
    places = coalitions.places(shape, where)
    sigma = max(places) / 2 if max_sigma is None else max_sigma
    if n_steps < 1 or not sigma > 0:
        raise ValueError(
            f"`blur_integrated_gradients` needs n_steps >= 1 and max_sigma > 0; got {n_steps} and"
            f" {max_sigma}"
        )
    cosines = [_cosines(length) for length in places]
    axis = channel_axis(where, len(shape) + 1)
    start, middles, changes = _steps(places, sigma, n_steps, axis)
    blocks = micro_batches.cut(np.arange(n_steps, dtype=np.float64), np.ones(n_steps), micro_batch)

    def attribute(x: tf.Tensor, target: tf.Tensor) -> Attributed:
        frequencies = _change_basis(x, [cosine.T for cosine in cosines], axis)

        def of_steps(step: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
            chosen = tf.cast(step, tf.int32)
            points, velocity = (
                _change_basis(frequencies[:, None] * tf.gather(factors, chosen), cosines, axis)
                for factors in (middles, changes)
            )
            return gradients.integrate(model, points, velocity, weight, target, score)

        attributions = micro_batches.sum_over_chunks(of_steps, blocks, tuple(x.shape))
        blurred = _change_basis(frequencies * start, cosines, axis)
        delta = gradients.convergence_delta(model, attributions, x, blurred, target, score)
        return Attributed(
            attributions, {"convergence_delta": delta}, attributed_to="inputs", signed=True
        )

    attributed: Attributed = micro_batches.map_blocks(
        attribute, (tf.cast(inputs, tf.float32), targets), blocks.n_examples
    )
    return attributed


def _steps(
    places: tuple[int, ...], sigma: float, n_steps: int, channel: int | None
) -> tuple[Float32[tf.Tensor, "..."], Float32[tf.Tensor, "s ..."], Float32[tf.Tensor, "s ..."]]:
    """Returns the path's steps: the factor of each frequency, which is how blurring changes it.

    They are the factors at the path's start, those in the middle of each step, and how each step
    changes them.
    """
    squares = sum(
        np.square(np.pi * k / length) for k, length in zip(np.indices(places), places, strict=True)
    )
    # Blurring multiplies the frequency k of an axis by exp(-σ² k² / 2). The path at u = 0, 1/2, 1,
    # ..., n_steps: its odd entries are the middles of its steps, the even ones their ends.
    #
    #     u        0     1/2     1     3/2     2   ...
    #     path   start  middle  end   middle  end  ...
    #
    # A step's change, its end minus its start, is dL/dσ dσ.
    sigmas = sigma * np.linspace(1, 0, 2 * n_steps + 1) ** 2
    path: np.ndarray = np.exp(np.multiply.outer(-np.square(sigmas) / 2, squares))
    if channel is not None:
        # All channels of a place are blurred alike; axis 0 of the path is its steps.
        path = np.expand_dims(path, channel)
    start, middles, changes = (
        tf.constant(factors, tf.float32)
        for factors in (path[0], path[1::2], path[2::2] - path[:-1:2])
    )
    return start, middles, changes


def _cosines(length: int) -> Float64[np.ndarray, "k i"]:
    """Returns the waves of an axis that goes on as in a mirror, one wave in each row.

    They are the orthonormal discrete cosine transform (DCT-II).
    """
    k, i = np.indices((length, length))
    return np.sqrt(np.where(k == 0, 1, 2) / length) * np.cos(np.pi * k * (i + 0.5) / length)


def _change_basis(x: tf.Tensor, matrices: list[np.ndarray], channel: int | None) -> tf.Tensor:
    """Multiplies each axis of places by its matrix.

    Args:
        x: examples `[n, ...]`, or several versions of each, `[n, s, ...]`.
        matrices: matrix of each axis of places.
        channel: axis of the channels in examples `[n, ...]`; None if they have none.
    """
    before, after = (letters[: len(matrices)] for letters in _AXES)
    pairs = ",".join(map("".join, zip(before, after, strict=True)))
    if channel is not None:
        # axis 1 is the first after the examples
        before, after = (f"{of[: channel - 1]}c{of[channel - 1 :]}" for of in (before, after))
    return tf.einsum(
        f"{pairs},...{before}->...{after}",
        *[tf.constant(matrix, tf.float32) for matrix in matrices],
        x,
    )
