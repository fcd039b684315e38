"""HiResCAM."""

import keras
import tensorflow as tf
from jaxtyping import Int64, Shaped

from hvd_xai.primitives import cam
from hvd_xai.protocols import Attributed, Score


def hires_cam(
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    /,
    *,
    ids: Int64[tf.Tensor, "n"],
    layer: str | None = None,
    score: str | Score = "output",
) -> Attributed:
    """Multiplies each activation of a layer by its own gradient, and sums over channels.

    The map shows what each place adds to the score, whereas Grad-CAM's mean gradient may point at
    places that the model did not use. If the layer is followed by one dense layer alone, or by
    average pooling and one dense layer, a map sums to the score minus the bias.

        L = Σ_k ∂y / ∂A^k ⊙ A^k

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
        volume), float32, positive where the score is raised.

    Raises:
        ValueError: if the model has no such layer, several match, the layer has no spatial output,
            or the score does not depend on it.

    Example:
        The model ends in one dense layer without biases, so that each map sums to a logit:

        >>> compute = Compute(model, partial(hires_cam, score="logit"))
        >>> maps = [compute(inputs, np.full(4, k), ids).attributions for k in range(3)]
        >>> logits = np.stack(maps, axis=-1).sum(axis=(1, 2))
        >>> bool(np.allclose(keras.ops.softmax(logits), model(inputs), atol=1e-5))
        True

    Reference:
        R. L. Draelos, L. Carin: Use HiResCAM instead of Grad-CAM for faithful explanations of
        convolutional neural networks. 2020. https://arxiv.org/abs/2011.08891. Signed, as the
        authors' code returns it: their ReLU is for the picture, and would lose the sum.
    """
    del ids
    activations, gradient = cam.activations_and_gradient(
        model, inputs, targets, score, layer, asker="hires_cam"
    )
    # L = Σ_k ∂y / ∂A^k ⊙ A^k
    maps = tf.reduce_sum(gradient * activations, axis=-1)
    return Attributed(maps, attributed_to="places", signed=True)
