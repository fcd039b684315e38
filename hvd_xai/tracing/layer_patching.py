"""Replaces methods of a model's layers for a while.

The replacement is set on each instance and taken back at the end of the context, whatever happens.
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
    """Replaces an attribute of each layer by `make(layer, value)` while the context lasts.

    The values of before are put back at the end, whatever happens.

    Args:
        layers: layers that have the attribute, on the instance or on the class.
        name: name of the attribute.
        make: function that gets a layer and its value and returns the replacement.
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
    """Replaces each method that is a tf.function by its Python body while the context lasts.

    This holds for the model and all of its layers, and above all for `call`. A tf.function is a
    single operation that may have been traced long ago: layers and operations inside it are out of
    reach, and a replacement that is in place while it is traced would stay in it.

    Args:
        model: model to run within the context.
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
