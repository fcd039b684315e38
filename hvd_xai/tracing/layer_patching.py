"""Puts others in place of the methods of a model's layers for a while, on the instances, and takes
them back, whatever happens.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
import tensorflow as tf


@contextmanager
def replaced(
    layers: Iterable[keras.Layer], name: str, make: Callable[[keras.Layer, Any], Any]
) -> Iterator[None]:
    """Puts `make(layer, value)` in place of an attribute's value on each of the layers, and takes
    it back at the end, whatever happens.

    Args:
        layers: layers that have the attribute, themselves or by their class.
        name: name of the attribute.
        make: gets a layer and its value; returns the one to use meanwhile.
    """
    # Past Keras's __setattr__, which would track what it is given.
    own = [(of, name in vars(of), vars(of).get(name)) for of in layers]
    try:
        for of, _, _ in own:
            vars(of)[name] = make(of, getattr(of, name))
        yield
    finally:
        for of, is_own, value in own:
            if is_own:
                vars(of)[name] = value
            else:
                vars(of).pop(name, None)


@contextmanager
def unwrapped(model: keras.Model) -> Iterator[None]:
    """Puts its body in place of each method, `call` above all, of the model or a layer that is a
    tf.function, while the context lasts.

    A tf.function is a single operation, perhaps traced long ago, in which layers and operations are
    out of reach; and what is put in their place while it is traced would stay in it.

    Args:
        model: the model to run within the context.
    """
    kind = tf.types.experimental.PolymorphicFunction

    def body(of: keras.Layer, call: Any) -> Any:
        del of
        function = call.python_function

        def run(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        # with it all that it calls, as where a tf.function is traced
        return tf.autograph.to_graph(run)

    found = list(model._flatten_layers())
    bases = {base for of in found for base in type(of).__mro__}
    names = {
        "call",
        *(name for base in bases for name, value in vars(base).items() if isinstance(value, kind)),
    }
    with ExitStack() as stack:
        for name in names:
            having = [of for of in found if isinstance(getattr(of, name, None), kind)]
            stack.enter_context(replaced(having, name, body))
        yield
