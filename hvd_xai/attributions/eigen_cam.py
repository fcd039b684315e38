"""Eigen-CAM."""

import math

import keras
import tensorflow as tf
from jaxtyping import Int64, Shaped

from hvd_xai.primitives import cam
from hvd_xai.protocols import Attributed


def eigen_cam(
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    /,
    *,
    ids: Int64[tf.Tensor, "n"],
    layer: str | None = None,
) -> Attributed:
    """Projects the activations of a layer on their first principal component.

    The map shows where a layer responds most, whatever the rest of the model does with it: neither
    score nor gradient matters, so all targets get the same map. The sign of a principal component
    is arbitrary; the method chooses it so that no map sums to less than zero, and so that no value
    is negative after a ReLU.

        A = U Σ Vᵀ  (places × channels)        L = A v_1

    Args:
        model: any built Keras model of one input.
        inputs: examples `[n, ...]`.
        targets: what a score would select, `[n]`; not used.
        ids: sample ids, `[n]`; not used, because nothing here is random.
        layer: name of a layer, or as much of its path as identifies it, such as `backbone/conv`; by
            default the last layer with a spatial output.

    Returns:
        Maps `[n, h, w]` at the layer's own resolution (`[n, t]` of a series, `[n, d, h, w]` of a
        volume), float32, in units of the activations; NaN where an example's activations are not
        finite.

    Raises:
        ValueError: if the model has no such layer, several match, or the layer has no spatial
            output.

    Example:
        >>> computed = Compute(model, eigen_cam)(inputs, targets, ids)
        >>> computed.attributions.shape
        (4, 2, 2)
        >>> others = Compute(model, eigen_cam)(inputs, (targets + 1) % 3, ids)
        >>> bool(np.all(others.attributions == computed.attributions))
        True

    Reference:
        M. B. Muhammad, M. Yeasin: Eigen-CAM: Class Activation Map using Principal Components. IJCNN
        2020. https://arxiv.org/abs/2008.00299. The mean is not taken off first, as in the paper.
        The paper leaves the sign open.
    """
    del targets, ids
    activations = cam.activations(model, inputs, layer, asker="eigen_cam")
    n_places = math.prod(activations.shape[1:-1])
    matrix = tf.reshape(activations, [-1, n_places, activations.shape[-1]])
    is_finite = tf.reduce_all(tf.math.is_finite(matrix), axis=[1, 2], keepdims=True)
    # The decomposition raises for all examples if one is not finite. Squares of float32 need
    # float64.
    finite = tf.cast(tf.where(is_finite, matrix, 0.0), tf.float64)
    # the same from the smaller matrix: u_1 times its singular value
    if n_places < activations.shape[-1]:
        variances, directions = tf.linalg.eigh(tf.matmul(finite, finite, transpose_b=True))
        projected = directions[..., -1] * tf.sqrt(tf.nn.relu(variances[..., -1:]))
    else:
        _, directions = tf.linalg.eigh(tf.matmul(finite, finite, transpose_a=True))
        projected = tf.linalg.matvec(finite, directions[..., -1])
    # A component has no sign of its own; it is turned so that places respond more than not.
    projected = tf.where(tf.reduce_sum(projected, axis=1, keepdims=True) < 0, -projected, projected)
    maps = tf.where(is_finite[..., 0], tf.cast(projected, tf.float32), float("nan"))
    # A layer without a ReLU may respond below 0, so that a map has a sign.
    return Attributed(
        tf.reshape(maps, [-1, *activations.shape[1:-1]]), attributed_to="places", signed=True
    )
