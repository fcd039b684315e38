"""A walk back through a graph is backpropagation under TensorFlow's own rules."""

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.primitives import backward
from tests import models_under_test as models


def walked(
    function: Callable[[tf.Tensor], tf.Tensor], inputs: np.ndarray, rule: backward.Rule
) -> np.ndarray:
    def run(points: tf.Tensor) -> tf.Tensor:
        value = function(points)
        return backward.propagate(points, value, backward.between(points, value), rule)

    gradient: np.ndarray = tf.function(run, autograph=False)(tf.constant(inputs)).numpy()
    return gradient


def recurrent(inputs: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(RECURRENT(inputs) ** 2, axis=1)


def many_kinds(x: tf.Tensor) -> tf.Tensor:
    first, second = tf.split(x, 2, axis=1)
    gathered = tf.gather(second, [2, 0, 0], axis=1) * tf.nn.silu(first[:, :3]) + tf.where(
        x[:, :3] > 0, x[:, :3], tf.stop_gradient(x[:, 3:6])
    )
    return tf.reduce_sum(tf.nn.top_k(gathered, 2).values, axis=(1, 2))


RECURRENT = keras.layers.LSTM(3)


@pytest.mark.parametrize("function", [recurrent, many_kinds])
def test_with_tensorflows_rules_it_is_the_gradient(
    function: Callable[[tf.Tensor], tf.Tensor],
) -> None:
    keras.utils.set_random_seed(1)
    inputs = np.random.default_rng(1).normal(size=(4, 6, 3)).astype(np.float32)
    function(inputs)
    with tf.GradientTape() as tape:
        points = tf.constant(inputs)
        tape.watch(points)
        total = tf.reduce_sum(function(points))
    np.testing.assert_allclose(
        walked(function, inputs, backward.derivative), tape.gradient(total, points), atol=1e-6
    )


def test_operations_off_the_path_are_left_out() -> None:
    def run(x: tf.Tensor) -> tf.Tensor:
        tf.exp(x)  # leads nowhere
        value = tf.sin(x) * tf.cast(tf.shape(x)[0], tf.float32) + tf.ones_like(x)
        assert [operation.type for operation in backward.between(x, value)] == [
            "Sin",
            "Mul",
            "AddV2",
        ]
        assert backward.between(x, x) == []
        return value

    tf.function(run, autograph=False).get_concrete_function(tf.TensorSpec([None], tf.float32))


def test_whole_numbers_are_left_out_where_the_model_takes_them_for_constants() -> None:
    def run(x: tf.Tensor) -> tf.Tensor:
        words = tf.gather(x, tf.cast(tf.stop_gradient(x), tf.int32))
        # for what is looked up
        assert [operation.type for operation in backward.between(x, words)] == ["GatherV2"]
        step = tf.cast(tf.cast(x, tf.int32), tf.float32)
        assert [operation.type for operation in backward.between(x, step)] == ["Cast", "Cast"]
        stopped = tf.stop_gradient(x) * 2
        assert [operation.type for operation in backward.between(x, stopped)] == [
            "StopGradient",
            "Mul",
        ]
        return words + step + stopped

    tf.function(run, autograph=False).get_concrete_function(tf.TensorSpec([3], tf.float32))


def test_an_operation_is_placed_by_the_layers_around_it() -> None:
    model = models.functional_in_subclassed()

    def run(x: tf.Tensor) -> tf.Tensor:
        value = model(x)
        places = [backward.place(operation, model) for operation in backward.between(x, value)]
        assert places[0] == "functional_in_subclassed/backbone/conv"
        assert places[-1] == "functional_in_subclassed/head/probabilities"
        return value

    tf.function(run, autograph=False).get_concrete_function(
        tf.TensorSpec([2, *models.INPUT_SHAPE], tf.float32)
    )
