"""Grad-CAM++ against its equation in NumPy."""

from functools import partial
from typing import Any

import keras
import numpy as np

from hvd_xai.attributions.grad_cam_plus_plus import grad_cam_plus_plus
from hvd_xai.compute.attribute import Compute

ROUNDING = 1e-6  # float32 sums of some ten terms, in another order


def explain(
    model: keras.Model, inputs: np.ndarray, targets: np.ndarray, **options: Any
) -> np.ndarray:
    return Compute(model, partial(grad_cam_plus_plus, **options))(
        inputs, targets, np.arange(len(inputs))
    ).attributions


def assert_close(got: np.ndarray, want: np.ndarray) -> None:
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= ROUNDING * np.abs(want).max()


def linear(weights: np.ndarray) -> keras.Model:
    """Returns a layer that returns its inputs, under a head of gradients `weights` `[h, w, c]`."""
    inputs = keras.Input(weights.shape)
    features = keras.layers.Activation("linear", name="features")(inputs)
    head = keras.layers.Dense(1, use_bias=False)
    model = keras.Model(inputs, head(keras.layers.Flatten()(features)))
    head.set_weights([weights.reshape(-1, 1)])
    return model


def by_equation(activations: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Computes equation 19 of Chattopadhay et al., with all its powers, in float64."""
    a, g = activations.astype(np.float64), gradient.astype(np.float64)
    alpha = g**2 / (2 * g**2 + g**3 * a.sum(axis=(0, 1)))
    weights = (alpha * np.maximum(g, 0)).sum(axis=(0, 1))
    maps: np.ndarray = np.maximum(a @ weights, 0)
    return maps


def test_equals_the_equation() -> None:
    generator = np.random.default_rng(0)
    weights = generator.normal(size=(3, 4, 2)).astype(np.float32)
    inputs = generator.uniform(0, 2, (5, 3, 4, 2)).astype(np.float32)
    want = np.stack([by_equation(x, weights) for x in inputs])
    assert want.max() > 0
    assert_close(explain(linear(weights), inputs, np.zeros(5, np.int64), layer="features"), want)


def test_small_gradients_and_large_scores_stay_in_range() -> None:
    # The third power of 1e-15 is no float32, and neither is exp(100).
    x = np.ones((1, 2, 2, 1), np.float32)
    small = explain(
        linear(np.full((2, 2, 1), 1e-15, np.float32)), x, np.zeros(1, np.int64), layer="features"
    )
    large = explain(
        linear(np.full((2, 2, 1), 25.0, np.float32)), x, np.zeros(1, np.int64), layer="features"
    )
    np.testing.assert_allclose(small, np.full((1, 2, 2), 4 * 1e-15 / 2), rtol=ROUNDING)
    np.testing.assert_allclose(large, np.full((1, 2, 2), 4 * 25 / (2 + 25 * 4)), rtol=ROUNDING)


def test_without_a_positive_gradient_a_map_is_zero() -> None:
    weights = np.array([[[-1.0], [0.0]]], np.float32)
    maps = explain(
        linear(weights), np.ones((1, 1, 2, 1), np.float32), np.zeros(1, np.int64), layer="features"
    )
    np.testing.assert_array_equal(maps, np.zeros((1, 1, 2)))
