"""Guided backpropagation."""

import keras
import tensorflow as tf
from jaxtyping import Int64, Shaped

from hvd_xai.primitives import backward
from hvd_xai.protocols import Attributed, Score


def guided_backprop(
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    /,
    *,
    ids: Int64[tf.Tensor, "n"],
    score: str | Score = "output",
) -> Attributed:
    """Carries back the gradient where both it and the rectifier's activation are positive.

    Its sharp pictures show what excites the units on the way. They depend more on the image than on
    the target (edges stay when the upper layers are randomised), so use another method to find what
    speaks for a class.

        R_l = 1[f_l > 0] · 1[R_{l+1} > 0] · R_{l+1}        through each rectifier f;
                                                          the gradient elsewhere

    Args:
        model: any built Keras model of one input that contains rectifiers: layers, activations of
            layers, or calls of a function.
        inputs: examples `[n, ...]`; computed in float32.
        targets: what the score selects for each example, such as a class id, `[n]`.
        ids: sample ids, `[n]`; not used, because nothing here is random.
        score: scalar to explain: name of a score in `hvd_xai.scores`, or function of outputs and
            targets.

    Returns:
        Attributions of the shape of the inputs, signed, float32, in units of the score per unit of
        input; they do not sum to anything.

    Raises:
        ValueError: if the model has no rectifier, has one in a loop or a tf.function, or the score
            has no gradient at the inputs.

    Example:
        >>> method = partial(guided_backprop, score="logit")
        >>> computed = Compute(model, method)(inputs, targets, ids)
        >>> computed.attributions.shape
        (4, 8, 8, 1)

    Reference:
        J. T. Springenberg, A. Dosovitskiy, T. Brox, M. Riedmiller: Striving for Simplicity: The All
        Convolutional Net. ICLR 2015 workshop. https://arxiv.org/abs/1412.6806, section 3.4. ReLU6
        passes nothing on above 6, where its derivative is 0. Rectifiers with a slope below 0 (leaky
        ReLU) keep their gradient.
    """
    del ids
    gradient = backward.through_relus(model, inputs, targets, score, _relu, "guided_backprop")
    return Attributed(gradient, attributed_to="inputs", signed=True)


def _relu(operation: tf.Operation, gradients: backward.Gradients) -> backward.Gradients:
    """Passes on positive gradients, where the rectifier passed on its input."""
    return backward.derivative(operation, [tf.nn.relu(gradients[0])])
