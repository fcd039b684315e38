"""Reads what a model says of its inputs."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import keras

from hvd_xai.probe.dataset_format import ModelInputs


def read_inputs(model: keras.Model) -> ModelInputs:
    """Reads the shapes of a model's inputs, and the names of several, as far as it says them.

    Functional and Sequential models say all. A subclassed model says the shapes that it was built
    with, and by which names if it was called with a dict; or nothing.

    Args:
        model: built Keras model.

    Example:
        >>> age, history = keras.Input((1,), name="age"), keras.Input((3,), name="history")
        >>> both = keras.layers.Concatenate()([age, history])
        >>> print(read_inputs(keras.Model([age, history], both)))
        'age' (None, 1), 'history' (None, 3)
    """
    tensors = getattr(model, "inputs", None)
    if tensors is None:
        return _free(_read_structure((model.get_build_config() or {}).get("input_shape")))
    if len(tensors) == 1:
        return ModelInputs((tuple(tensors[0].shape[1:]),))
    if isinstance(model.input, Mapping):
        return _read_structure({name: tensor.shape for name, tensor in model.input.items()})
    # A tensor's own name is made anew whenever the model is loaded; its layer's is not.
    layers = {
        id(layer.output): layer.name
        for layer in model.layers
        if isinstance(layer, keras.layers.InputLayer)
    }
    return ModelInputs(
        tuple(tuple(tensor.shape[1:]) for tensor in tensors),
        tuple(layers.get(id(tensor), str(place)) for place, tensor in enumerate(tensors)),
    )


def _read_structure(shapes: Any) -> ModelInputs:
    """Reads a shape, a list of shapes, or a dict of shapes by name; anything else says nothing."""
    if isinstance(shapes, Mapping) and all(map(_is_shape, shapes.values())):
        several = tuple(tuple(shape[1:]) for shape in shapes.values())
        return ModelInputs(several, tuple(shapes), keyed=True)
    if _is_shape(shapes):
        return ModelInputs((tuple(shapes[1:]),))
    if isinstance(shapes, list | tuple) and shapes and all(map(_is_shape, shapes)):
        several = tuple(tuple(shape[1:]) for shape in shapes)
        return ModelInputs(several, tuple(map(str, range(len(shapes)))))
    return ModelInputs()


def _free(inputs: ModelInputs) -> ModelInputs:
    """Leaves lengths of several inputs open: a model that was built with some may take others."""
    if not inputs.names:
        return inputs
    shapes = tuple(shape if len(shape) == 1 else (None,) * len(shape) for shape in inputs.shapes)
    return replace(inputs, shapes=shapes)


def _is_shape(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) > 0
        and all(length is None or isinstance(length, int) for length in value)
    )
