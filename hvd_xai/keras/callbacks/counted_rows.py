"""Counts the rows of the last batch that a model was trained or tested on."""

import weakref
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import keras
import tensorflow as tf

Step: TypeAlias = Literal["train_step", "test_step"]

# Not in attributes of the model, which Keras and TensorFlow would save with it.
_COUNTS: "weakref.WeakKeyDictionary[keras.Model, dict[Step, tf.Variable]]" = (
    weakref.WeakKeyDictionary()
)


def count_rows(model: "keras.Model") -> None:
    """Makes the model's steps count the rows of their batch; changes nothing else.

    It works for steps that Keras compiles later. Keras calls `set_model` of callbacks in time.
    """
    if model in _COUNTS:
        return
    counts: dict[Step, tf.Variable] = {}
    for name in ("train_step", "test_step"):
        counts[name] = tf.Variable(0, dtype=tf.int64, trainable=False)
        setattr(model, name, _counting(getattr(model, name), counts[name]))
    _COUNTS[model] = counts


def rows_of_last(model: "keras.Model", step: Step) -> int:
    """Returns the number of rows of the last batch; 0 if it is not known."""
    return int(_COUNTS[model][step]) if model in _COUNTS else 0


def _counting(step: "Callable[[Any], Any]", count: "tf.Variable") -> "Callable[[Any], Any]":
    def counted(data: Any) -> Any:
        count.assign(_n_rows(data))
        return step(data)

    return counted


def _n_rows(data: Any) -> "tf.Tensor":
    """Returns the length of the first axis of a batch's first array; 0 if there is none."""
    first = next((leaf for leaf in keras.tree.flatten(data) if leaf is not None), None)
    if isinstance(first, tf.RaggedTensor):
        return tf.cast(first.nrows(), tf.int64)
    if isinstance(first, tf.SparseTensor):
        return first.dense_shape[0]
    if isinstance(first, tf.Tensor) and first.shape.rank:
        return tf.shape(first, tf.int64)[0]
    return tf.constant(0, tf.int64)
