"""Guided backpropagation by hand, wherever a model has its rectifiers."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.attributions.guided_backprop import guided_backprop
from hvd_xai.compute.attribute import Compute
from tests import models_under_test as models

# The same float32 kernels in another order.
ROUNDING = 1e-6

# Two layers of two rectifiers: at (1, 1) their inputs are 3, -1 and 1, 5, as h = (3, 0) makes them
# with biases -2 and -1.
FIRST = np.array([[1.0, -2.0], [2.0, 1.0]], np.float32)
SECOND = np.array([[1.0, 2.0], [4.0, 8.0]], np.float32), np.array([-2.0, -1.0], np.float32)
LAST = np.array([[-1.0], [0.5]], np.float32)
INPUTS = np.ones((1, 2), np.float32)


def explain(model: keras.Model, inputs: np.ndarray) -> np.ndarray:
    return Compute(model, guided_backprop)(
        inputs, np.zeros(len(inputs), np.int64), np.arange(len(inputs))
    ).attributions


def two_layers(relu: Callable[[Any], Any]) -> keras.Model:
    """Returns the net above, with its rectifiers written in the given way."""
    inputs = keras.Input((2,))
    hidden = relu(keras.layers.Dense(2, use_bias=False)(inputs))
    model = keras.Model(
        inputs, keras.layers.Dense(1, use_bias=False)(relu(keras.layers.Dense(2)(hidden)))
    )
    model.set_weights([FIRST, *SECOND, LAST])
    return model


class InPython(keras.Model):  # type: ignore[misc]  # keras ships no types
    """The net above, whose rectifiers are called in plain Python."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (
            keras.layers.Dense(2, use_bias=False, activation=keras.ops.relu),
            keras.layers.Dense(2),
        )
        self.last = keras.layers.Dense(1, use_bias=False)

    def call(self, inputs: object) -> object:
        return self.last(keras.ops.relu(self.second(self.first(inputs))))


def in_python() -> keras.Model:
    model = InPython()
    model(INPUTS)
    model.set_weights([FIRST, *SECOND, LAST])
    return model


def nested() -> keras.Model:
    return keras.Sequential(
        [keras.Input((2,)), keras.Sequential([two_layers(keras.layers.ReLU())])]
    )


WRITTEN: dict[str, Callable[[], keras.Model]] = {
    "layer": lambda: two_layers(keras.layers.ReLU()),
    "activation": lambda: two_layers(keras.layers.Activation("relu")),
    "operation": lambda: two_layers(keras.ops.relu),
    "lambda": lambda: two_layers(keras.layers.Lambda(tf.nn.relu)),
    "python": in_python,
    "nested": nested,
}


@pytest.mark.parametrize("written", WRITTEN)
def test_two_layers_by_hand(written: str) -> None:
    # From above: (-1, 0.5) is cut to (0, 0.5). Through the second layer: 0.5 * (2, 8) = (1, 4), and
    # the unit that is off takes the 4. So (1, 0) comes through the first: (1, 2). The plain
    # gradient is (-1 + 0.5 * 2) * (1, 2) = 0.
    np.testing.assert_allclose(explain(WRITTEN[written](), INPUTS), [[1.0, 2.0]], rtol=ROUNDING)


def test_is_the_gradient_where_nothing_negative_comes_back() -> None:
    keras.utils.set_random_seed(1)
    positive = keras.initializers.RandomUniform(0.1, 1.0)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(
                5,
                "relu",
                kernel_initializer=positive,
                bias_initializer=keras.initializers.RandomNormal(stddev=1.0),
            ),
            keras.layers.Dense(1, kernel_initializer=positive),
        ]
    )
    inputs = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
    with tf.GradientTape() as tape:
        points = tf.constant(inputs)
        tape.watch(points)
        score = tf.reduce_sum(model(points))
    np.testing.assert_allclose(explain(model, inputs), tape.gradient(score, points), rtol=ROUNDING)


def test_relu6_passes_nothing_on_above_six_and_leaky_relu_is_left_alone() -> None:
    def identity(activation: keras.layers.Layer) -> keras.Model:
        return keras.Sequential(
            [
                keras.Input((3,)),
                activation,
                keras.layers.ReLU(),
                keras.layers.Dense(1, kernel_initializer="ones"),
            ]
        )

    inputs = np.array([[-1.0, 3.0, 7.0]], np.float32)
    np.testing.assert_array_equal(
        explain(identity(keras.layers.ReLU(max_value=6)), inputs), [[0.0, 1.0, 0.0]]
    )
    np.testing.assert_array_equal(
        explain(identity(keras.layers.LeakyReLU(0.5)), -inputs), [[1.0, 0.0, 0.0]]
    )


def test_works_without_compute() -> None:
    got = guided_backprop(
        two_layers(keras.layers.ReLU()),
        tf.constant(INPUTS),
        tf.constant([0]),
        ids=tf.constant([0], tf.int64),
    )
    np.testing.assert_allclose(got.attributions, [[1.0, 2.0]], rtol=ROUNDING)


def test_a_model_without_rectifiers_is_refused() -> None:
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(2, "gelu"), keras.layers.Dense(1)], name="smooth"
    )
    with pytest.raises(
        ValueError, match="there is none between the inputs of model 'smooth' and the score"
    ):
        explain(model, np.ones((1, 3), np.float32))


def test_a_rectifier_in_a_loop_is_refused_by_its_layer() -> None:
    model = keras.Sequential(
        [
            keras.Input((5, 3)),
            keras.layers.SimpleRNN(2, activation="relu", name="rnn"),
            keras.layers.Dense(1),
        ]
    )
    with pytest.raises(
        ValueError, match=r"cannot reach one in the loop, branch or tf.function at '.*/rnn'"
    ):
        explain(model, np.ones((1, 5, 3), np.float32))


def test_a_loop_without_rectifiers_is_passed_through() -> None:
    keras.utils.set_random_seed(2)
    model = keras.Sequential(
        [
            keras.Input((5, 3)),
            keras.layers.LSTM(2),
            keras.layers.Dense(4, "relu"),
            keras.layers.Dense(1),
        ]
    )
    assert (
        np.abs(
            explain(model, np.random.default_rng(2).normal(size=(4, 5, 3)).astype(np.float32))
        ).max()
        > 0
    )


def test_tokens_have_no_gradient() -> None:
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            keras.layers.Embedding(5, 2),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    with pytest.raises(ValueError, match="`guided_backprop` replaces the gradient of rectifiers"):
        explain(model, np.ones((1, 4), np.int32))


def test_mixed_precision_gives_float32_near_full_precision() -> None:
    def build(dtype: str) -> keras.Model:
        keras.utils.set_random_seed(7)
        conv = keras.layers.Conv2D(8, 3, activation="relu", dtype=dtype)
        return keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                conv,
                keras.layers.Flatten(),
                keras.layers.Dense(3, dtype=dtype),
            ]
        )

    inputs = models.examples(6)[0]
    full, mixed = explain(build("float32"), inputs), explain(build("mixed_bfloat16"), inputs)
    assert mixed.dtype == np.float32
    # bfloat16 has 8 bits: 0.4 % an operation, and a rectifier near 0 may turn.
    assert np.linalg.norm(mixed - full) / np.linalg.norm(full) < 0.1
