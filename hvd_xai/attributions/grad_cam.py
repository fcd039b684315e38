"""Grad-CAM."""

import keras
import tensorflow as tf
from jaxtyping import Int64, Shaped

from hvd_xai.primitives import cam
from hvd_xai.protocols import Attributed, Score


def grad_cam(
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    /,
    *,
    ids: Int64[tf.Tensor, "n"],
    layer: str | None = None,
    score: str | Score = "output",
) -> Attributed:
    """Weighs a layer's channels by their mean gradient, and keeps places with a positive sum.

    The result is a coarse map of what speaks for the target, at the resolution of the layer. It
    works on series, images and volumes.

        α_k = 1/Z Σ_ij ∂y / ∂A_ij^k        L = ReLU(Σ_k α_k A^k)

    Args:
        model: any built Keras model of one input.
        inputs: examples `[n, ...]`.
        targets: what the score selects for each example, such as a class id, `[n]`.
        ids: sample ids, `[n]`; not used, because nothing here is random.
        layer: name of a layer, or as much of its path as identifies it, such as `backbone/conv`; by
            default the last layer with a spatial output that leads to the score, as the paper
            recommends.
        score: scalar to explain: name of a score in `hvd_xai.scores`, or function of outputs and
            targets.

    Returns:
        Maps `[n, h, w]` at the layer's own resolution (`[n, t]` of a series, `[n, d, h, w]` of a
        volume), float32, never negative.

    Raises:
        ValueError: if the model has no such layer, several match, the layer has no spatial output,
            or the score does not depend on it.

    Example:
        >>> computed = Compute(model, partial(grad_cam, layer="conv"))(inputs, targets, ids)
        >>> computed.attributions.shape
        (4, 6, 6)
        >>> bool(np.all(computed.attributions >= 0))
        True

    Reference:
        R. R. Selvaraju et al.: Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
        Localization. ICCV 2017. https://arxiv.org/abs/1610.02391, equations 1 and 2. Maps are
        neither resized nor normalised here: that is the picture's business.
    """
    del ids
    activations, gradient = cam.activations_and_gradient(
        model, inputs, targets, score, layer, asker="grad_cam"
    )
    # α_k = 1/Z Σ_ij ∂y / ∂A_ij^k
    alpha = tf.reduce_mean(gradient, axis=cam.places(gradient), keepdims=True)
    # L = ReLU(Σ_k α_k A^k)
    maps = tf.nn.relu(tf.reduce_sum(alpha * activations, axis=-1))
    return Attributed(maps, attributed_to="places", signed=False)
