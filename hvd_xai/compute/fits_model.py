"""Checks that inputs and targets of examples fit a model."""

import inspect

import keras
import numpy as np
import tensorflow as tf

from hvd_xai import scores
from hvd_xai.protocols import Channels, Score
from hvd_xai.tracing.compiled import ExampleSignature, read_signature


class TargetCheck:
    """Checks that targets are class ids of the model, where the score says that they are class ids.

    Args:
        model: a built model.
        score: score that is explained; None for a method without one, whose targets go unchecked.
    """

    def __init__(self, model: keras.Model, score: str | Score | None) -> None:
        self._model = model
        self._score = score
        # Counting outputs traces the model, so it is done once for each signature.
        self._n_outputs: dict[ExampleSignature, int | None] = {}

    def check(self, inputs: np.ndarray, targets: np.ndarray, ids: np.ndarray | None) -> None:
        """Raises `ValueError` that names the first sample whose target is no class of the model.

        Args:
            inputs: inputs `[n, ...]`, of which only shape and dtype matter.
            targets: targets `[n]`, all of which are checked.
            ids: sample ids `[n]` for messages; numbers of rows if None.
        """
        if self._score is None or not scores.takes_class_ids(self._score):
            return
        signature = read_signature(inputs, targets)
        if signature not in self._n_outputs:
            self._n_outputs[signature] = _count_outputs(
                self._model, inputs, scores.resolve(self._score)
            )
        n_outputs = self._n_outputs[signature]
        # A model of one output has no classes to choose from: its targets are values, or 0 and 1.
        if n_outputs is None or n_outputs == 1 or len(targets) == 0:
            return
        if not np.issubdtype(targets.dtype, np.integer):
            raise ValueError(
                f"the model has {n_outputs} outputs, so targets must be integer class ids; got"
                f" dtype {targets.dtype}. Pass targets.astype('int64') of whole numbers."
            )
        bad = (targets < 0) | (targets >= n_outputs)
        if bad.any():
            first = int(np.argmax(bad))
            raise ValueError(
                f"the model has {n_outputs} outputs, so targets must be class ids 0 to"
                f" {n_outputs - 1}; {int(bad.sum())} of {len(targets)} are not, the first being"
                f" {targets[first]} of sample {first if ids is None else ids[first]}. Correct the"
                " targets, or pass score= a function that reads them otherwise."
            )


def find_head(score: Score) -> str | int | None:
    """Returns which of the model's arrays a score selects from; None if it does not say."""
    option = inspect.signature(score).parameters.get("head")
    head: str | int | None = None if option is None else option.default
    return head


def find_classes(score: Score) -> Channels:
    """Returns where the classes are in the array that a score selects from, as the score says."""
    option = inspect.signature(score).parameters.get("channels")
    return "first" if option is not None and option.default == "first" else "last"


def _count_outputs(model: keras.Model, inputs: np.ndarray, score: Score) -> int | None:
    """Returns the number of classes in the array that a score selects from; None without one."""
    dtype, _ = read_signature(inputs, inputs)[1:]
    traced = tf.function(lambda x: model(x, training=False), autograph=False).get_concrete_function(
        tf.TensorSpec([1, *inputs.shape[1:]], dtype)
    )
    outputs = traced.structured_outputs
    head = find_head(score)
    if head is None and not scores.is_one_array(outputs):
        return None
    array = scores.one_head(outputs, head)
    axis = 1 if find_classes(score) == "first" and array.shape.rank > 2 else -1
    n_outputs: int | None = array.shape[axis] if array.shape.rank >= 2 else 1
    return n_outputs


def check_inputs(model: keras.Model, inputs: np.ndarray, targets: np.ndarray) -> None:
    """Raises `ValueError` if inputs and targets do not fit each other, or inputs not the model."""
    if not model.built:
        raise ValueError(
            f"model '{model.name}' has no weights yet; build it, or call it once, before it is"
            " explained"
        )
    if targets.shape != (len(inputs),):
        raise ValueError(
            f"each of the {len(inputs)} examples needs one target; got targets of shape"
            f" {targets.shape}. Pass targets.argmax(axis=1) of one-hot rows, targets.ravel() of a"
            " column."
        )
    for name, values in (("inputs", inputs), ("targets", targets)):
        if values.dtype.kind not in "fiub":
            raise ValueError(f"{name} must be numbers; got dtype {values.dtype}")
    # Only functional and Sequential models know their inputs; others complain when they are traced.
    expected = getattr(model, "inputs", None)
    if expected is None:
        return
    if len(expected) != 1:
        raise ValueError(
            f"model '{model.name}' has {len(expected)} inputs, and the probe's are one array; make"
            " the probe with Probe.of_several, of an array for each input"
        )
    shape = tuple(expected[0].shape)
    if len(shape) != inputs.ndim or any(
        want not in {None, got} for want, got in zip(shape[1:], inputs.shape[1:], strict=True)
    ):
        raise ValueError(
            f"model '{model.name}' takes inputs of shape {shape}; got {(None, *inputs.shape[1:])}."
            " Reshape the inputs."
        )
