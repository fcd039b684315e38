"""Saliency."""

import keras
import tensorflow as tf
from jaxtyping import Int64, Shaped

from hvd_xai.primitives import gradients
from hvd_xai.protocols import Attributed, Score


def saliency(
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    /,
    *,
    ids: Int64[tf.Tensor, "n"],
    score: str | Score = "output",
) -> Attributed:
    """Returns the gradient of the score with respect to the inputs.

    The gradient tells how a small change of each feature would change the score, and takes one pass
    through the model. Where the score is flat, the gradient is 0 even for features that matter.

        w = ∂F(x) / ∂x

    Args:
        model: any built Keras model of one input.
        inputs: examples `[n, ...]`; computed in float32.
        targets: what the score selects for each example, such as a class id, `[n]`.
        ids: sample ids, `[n]`; not used, because nothing here is random.
        score: scalar to explain: name of a score in `hvd_xai.scores`, or function of outputs and
            targets.

    Returns:
        Attributions of the shape of the inputs, signed, float32, in units of the score per unit of
        the inputs: of bytes per 1 of 255, also if the model begins with a Rescaling.

    Raises:
        ValueError: if the score has no gradient at the inputs.

    Example:
        >>> computed = Compute(model, saliency)(inputs, targets, ids)
        >>> computed.attributions.shape
        (4, 8, 8, 1)
        >>> tensors = tf.constant(inputs), tf.constant(targets)
        >>> saliency(model, *tensors, ids=tf.constant(ids)).attributed_to
        'inputs'

    Reference:
        K. Simonyan, A. Vedaldi, A. Zisserman: Deep Inside Convolutional Networks: Visualising Image
        Classification Models and Saliency Maps. ICLR 2014 workshop.
        https://arxiv.org/abs/1312.6034, section 3.1. Its maps show the largest magnitude of the
        channels; here sign and channels are kept, and how they are shown is the picture's business.
    """
    del ids
    gradient = gradients.differentiate(model, tf.cast(inputs, tf.float32), targets, score)
    return Attributed(gradient, attributed_to="inputs", signed=True)
