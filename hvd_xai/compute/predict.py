"""Predictions and scores of any number of examples."""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float32, Shaped

from hvd_xai import scores
from hvd_xai.compute.checks import ClassIds, check_inputs, head_of
from hvd_xai.protocols import Score
from hvd_xai.tracing import micro_batches
from hvd_xai.tracing.compiled import EXAMPLES_AT_ONCE, Compiled
from hvd_xai.tracing.logits import ends_in_sigmoid


class Predicted(NamedTuple):
    """What the model returned for many examples.

    Attributes:
        predictions: the most likely class, int32, where targets are class ids of several outputs
            (over all places on average, of a segmentation), or of one output that is a probability
            (`Predict`); the one output where it is another, and otherwise the score, float32.
        scores: the score that is explained.
    """

    predictions: Shaped[np.ndarray, "n"]
    scores: Float32[np.ndarray, "n"]


class Predict:
    """Computes a model's predictions and scores for any number of examples, compiled and cut up as
    `Compute` does.

    Args:
        model: any built Keras model of one input.
        score: the score that is explained: a name of `hvd_xai.scores`, or a function of outputs and
            targets.
        micro_batch: the most examples that go through the model at once; more than 64 make no
            difference.
        is_binary: whether all targets are 0 or 1, class ids. One output that comes from a sigmoid
            is then the probability of class 1; of any other nobody knows from where on it means
            class 1.

    Attributes:
        micro_batch: examples that go through the model at once; they are best handed over in
            multiples of it.
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
        self._class_ids = ClassIds(model, score)
        self.micro_batch = min(micro_batch, EXAMPLES_AT_ONCE)
        self._compiled = Compiled(self._predict, self.micro_batch)

    @property
    def n_traces(self) -> int:
        """How often the model was traced so far: once for each shape and dtype of an example."""
        return self._compiled.n_traces

    def check(
        self,
        inputs: Shaped[np.ndarray, "n ..."],
        targets: Shaped[np.ndarray, "n"],
        ids: Shaped[np.ndarray, "n"] | None = None,
    ) -> np.dtype:
        """Compiles, and returns the dtype of the predictions.

        Works with no examples, too; `ids` are to name a sample by.

        Raises:
            ValueError: if inputs and model, or targets and outputs, do not fit.
        """
        check_inputs(self._model, inputs, targets)
        predictions, _ = self._compiled.trace(inputs, targets).structured_outputs
        self._class_ids.check(inputs, targets, ids)
        dtype: np.dtype = np.dtype(predictions.dtype.as_numpy_dtype)
        return dtype

    def __call__(
        self, inputs: Shaped[np.ndarray, "n ..."], targets: Shaped[np.ndarray, "n"]
    ) -> Predicted:
        """Computes predictions and scores of `inputs` `[n, ...]` for `targets` `[n]`, in their
        order; n may be 0.

        Raises:
            ValueError: as `check`.
        """
        check_inputs(self._model, inputs, targets)
        self._class_ids.check(inputs, targets, None)
        predictions, values = self._compiled(inputs, targets, np.zeros(len(targets), np.int64))
        return Predicted(predictions, values)

    def _predict(
        self, inputs: tf.Tensor, targets: tf.Tensor, _: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        def predict(x: tf.Tensor, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            predictions: list[tf.Tensor] = []

            def keep_prediction(outputs: scores.Outputs, targets: tf.Tensor) -> tf.Tensor:
                values = self._score(outputs, targets)
                predictions.append(
                    _prediction(outputs, targets, self._score, values, is_binary=self._is_binary)
                )
                return values

            values = scores.evaluate(self._model, x, target, keep_prediction)
            return predictions[0], values

        predicted: tuple[tf.Tensor, tf.Tensor] = micro_batches.map_rows(
            predict, (inputs, targets), self.micro_batch
        )
        return predicted


def _prediction(
    outputs: scores.Outputs, targets: tf.Tensor, score: Score, values: tf.Tensor, *, is_binary: bool
) -> tf.Tensor:
    """Returns what `Predicted` says of each example."""
    head = head_of(score)
    if isinstance(outputs, tf.Tensor) or head is not None:
        one = tf.cast(scores.one_head(outputs, head), tf.float32)
        if one.shape.rank == 1 or one.shape[1:] == [1]:
            is_probability = is_binary and ends_in_sigmoid(one)
            return (
                tf.cast(tf.reshape(one, [-1]) > 0.5, tf.int32)
                if is_probability
                else tf.reshape(one, [-1])
            )
        if targets.dtype.is_integer and one.shape.rank >= 2 and one.shape[-1] > 1:
            return tf.argmax(
                tf.reduce_mean(one, axis=list(range(1, one.shape.rank - 1))),
                axis=1,
                output_type=tf.int32,
            )
    return tf.cast(values, tf.float32)
