"""Gradient times input."""

import keras
import tensorflow as tf
from jaxtyping import Int64, Shaped

from hvd_xai.primitives import gradients
from hvd_xai.protocols import Attributed, Score


def gradient_x_input(
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    /,
    *,
    ids: Int64[tf.Tensor, "n"],
    score: str | Score = "output",
) -> Attributed:
    """Multiplies the gradient of the score by the inputs.

    The product is what each feature adds to the score if the model is taken as linear. For
    rectifier networks without biases it is integrated gradients from zero, at the cost of one pass
    through the model; elsewhere the attributions need not sum to anything.

        a_i = x_i * ∂F(x) / ∂x_i

    Args:
        model: any built Keras model of one input.
        inputs: examples `[n, ...]`; computed in float32.
        targets: what the score selects for each example, such as a class id, `[n]`.
        ids: sample ids, `[n]`; not used, because nothing here is random.
        score: scalar to explain: name of a score in `hvd_xai.scores`, or function of outputs and
            targets.

    Returns:
        Attributions of the shape of the inputs, signed, float32, in the units of the score.

    Raises:
        ValueError: if the score has no gradient at the inputs.

    Example:
        >>> computed = Compute(model, gradient_x_input)(0 * inputs, targets, ids)
        >>> computed.attributions.shape
        (4, 8, 8, 1)
        >>> bool(np.all(computed.attributions == 0))
        True

    Reference:
        A. Shrikumar, P. Greenside, A. Shcherbina, A. Kundaje: Not Just a Black Box: Learning
        Important Features Through Propagating Activation Differences. 2016.
        https://arxiv.org/abs/1605.01713.
    """
    del ids
    x = tf.cast(inputs, tf.float32)
    # a_i = x_i * ∂F(x) / ∂x_i
    attributions = x * gradients.differentiate(model, x, targets, score)
    return Attributed(attributions, attributed_to="inputs", signed=True)
