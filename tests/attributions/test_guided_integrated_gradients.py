"""Closed forms and completeness of guided integrated gradients."""

from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.attributions.gradient_x_input import gradient_x_input
from hvd_xai.attributions.guided_integrated_gradients import guided_integrated_gradients
from hvd_xai.attributions.integrated_gradients import integrated_gradients
from hvd_xai.compute.attribute import Compute
from tests.attributions import functions_under_test as under_test

ROUNDING = 1e-5  # of 50 steps


def first_feature(inputs: tf.Tensor) -> tf.Tensor:
    return inputs[:, :1]


@pytest.mark.parametrize("max_distance", [0.0, 0.02, 1.0])
def test_closed_forms(max_distance: float) -> None:
    # Where features do not interact, any path gives what the straight one gives. Means of ends miss
    # a cube by the square of the step; the first one, half a step from the baseline, misses a
    # square by a quarter of that.
    x, n_steps = under_test.POINTS, 100
    got = under_test.explain_functions(
        guided_integrated_gradients, max_distance=max_distance, n_steps=n_steps
    )
    assert under_test.relative_error(got["linear"].attributions, x * under_test.WEIGHTS) < ROUNDING
    assert under_test.relative_error(got["relu"].attributions, x) < ROUNDING
    longest_step = (
        np.abs(x).sum(axis=1, keepdims=True) / n_steps / np.abs(x).min(axis=1, keepdims=True)
    )
    assert np.all(np.abs(got["square"].attributions - x**2) <= x**2 * longest_step**2)
    assert np.all(np.abs(got["cube"].attributions - x**3) <= np.abs(x**3) * longest_step**2)


def test_a_free_path_goes_where_the_gradient_is_small() -> None:
    # Of x1 x2 the gradients are x2 and x1: from zero towards (1, 2) the second feature moves first,
    # at no gradient; the first moves at 2.
    inputs, product = np.array([[1.0, 2.0]], np.float32), under_test.FUNCTIONS.index("product")
    inputs = np.concatenate([inputs, np.zeros((1, 1), np.float32)], axis=1)
    attributions = under_test.explain(
        under_test.functions(),
        guided_integrated_gradients,
        inputs,
        np.array([product]),
        max_distance=1.0,
        n_steps=300,
    ).attributions
    np.testing.assert_allclose(attributions, [[2.0, 0.0, 0.0]], atol=2 / 300)


def test_at_no_distance_it_is_integrated_gradients() -> None:
    inputs, targets = (values[:8] for values in under_test.digits())
    model = under_test.trained()
    got = under_test.explain(
        model, guided_integrated_gradients, inputs, targets, max_distance=0.0, n_steps=200
    ).attributions
    want = under_test.explain(
        model, integrated_gradients, inputs, targets, n_steps=200
    ).attributions
    # Two rules of 200 nodes, each of which misses a kink by up to a node.
    assert np.linalg.norm(got - want) / np.linalg.norm(want) < 0.01


def test_rectifiers_without_biases_are_exact_though_they_have_no_gradient_at_zero() -> None:
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Dense(16, "relu", use_bias=False), keras.layers.Dense(1, use_bias=False)]
    model = keras.Sequential([keras.Input((6,)), *layers])
    inputs = np.random.default_rng(3).normal(size=(5, 6)).astype(np.float32)
    got = under_test.explain(
        model, guided_integrated_gradients, inputs, max_distance=0.0, n_steps=3
    ).attributions
    assert (
        under_test.relative_error(
            got, under_test.explain(model, gradient_x_input, inputs).attributions
        )
        < ROUNDING
    )


def test_completeness_on_a_trained_network_is_below_one_percent() -> None:
    inputs, targets = (values[:64] for values in under_test.digits())
    computed = under_test.explain(
        under_test.trained(), guided_integrated_gradients, inputs, targets
    )
    assert under_test.gap(computed) < 0.01
    probability = under_test.trained().predict(inputs, verbose=0)[np.arange(64), targets]
    gain = probability - under_test.trained().predict(0 * inputs[:1], verbose=0)[0, targets]
    np.testing.assert_allclose(
        computed.attributions.sum(axis=(1, 2, 3)) - computed.per_sample["convergence_delta"],
        gain,
        atol=1e-5,
    )


def test_an_example_that_is_its_baseline_gets_nothing() -> None:
    computed = under_test.explain(
        under_test.functions(), guided_integrated_gradients, np.zeros((1, 3), np.float32)
    )
    assert np.all(computed.attributions == 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_steps": 0}, "got 0, 0.25 and 0.02"),
        ({"fraction": 0.0}, "got 50, 0.0 and 0.02"),
        ({"max_distance": 1.5}, "got 50, 0.25 and 1.5"),
        ({"baseline": "black"}, "unknown baseline 'black'"),
        ({"baseline": first_feature}, r"a baseline has the shape of the inputs, \(\d+, 3\)"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(
    options: dict[str, Any], message: str
) -> None:
    compute = Compute(under_test.functions(), partial(guided_integrated_gradients, **options))
    with pytest.raises(ValueError, match=message):
        compute.check(np.zeros((0, 3), np.float32), np.zeros(0, np.int64))
