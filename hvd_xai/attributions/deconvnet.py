"""Deconvolutional network."""

import keras
import tensorflow as tf
from jaxtyping import Int64, Shaped

from hvd_xai.primitives import backward
from hvd_xai.protocols import Attributed, Score


def deconvnet(
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    /,
    *,
    ids: Int64[tf.Tensor, "n"],
    score: str | Score = "output",
) -> Attributed:
    """Carries the score's gradient back to the inputs and drops negative parts at each rectifier.

    It projects what a unit of a convolutional network looks for back to the inputs: the network
    runs backwards, with transposed filters, poolings undone at the places that won, and rectifiers
    applied to what comes back, whatever their activation was. `guided_backprop` is sharper.

        R_l = 1[R_{l+1} > 0] · R_{l+1}        through each rectifier; the gradient elsewhere

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
        >>> computed = Compute(model, deconvnet)(inputs, targets, ids)
        >>> computed.attributions.shape
        (4, 8, 8, 1)

    Reference:
        M. D. Zeiler, R. Fergus: Visualizing and Understanding Convolutional Networks. ECCV 2014.
        https://arxiv.org/abs/1311.2901, section 2.1; as a rule for gradients it is figure 1 of
        https://arxiv.org/abs/1412.6806. The paper projects one activation of a layer; here it is
        the score. Rectifiers with a slope below 0 (leaky ReLU) keep their gradient.
    """
    del ids
    gradient = backward.through_relus(model, inputs, targets, score, _relu, "deconvnet")
    return Attributed(gradient, attributed_to="inputs", signed=True)


def _relu(operation: tf.Operation, gradients: backward.Gradients) -> backward.Gradients:
    """Passes on positive gradients only."""
    del operation
    return [tf.nn.relu(gradients[0])]
