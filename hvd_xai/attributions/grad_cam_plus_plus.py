"""Grad-CAM++."""

import keras
import tensorflow as tf
from jaxtyping import Int64, Shaped

from hvd_xai.primitives import cam
from hvd_xai.protocols import Attributed, Score


def grad_cam_plus_plus(
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    /,
    *,
    ids: Int64[tf.Tensor, "n"],
    layer: str | None = None,
    score: str | Score = "output",
) -> Attributed:
    """Weighs a layer's channels by a weighted mean of their positive gradients.

    It keeps places where the weighted sum of the channels is positive. Grad-CAM divides a channel's
    weight by the size of the layer, so that small objects pale beside large ones of the same class.
    Here each place counts by its own gradient and by how much the channel responds as a whole. The
    method is made for activations that are not negative, as after a ReLU; with negative activations
    α may change its sign.

        g = ∂S / ∂A_ij^k        α_ij^k = g² / (2 g² + g³ Σ_ab A_ab^k)
        w_k = Σ_ij α_ij^k ReLU(g)        L = ReLU(Σ_k w_k A^k)

    Args:
        model: any built Keras model of one input.
        inputs: examples `[n, ...]`.
        targets: what the score selects for each example, such as a class id, `[n]`.
        ids: sample ids, `[n]`; not used, because nothing here is random.
        layer: name of a layer, or as much of its path as identifies it, such as `backbone/conv`; by
            default the last layer with a spatial output that leads to the score.
        score: scalar to explain: name of a score in `hvd_xai.scores`, or function of outputs and
            targets.

    Returns:
        Maps `[n, h, w]` at the layer's own resolution (`[n, t]` of a series, `[n, d, h, w]` of a
        volume), float32, never negative.

    Raises:
        ValueError: if the model has no such layer, several match, the layer has no spatial output,
            or the score does not depend on it.

    Example:
        >>> computed = Compute(model, grad_cam_plus_plus)(inputs, targets, ids)
        >>> computed.attributions.shape
        (4, 2, 2)
        >>> bool(np.all(computed.attributions >= 0))
        True

    Reference:
        A. Chattopadhay, A. Sarkar, P. Howlader, V. N. Balasubramanian: Grad-CAM++: Generalized
        Gradient-based Visual Explanations for Deep Convolutional Networks. WACV 2018.
        https://arxiv.org/abs/1710.11063, equation 19, which takes the layers above as piecewise
        linear. The paper explains exp(S), which puts one factor exp(S) before a map; it is left
        out, so that no map overflows. The authors' code also divides α by its sum over places; the
        paper does not.
    """
    del ids
    activations, gradient = cam.activations_and_gradient(
        model, inputs, targets, score, layer, asker="grad_cam_plus_plus"
    )
    # The equation with g² cancelled, for powers of a small gradient are zero in float32.
    response = tf.reduce_sum(activations, axis=cam.places(activations), keepdims=True)
    weighted = tf.math.divide_no_nan(tf.nn.relu(gradient), 2 + gradient * response)
    # w_k = Σ_ij α_ij^k ReLU(g)
    weight = tf.reduce_sum(weighted, axis=cam.places(gradient), keepdims=True)
    # L = ReLU(Σ_k w_k A^k)
    maps = tf.nn.relu(tf.reduce_sum(weight * activations, axis=-1))
    return Attributed(maps, attributed_to="places", signed=False)
