"""Finds out where a model has the channels of its inputs.

Inputs alone do not tell: `[3, 32, 32]` may be an image of three channels, or three rows of 32
places with 32 channels. The model tells by what it does with them.
"""

import functools
import weakref
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from hvd_xai.errors import advise
from hvd_xai.protocols import Channels
from hvd_xai.tracing.layer_patching import replaced, unwrapped

# Layers that work on the last axis whatever `keras.config.image_data_format()` says.
_ON_LAST_AXIS = (
    keras.layers.RNN,
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.MultiHeadAttention,
    keras.layers.GroupQueryAttention,
    keras.layers.Attention,
    keras.layers.AdditiveAttention,
)
# Operations that make other axes of the ones that they are given.
_MIXING = {"BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum", "Reshape"}

# Axes of a tensor: for each the axis of the inputs that it is, None for one that is new.
_Axes = tuple[int | None, ...]

# What was found, for each shape of an input, as long as there is the model.
_found: "weakref.WeakKeyDictionary[keras.Model, dict[tuple[int, ...], Channels | None]]" = (
    weakref.WeakKeyDictionary()
)


def find_channels(
    model: keras.Model, shape: tuple[int, ...], dtype: str = "float32"
) -> Channels | None:
    """Returns where a model has the channels of its inputs; None if it does not tell.

    The model is traced once for each shape. Its first layer that says where channels are decides,
    or else its first layer that works on the last axis, such as an LSTM or a Dense. Moves of axes
    before that layer are followed, whatever makes them.

    Args:
        model: any built Keras model of one input.
        shape: shape of one input, without the axis of examples.
        dtype: dtype of the inputs that the model is shown.
    """
    if len(shape) < 2:
        return "none"
    of_model = _found.setdefault(model, {})
    if shape not in of_model:
        of_model[shape] = _find(model, shape, dtype)
    return of_model[shape]


def settle_channels(
    model: keras.Model,
    shape: tuple[int, ...],
    channels: Channels | None,
    *,
    asker: str,
    setting: str = "channels",
) -> Channels:
    """Returns where inputs have their channels, as the caller says or else as the model does.

    The rows of a table have none: each value is a place.

    Args:
        model: any built Keras model of one input.
        shape: shape of one input, without the axis of examples.
        channels: what the caller says; None to ask the model.
        asker: name of the method or baseline that asks, for the error.
        setting: name of the option that the caller would say it with, on the command line.

    Raises:
        ValueError: if the model does not tell and the caller does not say, or there is no such
            word.
    """
    if len(shape) < 2:
        return "none"
    settled = find_channels(model, shape) if channels is None else channels
    if settled is None:
        raise ValueError(
            f"`{asker}` needs to know which axis of the inputs {(None, *shape)} has their channels,"
            f" and model '{model.name}' does not tell: no layer that says so works on an axis of"
            " the inputs. "
            + advise(
                script="Pass channels='last', 'first', or 'none' if every axis has places.",
                command=f"Give --set {setting}= last, first, or none if every axis has places.",
            )
        )
    check_channels(settled)
    return settled


def check_channels(channels: str) -> None:
    """Raises `ValueError` unless the word is one that says where channels are."""
    if channels not in ("last", "first", "none"):
        raise ValueError(f"channels is 'last', 'first' or 'none'; got {channels!r}")


def channel_axis(channels: Channels, rank: int) -> int | None:
    """Returns the axis of channels of a tensor `[n, ...]`; None if it has none."""
    return {"last": rank - 1, "first": 1, "none": None}[channels]


def place_axes(channels: Channels, rank: int) -> list[int]:
    """Returns the axes of a tensor `[n, ...]` along which it has places."""
    return [axis for axis in range(1, rank) if axis != channel_axis(channels, rank)]


