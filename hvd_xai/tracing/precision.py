"""Runs a model in another precision than its own, for as long as it takes to trace it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

import keras

Precision: TypeAlias = Literal["bfloat16"]


def check(precision: str | None) -> None:
    """Raises `ValueError` unless a model can be made to compute so."""
    if precision not in {None, "bfloat16"}:
        raise ValueError(
            f"precision must be 'bfloat16', or None for the model's own; got {precision!r}"
        )


@contextmanager
def computing_in(model: keras.Model, precision: Precision | None) -> Iterator[None]:
    """Makes all layers that compute in float32 compute in `precision`, for as long as the context
    lasts.

    Each such layer has Keras's mixed policy meanwhile: its inputs are cast, and its weights as they
    are read. The weights themselves stay float32, and what is traced here reads the values that
    they have when it runs. Layers of another precision, and those that do not let Keras cast for
    them, keep theirs. The policies are put back afterwards, whatever happens.

    Args:
        model: the model to trace within the context.
        precision: what to compute in; None changes nothing.
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
