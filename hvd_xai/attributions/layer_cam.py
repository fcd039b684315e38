"""LayerCAM."""

import keras
import tensorflow as tf
from jaxtyping import Int64, Shaped

from hvd_xai.primitives import cam
from hvd_xai.protocols import Attributed, Score


def layer_cam(
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    /,
    *,
    ids: Int64[tf.Tensor, "n"],
    layer: str | None = None,
    score: str | Score = "output",
) -> Attributed:
    """Weighs each activation of a layer by its own positive gradient, and keeps positive sums.

    Every place has a weight of its own, so that even the fine maps of early layers show the object
    and not everything that the channel responds to.

        w_ij^k = ReLU(∂y / ∂A_ij^k)        L = ReLU(Σ_k w_ij^k A_ij^k)

    Args:
        model: any built Keras model of one input.
        inputs: examples `[n, ...]`.
        targets: what the score selects for each example, such as a class id, `[n]`.
        ids: sample ids, `[n]`; not used, because nothing here is random.
        layer: name of a layer, or as much of its path as identifies it, such as `backbone/conv`; by
            default the last layer with a spatial output that leads to the score. Early layers give
            finer maps.
        score: scalar to explain: name of a score in `hvd_xai.scores`, or function of outputs and
            targets.

    Returns:
        Maps `[n, h, w]` at the layer's own resolution (`[n, t]` of a series, `[n, d, h, w]` of a
        volume), float32, never negative.

    Raises:
        ValueError: if the model has no such layer, several match, the layer has no spatial output,
            or the score does not depend on it.

    Example:
        >>> method = partial(layer_cam, layer="conv")
        >>> computed = Compute(model, method)(inputs, targets, ids)
        >>> computed.attributions.shape
        (4, 6, 6)
        >>> bool(np.all(computed.attributions >= 0))
        True

    Reference:
        P.-T. Jiang, C.-B. Zhang, Q. Hou, M.-M. Cheng, Y. Wei: LayerCAM: Exploring Hierarchical
        Class Activation Maps for Localization. IEEE Transactions on Image Processing 30, 2021.
        https://doi.org/10.1109/TIP.2021.3089943. The paper scales maps of early layers by a tanh
        before it joins them with those of later ones; a map here is of one layer and not scaled.
    """
    del ids
    activations, gradient = cam.activations_and_gradient(
        model, inputs, targets, score, layer, asker="layer_cam"
    )
    # L = ReLU(Σ_k w_ij^k A_ij^k), with w_ij^k = ReLU(∂y / ∂A_ij^k)
    maps = tf.nn.relu(tf.reduce_sum(tf.nn.relu(gradient) * activations, axis=-1))
    return Attributed(maps, attributed_to="places", signed=False)
