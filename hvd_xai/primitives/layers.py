"""Catches and replaces the outputs of a model's layers, without rebuilding the model.

While a model runs (or is traced), the `call` of each of its layers is replaced on the instance by
one that also keeps the output (or puts another in its place), and put back afterwards, whatever
happens. This reaches every layer of functional, Sequential, subclassed and nested models alike,
where `keras.Model(inputs, [layer.output, model.output])` reaches only those of a functional model's
own graph.
"""

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from hvd_xai.tracing.layer_patching import replaced, unwrapped

_SPATIAL_RANKS = (3, 4, 5)
_N_NAMED = 12


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One call of a layer within a forward pass.

    Attributes:
        layer: layer that was called.
        path: names of the model, the layers around this one, and this one, joined by `/`.
        number: number of this call among the layer's calls, from 0.
        output: tensor that the call returned; None if it returned anything but one tensor, or one
            of a loop that cannot be reached from outside.
        is_new: whether the layer computed its output, and did not pass on another layer's (as
            dropout does in inference, or a nested model).
    """

    layer: keras.Layer
    path: str
    number: int
    output: tf.Tensor | None
    is_new: bool

    @property
    def name(self) -> str:
        """Path and, in brackets, number, by which this call is told from all others."""
        return f"{self.path}[{self.number}]"

    @property
    def shape(self) -> tuple[int | None, ...] | None:
        """Shape of the output, None for the axis of examples."""
        return (
            None
            if self.output is None or self.output.shape.rank == 0
            else (None, *self.output.shape[1:])
        )

    def answers_to(self, name: str) -> bool:
        """Returns whether `name` is the path, or its last parts, with or without the number."""
        return f"/{self.path}".endswith(f"/{name}") or f"/{self.name}".endswith(f"/{name}")


@contextmanager
def tap(
    model: keras.Model, watch: Callable[[tf.Tensor], None] | None = None, layer: str | None = None
) -> Iterator[list[Call]]:
    """Collects the calls of the model's layers while the context lasts, in the order they end.

    Args:
        model: model to run once within the context.
        watch: function that gets each layer's output before anything uses it, such as
            `tf.GradientTape.watch`.
        layer: name or path of the layers to watch, or name of one call; calls of all layers are
            collected all the same.

    Yields:
        A list that fills while the model runs.
    """
    calls: list[Call] = []
    # It keeps the tensors alive, so that no later one gets the id of an earlier.
    seen: dict[int, tf.Tensor] = {}
    n_calls: Counter[int] = Counter()
    around = [model.name]
    graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()

    def intercepted(of: keras.Layer, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def call_and_keep(*args: Any, **kwargs: Any) -> Any:
            # The names of the layers around this call are its path.
            around.append(of.name)
            path = "/".join(around)
            try:
                output = call(*args, **kwargs)
            finally:
                around.pop()
            number = n_calls[id(of)]
            n_calls[id(of)] += 1
            # A tensor of another graph, a loop's or a branch's, cannot be reached from outside of
            # it.
            if not isinstance(output, tf.Tensor) or getattr(output, "graph", None) is not graph:
                calls.append(Call(of, path, number, None, is_new=False))
                return output
            # A layer that passes its input on returns a tensor that was seen before.
            is_new = id(output) not in seen
            if watch is not None and output.dtype.is_floating:
                taken = Call(of, path, number, output, is_new)
                if layer is None or taken.answers_to(layer):
                    output = _own(output)
                    watch(output)
            seen[id(output)] = output
            calls.append(Call(of, path, number, output, is_new))
            return output

        return call_and_keep

    # There is no public way to all layers, however deep.
    with unwrapped(model), replaced(model._flatten_layers(include_self=False), "call", intercepted):
        yield calls


@contextmanager
def put(at: Call, function: Callable[[tf.Tensor], tf.Tensor]) -> Iterator[None]:
    """Replaces the output of one call of a layer while the context lasts.

    The replacement has the same shape and leaves with the dtype and the Keras mask of the layer's
    own output. Other calls of the layer are left alone.

    Args:
        at: call that returned one tensor; the model is to run once within the context, as it ran
            then.
        function: function of the output that returns its replacement.
    """
    # A shared layer is called several times in a pass; only one of these calls is meant.
    numbers = itertools.count()

    def intercepted(of: keras.Layer, call: Callable[..., Any]) -> Callable[..., Any]:
        del of

        @functools.wraps(call)
        def call_and_put(*args: Any, **kwargs: Any) -> Any:
            output = call(*args, **kwargs)
            return (
                _masked_as(output, tf.cast(function(output), output.dtype))
                if next(numbers) == at.number
                else output
            )

        return call_and_put

    with replaced([at.layer], "call", intercepted):
        yield


def leading_to(calls: list[Call], value: tf.Tensor) -> list[Call]:
    """Returns the calls whose outputs a value depends on.

    Of a model of several heads, these are the layers that lead to the head which is explained.
    Outside of a graph nobody remembers what a value was made of: all calls are returned then.

    Args:
        calls: calls that `tap` collected in one forward pass.
        value: tensor that was computed from the outputs of the model in that pass.
    """
    if tf.executing_eagerly():
        return calls
    found, ends = {value.ref()}, [value]
    while ends:
        new = [tensor for tensor in ends.pop().op.inputs if tensor.ref() not in found]
        found.update(tensor.ref() for tensor in new)
        ends += new
    return [call for call in calls if call.output is not None and call.output.ref() in found]


def spatial(
    calls: list[Call],
    layer: str | None,
    asker: str,
    *,
    leading: list[Call] | None = None,
    otherwise: str = "",
) -> Call:
    """Returns the call of the named layer, or the last call whose output has places.

    Such an output has rank 3 (series), 4 (images) or 5 (volumes).

    Args:
        calls: calls that `tap` collected in one forward pass.
        layer: name of a layer, or as much of its path as identifies it, such as `backbone/conv`,
            followed by the number of the call where a layer is called several times, `conv[0]`;
            None for the last call that will do.
        asker: name of the method that asks, for the error.
        leading: those of the calls that lead to the score; others are not looked at by default, nor
            advised in errors. All calls if None.
        otherwise: text that the error adds where no layer has a spatial output.

    Raises:
        ValueError: if there is no such layer, it has no spatial output, the score does not depend
            on it, several layers have the name, or it was called several times and the name does
            not say which call is meant.
    """
    leading = calls if leading is None else leading
    fit = [call for call in calls if call.shape is not None and len(call.shape) in _SPATIAL_RANKS]
    advised = [call for call in fit if call in leading]
    if layer is None:
        fit = advised
        if not any(call.is_new for call in fit):
            given = ", ".join(_shown(leading, calls)) or "no layer at all"
            is_all = len(leading) == sum(call.output is not None for call in calls)
            raise ValueError(
                f"`{asker}` needs a layer with a spatial output, of rank 3 to 5, and"
                f" {'the model' if is_all else 'the part of the model that leads to the score'} has"
                f" none; it has {given}{otherwise}"
            )
        # A layer that hands another's output on, as dropout does in inference, is not the last one.
        last = [call for call in fit if call.is_new][-1]
        return _only(
            [call for call in fit if call.layer is last.layer and call.is_new], calls, asker
        )
    call = _named(calls, layer, asker, fit, "a spatial output, of rank 3 to 5", advised)
    if call not in leading:
        raise ValueError(
            f"`{asker}` needs a layer that the score depends on; it does not depend on layer"
            f" {call.path!r}. {advice(advised, calls)}"
        )
    return call


def single(calls: list[Call], layer: str, asker: str) -> Call:
    """Returns the call of the named layer, whose output is one tensor of floats.

    Args:
        calls: calls that `tap` collected in one forward pass.
        layer: name of a layer, as for `spatial`.
        asker: name of the method that asks, for the error.

    Raises:
        ValueError: if there is no such layer or output, several layers have the name, or it was
            called several times and the name does not say which call is meant.
    """
    fit = [
        call
        for call in calls
        if call.output is not None and call.output.shape.rank and call.output.dtype.is_floating
    ]
    return _named(calls, layer, asker, fit, "one output of floats")


def _named(
    calls: list[Call],
    layer: str,
    asker: str,
    fit: list[Call],
    wanted: str,
    advised: list[Call] | None = None,
) -> Call:
    """Returns the one call of that name, or of the layer of that name, among those that fit.

    The error names those that are advised, which are all that fit if None.
    """
    named = [call for call in calls if layer in {call.path, call.name}] or [
        call for call in calls if call.answers_to(layer)
    ]
    names = advice(fit if advised is None else advised, calls)
    if not named:
        raise ValueError(f"`{asker}` finds no layer {layer!r} among those the model calls. {names}")
    if len({id(call.layer) for call in named}) > 1:
        paths = ", ".join(map(repr, dict.fromkeys(call.path for call in named)))
        raise ValueError(
            f"`{asker}` finds {len(named)} layers named {layer!r}. Pass layer= the path of one of"
            f" them: {paths}."
        )
    fitting = [call for call in named if call in fit]
    if not fitting:
        given = (
            "several tensors, or one of an inner loop"
            if named[0].shape is None
            else str(named[0].shape)
        )
        raise ValueError(
            f"`{asker}` needs a layer with {wanted}; layer {layer!r} gives {given}. {names}"
        )
    return _only(fitting, calls, asker)


def advice(fit: list[Call], calls: list[Call]) -> str:
    """Returns the sentence that advises one of the calls that fit, by name and shape."""
    if not fit:
        return "The model has no layer that would do."
    return f"Pass layer= one of {', '.join(_shown(fit, calls))}."


def _only(of_layer: list[Call], calls: list[Call], asker: str) -> Call:
    """Returns the call of a layer that is called once."""
    if len(of_layer) > 1:
        raise ValueError(
            f"`{asker}` looks at one call of a layer, and the model calls layer"
            f" {of_layer[0].layer.name!r} {len(of_layer)} times. Pass layer= one of"
            f" {', '.join(_shown(of_layer, calls))}."
        )
    return of_layer[0]


def _own(tensor: tf.Tensor) -> tf.Tensor:
    """Returns a copy, Keras mask included, that only what follows the layer uses.

    Otherwise gradients would leak past a layer that passes its input on.
    """
    return _masked_as(tensor, tf.identity(tensor))


def _masked_as(tensor: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Returns `other` with the Keras mask of `tensor`."""
    mask = getattr(tensor, "_keras_mask", None)
    if mask is not None:
        other._keras_mask = mask
    return other


def _shown(calls: list[Call], among: list[Call]) -> list[str]:
    """Returns names and shapes of the last few calls, for an error.

    A name has the path or the number only where they tell calls apart.
    """
    named: dict[str, set[int]] = {}
    n_calls: Counter[int] = Counter()
    for call in among:
        named.setdefault(call.layer.name, set()).add(id(call.layer))
        n_calls[id(call.layer)] += 1

    def name(call: Call) -> str:
        name: str = call.layer.name if len(named[call.layer.name]) == 1 else call.path
        return f"{name}[{call.number}]" if n_calls[id(call.layer)] > 1 else name

    texts = [f"{name(call)!r} {call.shape}" for call in calls]
    more = len(texts) - _N_NAMED
    return ([f"({more} more)"] if more > 0 else []) + texts[-_N_NAMED:]
