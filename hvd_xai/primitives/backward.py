"""Carries gradients back through a traced function by rules of one's own.

Wherever an operation comes from (a layer, its activation, a Lambda, a subclassed model's `call`),
it is one of the same few kinds in the graph, so a rule for the kind reaches it. The model, its
layers and TensorFlow's registry of gradients stay as they are: there is nothing to put back.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import keras
import tensorflow as tf
from jaxtyping import Float32, Shaped

# There is no public way to the gradient of one operation.
from tensorflow.python.framework import ops

from hvd_xai import scores
from hvd_xai.protocols import Score

Gradients: TypeAlias = Sequence[tf.Tensor | None]
Rule: TypeAlias = Callable[[tf.Operation, Gradients], Gradients]

# Kinds whose output is the same for all values of the input.
_ONLY_SHAPE = {"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"}
_RELUS = {"Relu", "Relu6"}


def between(source: tf.Tensor, value: tf.Tensor) -> list[tf.Operation]:
    """Returns the operations by which `value` depends on `source`, each after those it uses.

    Both tensors are of the same graph. Whole numbers that depend on the source only through what
    the model takes for constants (`tf.stop_gradient`) depend on nothing.
    """
    if value is source:
        return []
    reached, followed, following = {source.ref()}, {source.ref()}, []
    # A graph lists its operations in the order they were made: each after those that it uses.
    for operation in source.graph.get_operations():
        if operation.type in _ONLY_SHAPE or not any(
            tensor.ref() in reached for tensor in operation.inputs
        ):
            continue
        is_followed = operation.type != "StopGradient" and any(
            tensor.ref() in followed for tensor in operation.inputs
        )
        outputs = {
            tensor.ref() for tensor in operation.outputs if is_followed or tensor.dtype.is_floating
        }
        if outputs:
            reached |= outputs
            followed |= outputs if is_followed else set()
            following.append(operation)
    needed, path = {value.op.name}, []
    # Back from the value, what it does not need is left out.
    for operation in reversed(following):
        if operation.name in needed:
            needed.update(tensor.op.name for tensor in operation.inputs if tensor.ref() in reached)
            path.append(operation)
    return path[::-1]


def derivative(operation: tf.Operation, gradients: Gradients) -> Gradients:
    """Returns TensorFlow's gradients at an operation's inputs from those at its outputs.

    It is the `Rule` of ordinary backpropagation.
    """
    function = ops.get_gradient_function(operation)
    if function is None:
        return [None] * len(operation.inputs)
    filled = [
        tf.zeros_like(output) if gradient is None and output.dtype.is_floating else gradient
        for output, gradient in zip(operation.outputs, gradients, strict=True)
    ]
    returned = function(operation, *filled)
    several = list(returned) if isinstance(returned, list | tuple) else [returned]
    # rows that were looked up come as slices
    return [None if sent is None else tf.convert_to_tensor(sent) for sent in several]


def has_gradient(operation: tf.Operation) -> bool:
    """Returns whether TensorFlow knows the gradient of an operation.

    Where it does not, `tf.gradients` fails, or takes the gradient for 0.
    """
    try:
        return (
            operation.type.endswith("PartitionedCall")
            or ops.get_gradient_function(operation) is not None
        )
    except LookupError:
        return False


def propagate(
    source: tf.Tensor, value: tf.Tensor, path: Sequence[tf.Operation], rule: Rule
) -> tf.Tensor | None:
    """Carries ones from `value` back to `source`, operation by operation.

    Args:
        source: tensor to carry to.
        value: tensor to start from, of the same graph.
        path: operations that `between` returned for the two.
        rule: function of an operation and what has arrived at its outputs that returns what it
            sends to its inputs; `derivative` makes it the gradient.

    Returns:
        The sum of what arrived at `source`, of its shape; None if nothing did.
    """
    arrived = {value.ref(): tf.ones_like(value)}
    for operation in reversed(path):
        gradients = [arrived.get(output.ref()) for output in operation.outputs]
        if all(gradient is None for gradient in gradients):
            continue
        for tensor, sent in zip(operation.inputs, rule(operation, gradients), strict=True):
            if sent is not None:
                before = arrived.get(tensor.ref())
                arrived[tensor.ref()] = sent if before is None else before + sent
    return arrived.get(source.ref())


def through_relus(
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    score: str | Score,
    relu: Rule,
    asker: str,
) -> Float32[tf.Tensor, "n ..."]:
    """Returns the gradient of the score at the inputs, with another rule for rectifiers.

    Rectifiers are `max(x, 0)` and `min(max(x, 0), 6)`.

    Args:
        model: any built Keras model of one input.
        inputs: examples `[n, ...]`; computed in float32.
        targets: what the score selects for each example, `[n]`.
        score: scalar to explain, by name or as a function.
        relu: rule for each rectifier.
        asker: name of the method that asks, for errors.

    Raises:
        ValueError: if no rectifier lies between inputs and score, one is out of reach, or there is
            no gradient.
    """

    def run(points: tf.Tensor) -> tf.Tensor:
        value = scores.evaluate(model, points, targets, score)
        path = between(points, value)
        if not path:
            raise ValueError(
                f"`{asker}` needs a score that depends on the inputs; this one does not"
            )
        for operation in path:
            if any(inner.type in _RELUS for inner in _within(operation)):
                raise ValueError(
                    f"`{asker}` replaces the gradient of rectifiers (ReLU), and cannot reach one in"
                    f" the loop, branch or tf.function at {place(operation, model)!r}"
                )
        if not any(operation.type in _RELUS for operation in path):
            raise ValueError(
                f"`{asker}` replaces the gradient of rectifiers (ReLU), and there is none between"
                f" the inputs of model {model.name!r} and the score; take a method that does not"
                " need one, such as `integrated_gradients`"
            )
        gradient = propagate(
            points,
            value,
            path,
            lambda operation, g: (relu if operation.type in _RELUS else derivative)(operation, g),
        )
        if gradient is None:
            raise ValueError(
                f"`{asker}` needs a score that depends smoothly on the inputs; this one has no"
                " gradient there"
            )
        return gradient

    # A graph of its own, also where we are called eagerly: it holds nothing but the model.
    points = tf.cast(inputs, tf.float32)
    gradient: tf.Tensor = tf.function(run, autograph=False).get_concrete_function(
        tf.TensorSpec(points.shape, points.dtype)
    )(points)
    return gradient


def place(operation: tf.Operation, model: keras.Model) -> str:
    """Returns the names of the layers around an operation, outermost first, joined by `/`.

    An operation outside of all layers is called by its own name.
    """
    names = {layer.name for layer in model._flatten_layers()}
    around = []
    for scope in str(operation.name).split("/")[:-1]:
        # Keras opens a layer's scope twice in a call, and TensorFlow puts a number on the second.
        around += [name for name in (re.sub(r"_\d+$", "", scope), scope) if name in names][:1]
    return "/".join(around) or str(operation.name)


def _within(operation: tf.Operation) -> Iterator[tf.Operation]:
    """Yields the operations inside the functions that an operation calls.

    Such functions are bodies of loops, branches, and tf.functions.
    """
    for attribute in operation.node_def.attr.values():
        if attribute.HasField("func") and attribute.func.name:
            for inner in operation.graph._get_function(attribute.func.name).graph.get_operations():
                yield inner
                yield from _within(inner)
