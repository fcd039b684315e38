"""Wraps a model of several inputs as a model of packed rows, which every method can explain."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float32

from hvd_xai.probe.packing import Packing


class PackedModel(keras.Model):  # type: ignore[misc]  # keras ships no types
    """A model of packed rows that runs a model of several inputs on what each row holds.

    It has no weights of its own and changes nothing in the model.

    Args:
        model: built model of several inputs.
        packing: where each input lies in a row.

    Attributes:
        is_whole: values of a row that are whole numbers, `[f]`. A path between two tokens leads
            over other tokens, which mean something else: on paths, and under noise, such values
            stay what they are and get no attributions. Methods that replace values explain them.
    """

    def __init__(self, model: keras.Model, packing: Packing) -> None:
        # a name of Keras's own making would count up its numbers
        super().__init__(name=f"{model.name}_of_rows")
        self._model = model
        self._packing = packing
        self.is_whole: Bool[np.ndarray, "f"] = packing.is_whole()
        self.built = model.built

    def call(self, inputs: Float32[tf.Tensor, "n f"], training: bool = False) -> Any:
        """Unpacks the rows and calls the model with them."""
        packing = self._packing
        #     row:   image ... | tokens ... | table ...     cut at the packing's sizes
        arrays = {}
        for name, shape, dtype, part in zip(
            packing.names,
            packing.shapes,
            packing.dtypes,
            tf.split(inputs, packing.sizes, axis=1),
            strict=True,
        ):
            array = tf.reshape(part, [-1, *shape])
            # The gradient is none in any case; said so, `backward.between` asks for no rules of
            # what looks these up.
            arrays[name] = (
                array if dtype == "float32" else tf.cast(tf.round(tf.stop_gradient(array)), dtype)
            )
        return self._model(arrays if packing.keyed else list(arrays.values()), training=training)


def whole_numbers(model: keras.Model) -> Bool[np.ndarray, "f"] | None:
    """Returns which values of a model's inputs are whole numbers; None where none are.

    Only a `PackedModel` knows of such values.
    """
    is_whole: np.ndarray | None = getattr(model, "is_whole", None)
    return None if is_whole is None or not is_whole.any() else is_whole


def accept_packed(model: keras.Model, packing: Packing | None) -> keras.Model:
    """Returns the model, wrapped to accept packed rows if its inputs were packed."""
    return model if packing is None else PackedModel(model, packing)
