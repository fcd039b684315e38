"""Computes predictions and scores of any number of examples."""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float32, Shaped

from hvd_xai import scores
from hvd_xai.compute.fits_model import TargetCheck, check_inputs, find_classes, find_head
from hvd_xai.compute.told_score import tell_score
from hvd_xai.protocols import Score, ScoreFacts
from hvd_xai.tracing import micro_batches
from hvd_xai.tracing.compiled import EXAMPLES_AT_ONCE, Compiled
from hvd_xai.tracing.logits import ends_in_sigmoid


class Predicted(NamedTuple):
    """Predictions and scores of many examples.

    Attributes:
        predictions: most likely class, int32, of a model with several outputs and class ids for
            targets (a segmentation is averaged over all places), or with one output that is a
            probability; value of any other single output, float32; score of any other model.
        scores: scores that are explained.
    """

    predictions: Shaped[np.ndarray, "n"]
    scores: Float32[np.ndarray, "n"]


class Predict:
    """Computes a model's predictions and scores for any number of examples.

    It compiles once and cuts examples into micro-batches of one fixed size, as `Compute` does.

    Args:
        model: any built Keras model of one input.
        score: score that is explained: a name of `hvd_xai.scores`, or a function of outputs and
            targets.
        micro_batch: largest number of examples that go through the model at once; more than 64 make
            no difference.
        is_binary: whether all targets are class ids 0 and 1. A single output that comes from a
            sigmoid is then taken as the probability of class 1.

    Attributes:
        micro_batch: number of examples that go through the model at once; examples are best handed
            over in multiples of it.
        score_facts: unit and class of the score, as far as they are known; known after `check`.

    Example:
        >>> predictions, values = Predict(model)(inputs, targets)
        >>> predictions.dtype, values.shape
        (dtype('int32'), (4,))
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        score: str | Score = "output",
        micro_batch: int = 256,
        is_binary: bool = False,
    ) -> None:
        micro_batches.check_micro_batch(micro_batch)
        self._model = model
        self._score = scores.resolve(score)
        self._is_binary = is_binary
        self.score_facts = ScoreFacts()
        self._targets = TargetCheck(model, score)
        self.micro_batch = min(micro_batch, EXAMPLES_AT_ONCE)
        self._compiled = Compiled(self._predict, self.micro_batch)

    @property
    def n_traces(self) -> int:
        """Number of times that the model was traced: once for each shape and dtype of example."""
        return self._compiled.n_traces

    def check(
        self,
        inputs: Shaped[np.ndarray, "n ..."],
        targets: Shaped[np.ndarray, "n"],
        ids: Shaped[np.ndarray, "n"] | None = None,
    ) -> np.dtype:
        """Compiles the prediction, and finds all errors that show without running the model.

        It works without any examples, too.

        Args:
            inputs: inputs `[n, ...]`, of which only shape and dtype matter.
            targets: targets `[n]`, all of which are checked.
            ids: sample ids `[n]` for messages; numbers of rows if None.

        Returns:
            The dtype of the predictions.

        Raises:
            ValueError: if inputs and model, or targets and outputs, do not fit.
        """
        check_inputs(self._model, inputs, targets)
        predictions, _ = self._compiled.trace(inputs, targets).structured_outputs
        self._targets.check(inputs, targets, ids)
        dtype: np.dtype = np.dtype(predictions.dtype.as_numpy_dtype)
        return dtype

    def __call__(
        self, inputs: Shaped[np.ndarray, "n ..."], targets: Shaped[np.ndarray, "n"]
    ) -> Predicted:
        """Computes predictions and scores, in the order of the inputs.

        Args:
            inputs: inputs of the model, `[n, ...]`; n may be 0.
            targets: class ids or values that the score selects, `[n]`.

        Raises:
            ValueError: if inputs and model, or targets and outputs, do not fit.
        """
        check_inputs(self._model, inputs, targets)
        self._targets.check(inputs, targets, None)
        predictions, values = self._compiled(inputs, targets, np.zeros(len(targets), np.int64))
        return Predicted(predictions, values)

    def _predict(
        self, inputs: tf.Tensor, targets: tf.Tensor, _: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        def predict(x: tf.Tensor, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            # `scores.evaluate` runs the model and returns the score alone; the prediction is read
            # off the same outputs on the way.
            predictions: list[tf.Tensor] = []

            def keep_prediction(outputs: scores.Outputs, targets: tf.Tensor) -> tf.Tensor:
                values = self._score(outputs, targets)
                self.score_facts = tell_score(self._score, outputs, is_binary=self._is_binary)
                predictions.append(
                    _prediction(outputs, targets, self._score, values, is_binary=self._is_binary)
                )
                return values

            values = scores.evaluate(self._model, x, target, keep_prediction)
            return predictions[0], values

        predicted: tuple[tf.Tensor, tf.Tensor] = micro_batches.map_blocks(
            predict, (inputs, targets), self.micro_batch
        )
        return predicted


def _prediction(
    outputs: scores.Outputs, targets: tf.Tensor, score: Score, values: tf.Tensor, *, is_binary: bool
) -> tf.Tensor:
    """Returns each example's prediction, as `Predicted` defines it."""
    head = find_head(score)
    if head is None and not scores.is_one_array(outputs):
        return tf.cast(values, tf.float32)
    array = scores.classes_last(scores.one_head(outputs, head), find_classes(score))
    array = tf.cast(array, tf.float32)
    if array.shape.rank == 1 or array.shape[1:] == [1]:
        value = tf.reshape(array, [-1])
        is_probability = is_binary and ends_in_sigmoid(array)
        return tf.cast(value > 0.5, tf.int32) if is_probability else value
    if targets.dtype.is_integer and array.shape.rank >= 2 and array.shape[-1] > 1:
        # [n, places..., k] -> [n, k]: a segmentation's classes compete on average over its places
        places = list(range(1, array.shape.rank - 1))
        return tf.argmax(tf.reduce_mean(array, axis=places), axis=1, output_type=tf.int32)
    return tf.cast(values, tf.float32)
