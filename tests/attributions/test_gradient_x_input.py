"""Closed forms of gradient times input."""

import keras
import numpy as np

from hvd_xai.attributions.gradient_x_input import gradient_x_input
from hvd_xai.attributions.integrated_gradients import integrated_gradients
from tests.attributions import functions_under_test as under_test

ROUNDING = 1e-6


def test_closed_forms() -> None:
    x = under_test.POINTS
    want: dict[str, np.ndarray] = {
        "linear": x * under_test.WEIGHTS,
        "square": 2 * x**2,
        "cube": 3 * x**3,
        "product": np.stack([x[:, 0] * x[:, 1]] * 2 + [0 * x[:, 0]], axis=1),
        "relu": x,
        "max": x * [[0, 1, 0], [1, 0, 0]],
    }
    got = under_test.explain_functions(gradient_x_input)
    assert {
        name: under_test.relative_error(got[name].attributions, want[name]) < ROUNDING
        for name in want
    } == dict.fromkeys(want, True)


def test_is_integrated_gradients_for_rectifiers_without_biases() -> None:
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Dense(16, "relu", use_bias=False), keras.layers.Dense(1, use_bias=False)]
    model = keras.Sequential([keras.Input((6,)), *layers])
    inputs = np.random.default_rng(3).normal(size=(5, 6)).astype(np.float32)
    attributions = under_test.explain(model, gradient_x_input, inputs).attributions
    assert (
        under_test.relative_error(
            attributions,
            under_test.explain(model, integrated_gradients, inputs, n_steps=3).attributions,
        )
        < ROUNDING
    )
    assert (
        under_test.relative_error(attributions.sum(axis=1), model.predict(inputs, verbose=0)[:, 0])
        < ROUNDING
    )