def _find(model: keras.Model, shape: tuple[int, ...], dtype: str) -> Channels | None:
    formats: dict[Any, int] = {}
    others: dict[Any, int] = {}

    def intercepted(of: keras.Layer, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def call_and_note(*args: Any, **kwargs: Any) -> Any:
            given = next((arg for arg in (*args, *kwargs.values()) if tf.is_tensor(arg)), None)
            if given is not None and given.shape.rank is not None and given.shape.rank > 2:
                _note(of, given, formats, others)
            return call(*args, **kwargs)

        return call_and_note

    def run(x: tf.Tensor) -> Any:
        with (
            unwrapped(model),
            replaced(model._flatten_layers(include_self=False), "call", intercepted),
        ):
            return model(x, training=False)

    traced = tf.function(run, autograph=False).get_concrete_function(
        tf.TensorSpec([1, *shape], dtype)
    )
    axes = _follow(traced.graph, len(shape) + 1)
    for said in (formats, others):
        # The first that is known: what follows it may have made other axes.
        for tensor in axes:
            if tensor in said:
                of_inputs = axes[tensor][said[tensor]]
                words: dict[int | None, Channels] = {None: "none", 1: "first", len(shape): "last"}
                return words.get(of_inputs)
    return None


def _note(
    layer: keras.Layer, given: tf.Tensor, formats: dict[Any, int], others: dict[Any, int]
) -> None:
    """Notes which axis of what a layer is given has channels, if the layer says so.

    What a layer says of its format goes before the axis that others work on.
    """
    rank = given.shape.rank
    if isinstance(layer, keras.layers.TimeDistributed):
        # [n, t, ...] is shown to the inner layer as [n, ...], one step after another.
        layer, rank, shift = layer.layer, rank - 1, 1
    else:
        shift = 0
    cell = getattr(layer, "cell", None)
    data_format = getattr(layer, "data_format", None) or getattr(cell, "data_format", None)
    # The steps of a recurrent layer with places stand before the channels: [n, t, c, h, w].
    first = 1 if getattr(cell, "data_format", None) is None else 2
    axis = shift + (first if data_format == "channels_first" else rank - 1)
    if isinstance(layer, keras.layers.Flatten):
        # Its format is Keras's own until somebody sets it, and pictures without channels are
        # flattened as well: it does not count for them.
        if rank > 3:
            others[given.ref()] = axis
    elif data_format is not None:
        formats[given.ref()] = axis
    elif isinstance(layer, _ON_LAST_AXIS):
        others[given.ref()] = axis
    elif isinstance(layer, keras.layers.BatchNormalization):
        others[given.ref()] = shift + layer.axis % rank


def _follow(graph: tf.Graph, rank: int) -> dict[Any, _Axes]:
    """Returns the axes of all tensors that still are axes of the inputs, in order of execution."""
    axes: dict[Any, _Axes] = {graph.inputs[0].ref(): tuple(range(rank))}
    for operation in graph.get_operations():
        known = [axes[tensor.ref()] for tensor in operation.inputs if tensor.ref() in axes]
        # Of several inputs the one with the most axes is what the others are spread over.
        moved = _moved(operation, max(known, key=len)) if known else None
        for output in operation.outputs:
            if moved is not None and output.shape.rank == len(moved):
                axes[output.ref()] = moved
    return axes


def _moved(operation: tf.Operation, axes: _Axes) -> _Axes | None:
    """Returns the axes of an operation's result; None if they are not known."""
    if operation.type == "Transpose":
        order = tf.get_static_value(operation.inputs[1])
        return None if order is None else tuple(axes[axis] for axis in order)
    if operation.type == "ExpandDims":
        at = tf.get_static_value(operation.inputs[1])
        at = None if at is None else int(at) % (len(axes) + 1)
        return None if at is None else (*axes[:at], None, *axes[at:])
    if operation.type == "Squeeze":
        shape, gone = operation.inputs[0].shape, operation.get_attr("squeeze_dims")
        left_out = {axis % len(axes) for axis in gone} or {
            axis for axis, length in enumerate(shape) if length == 1
        }
        return tuple(one for axis, one in enumerate(axes) if axis not in left_out)
    before, after = operation.inputs[0].shape, operation.outputs[0].shape
    # x[..., None] is a slice
    if operation.type == "Reshape" or (
        operation.type == "StridedSlice" and after.rank != before.rank
    ):
        return _reshaped(before, after, axes)
    return None if operation.type in _MIXING else axes


def _reshaped(before: tf.TensorShape, after: tf.TensorShape, axes: _Axes) -> _Axes | None:
    """Follows a reshape that leaves the axes, or puts or takes a last one of length 1."""
    if after.rank is None or not before.is_fully_defined():
        return None
    # The axis of examples may be left open.
    old, new = before.as_list()[1:], after.as_list()[1:]
    if new == old:
        return axes
    if new == [*old, 1]:
        return (*axes, None)
    return axes[:-1] if old == [*new, 1] else None
