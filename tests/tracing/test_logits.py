"""Logits are found in the graph, whatever wrote the activation behind them."""

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.tracing.logits import ends_in_sigmoid, find_logits

LOGITS = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]], np.float32)


def trace(
    end: Callable[[tf.Tensor], tf.Tensor], found: Callable[[tf.Tensor], tf.Tensor]
) -> np.ndarray:
    """Returns `found` of what `end` makes of logits, both in one graph."""

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]  # TensorFlow ships no types
    def run(logits: tf.Tensor) -> tf.Tensor:
        # a linear operation, as a model's last layer
        return found(end(tf.matmul(logits, tf.eye(3))))

    values: np.ndarray = run(tf.constant(LOGITS)).numpy()
    return values


@pytest.mark.parametrize(
    ("end", "activation"),
    [
        (tf.nn.softmax, "softmax"),
        (tf.nn.log_softmax, "softmax"),
        (keras.ops.sigmoid, "sigmoid"),
        (lambda logits: tf.cast(tf.nn.softmax(logits), tf.float16), "softmax"),
        (lambda logits: logits + tf.constant(0.0), None),
    ],
    ids=["softmax", "log_softmax", "sigmoid", "cast", "none"],
)
def test_finds_logits_and_activation(
    end: Callable[[tf.Tensor], tf.Tensor], activation: str | None
) -> None:
    def found(outputs: tf.Tensor) -> tf.Tensor:
        logits, got = find_logits(outputs)
        assert got == activation
        assert ends_in_sigmoid(outputs) == (activation == "sigmoid")
        return logits

    np.testing.assert_array_equal(trace(end, found), LOGITS)


def test_what_bends_values_by_hand_is_refused() -> None:
    def by_hand(logits: tf.Tensor) -> tf.Tensor:
        return tf.exp(logits)

    with pytest.raises(ValueError, match="ends in 'Exp', which is no softmax or sigmoid"):
        trace(by_hand, lambda outputs: find_logits(outputs)[0])


def test_without_a_graph_there_are_none() -> None:
    with pytest.raises(ValueError, match=r"run this by `Compute`, or in a tf\.function"):
        find_logits(tf.constant(LOGITS))
