"""Finds the logits in the graph that a model was just traced into."""

from typing import Literal, TypeAlias

import tensorflow as tf
from jaxtyping import Float32

Activation: TypeAlias = Literal["softmax", "sigmoid"]
_ACTIVATIONS: dict[str, Activation] = {
    "Softmax": "softmax",
    "LogSoftmax": "softmax",
    "Sigmoid": "sigmoid",
}
# keep the values and their order
_SHAPING = {
    "Identity",
    "Cast",
    "Reshape",
    "Squeeze",
    "ExpandDims",
}
_LINEAR = {
    "BiasAdd",
    "MatMul",
    "BatchMatMulV2",
    "Einsum",
    "Conv2D",
    "Conv3D",
    "Conv2DBackpropInput",
    "Conv3DBackpropInputV2",
}
# linear if what they combine is
_COMBINING = {
    "AddV2",
    "Add",
    "AddN",
    "Sub",
    "Mul",
    "RealDiv",
    "Mean",
    "Sum",
    "ConcatV2",
    "Pack",
}
_GIVEN = {"Const", "Placeholder", "ReadVariableOp"}


def find_logits(tensor: tf.Tensor) -> tuple[Float32[tf.Tensor, "..."], Activation | None]:
    """Returns the logits behind a model's output, and the activation that follows them.

    The activation is None where the model returned logits. Both are found in the graph that the
    model was just traced into, as Keras's own cross-entropy finds them: neither the model nor its
    layers are touched, and it does not matter which of them applied the activation, or how.

    Raises:
        ValueError: if no graph is being traced, or the model ends neither in a softmax or sigmoid
            nor in a linear operation.
    """
    if tf.executing_eagerly():
        raise ValueError(
            "logits are found in the graph of the model, and there is none here; run this by"
            " `Compute`, or in a tf.function"
        )
    end = _behind_shaping(tensor)
    activation = _ACTIVATIONS.get(end.op.type)
    if activation is None and not _is_linear(end):
        raise ValueError(
            f"the model's logits cannot be found: it ends in '{end.op.type}', which is no softmax"
            " or sigmoid and not linear either. If its outputs are logits, explain score='output';"
            " otherwise pass a function of its outputs."
        )
    logits = tf.cast(end if activation is None else end.op.inputs[0], tf.float32)
    # Logits from before a reshape get the shape that the model returns.
    if tensor.shape.rank != logits.shape.rank or not tensor.shape.is_compatible_with(logits.shape):
        logits = tf.ensure_shape(tf.reshape(logits, tf.shape(tensor)), tensor.shape)
    return logits, activation


def find_activation(tensor: tf.Tensor) -> Activation | None:
    """Returns the activation that made probabilities of a model's logits; None if none did.

    Looks at the graph that the model was just traced into.
    """
    op_type = _behind_shaping(tensor).op.type
    # its logarithms are no probabilities
    return None if op_type == "LogSoftmax" else _ACTIVATIONS.get(op_type)


def ends_in_sigmoid(tensor: tf.Tensor) -> bool:
    """Returns whether a model's output is the sigmoid of its logits.

    Looks at the graph that the model was just traced into.
    """
    return find_activation(tensor) == "sigmoid"


def _behind_shaping(tensor: tf.Tensor) -> tf.Tensor:
    while tensor.op.type in _SHAPING:
        tensor = tensor.op.inputs[0]
    return tensor


def _is_linear(tensor: tf.Tensor) -> bool:
    """Returns whether linear operations alone made the tensor, back to the last layer's weights.

    Sums of such tensors are linear too; anything that bends values is not, such as a softmax made
    by hand.
    """
    open_ends: list[tf.Tensor] = [tensor]
    seen: set[object] = set()
    while open_ends:
        end = _behind_shaping(open_ends.pop())
        if end.op.type in _COMBINING:
            new = [one for one in end.op.inputs if one.dtype.is_floating and one.ref() not in seen]
            seen.update(one.ref() for one in new)
            open_ends += new
        elif end.op.type not in _LINEAR | _GIVEN:
            return False
    return True
