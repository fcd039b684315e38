"""Makes a model compute in another precision for as long as it takes to trace it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

import keras

Precision: TypeAlias = Literal["bfloat16"]


def check_precision(precision: str | None) -> Precision | None:
    """Returns the precision, or raises `ValueError` unless `computing_in` knows it."""
    if precision not in {None, "bfloat16"}:
        raise ValueError(
            f"precision must be 'bfloat16', or None for the model's own; got {precision!r}"
        )
    return "bfloat16" if precision == "bfloat16" else None


@contextmanager
def computing_in(model: keras.Model, precision: Precision | None) -> Iterator[None]:
    """Makes all float32 layers of a model compute in `precision` while the context lasts.

    Each such layer has Keras's mixed policy meanwhile: its inputs are cast, and so are its weights
    when they are read. The weights themselves stay float32, and the traced function reads the
    values that they have when it runs. Layers of another precision, and layers that do not let
    Keras cast for them, keep their own. The policies are put back at the end, whatever happens.

    Args:
        model: model to trace within the context.
        precision: precision of the computation; None changes nothing.
    """
    if precision is None:
        yield
        return
    mixed = keras.DTypePolicy(f"mixed_{precision}")
    # Past the public setter, which would quantize, and past Keras's tracking. There is no public
    # way to all layers, however deep.
    own = {
        layer: layer.dtype_policy
        for layer in model._flatten_layers()
        if layer.autocast and layer.compute_dtype == "float32"
    }
    try:
        for layer in own:
            vars(layer)["_dtype_policy"] = mixed
        yield
    finally:
        for layer, policy in own.items():
            vars(layer)["_dtype_policy"] = policy
