"""Lets a model of whole numbers, such as the bytes of an image, run on floats."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from hvd_xai.tracing.layer_patching import replaced


@contextmanager
def floats_kept(model: keras.Model) -> Iterator[None]:
    """Keeps floats as they are where the model's input is of whole numbers, while it lasts.

    Keras casts what a functional model is given to the dtype of its `Input`. That cuts gradients,
    and cuts off what a point on a path, or a place that is half hidden, has behind the comma. An
    input that is read as floats at once, by a `Rescaling`, a `Normalization` or `keras.ops.cast`,
    needs no such cast. Any other may be ids, of tokens or categories, and is cast as always.

    Args:
        model: model to run within the context.
    """

    def kept(of: Any, convert: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
        are_read = [_is_read_as_floats(tensor) for tensor in of._inputs]

        def convert_others(flat_inputs: list[Any]) -> list[Any]:
            return [
                given if is_read and given is not None and given.dtype.is_floating else new
                for given, new, is_read in zip(
                    flat_inputs, convert(flat_inputs), are_read, strict=True
                )
            ]

        return convert_others

    # Keras has no public way around the cast. A Sequential casts before it calls the functional
    # model that it hides, which casts again.
    name = "_convert_inputs_to_tensors"
    found = list(model._flatten_layers())
    chains = {of: of._functional for of in found if getattr(of, "_functional", None) is not None}
    casting = [
        of
        for of in (*found, *chains.values())
        if hasattr(of, name) and any(map(_is_read_as_floats, of._inputs))
    ]
    outer = [of for of, inner in chains.items() if inner in casting]
    with replaced(casting, name, kept), replaced(outer, "autocast", lambda *_: False):
        yield


def _is_whole(tensor: Any) -> bool:
    return bool(tf.as_dtype(tensor.dtype).is_integer)


def _is_read_as_floats(tensor: Any) -> bool:
    """Returns whether an input is of whole numbers, all of which are cast to floats at once."""
    if not _is_whole(tensor):
        return False
    readers = [node.operation for node in tensor._keras_history.operation._outbound_nodes]
    return bool(readers) and all(map(_reads_as_floats, readers))


def _reads_as_floats(reader: Any) -> bool:
    if isinstance(reader, keras.layers.Rescaling | keras.layers.Normalization):
        return True
    if isinstance(reader, keras.Model):
        inputs = getattr(reader, "inputs", None) or []
        return len(inputs) == 1 and _is_read_as_floats(inputs[0])
    # the operation that `keras.ops.cast` adds to a model's graph
    is_cast = type(reader).__name__ == "Cast"
    return is_cast and bool(tf.as_dtype(reader.dtype).is_floating)
