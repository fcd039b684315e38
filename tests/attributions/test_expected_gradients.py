"""Closed forms and completeness of expected gradients."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.attributions.expected_gradients import expected_gradients
from hvd_xai.attributions.integrated_gradients import integrated_gradients
from hvd_xai.compute.attribute import Compute
from tests.attributions import functions_under_test as under_test

# Float32 sums of 60 gradients of size 100: a few roundings of 1e-7 each.
ROUNDING = 1e-6

BACKGROUND = np.array([[1.0, 0.5, -2.0], [-1.0, 2.0, 3.0], [0.25, -0.5, 1.0]], np.float32)


def test_closed_forms() -> None:
    x, b = under_test.POINTS[:, None], BACKGROUND[None]
    product = np.stack(
        [
            (x - b)[..., 0] * (x + b)[..., 1] / 2,
            (x - b)[..., 1] * (x + b)[..., 0] / 2,
            0 * (x - b)[..., 0],
        ],
        axis=-1,
    )
    want = {
        "linear": (x - BACKGROUND.mean(axis=0))[:, 0] * under_test.WEIGHTS,
        "square": (x**2 - b**2).mean(axis=1),
        "cube": (x**3 - b**3).mean(axis=1),
        "product": product.mean(axis=1),
    }
    got = under_test.explain_functions(
        expected_gradients, background=BACKGROUND, rule="gauss_legendre", n_steps=2
    )
    for name, attributions in want.items():
        assert under_test.relative_error(got[name].attributions, attributions) < ROUNDING, name
        assert (
            np.abs(got[name].per_sample["convergence_delta"]).max()
            < ROUNDING * np.abs(attributions).max()
        ), name
    np.testing.assert_allclose(
        got["cube"].per_sample["expected_value"], (BACKGROUND**3).sum(axis=1).mean(), rtol=ROUNDING
    )


def test_kinks_are_crossed_with_an_error_of_a_node() -> None:
    # For each background the gradient is that of one feature up to the kink, and of the other from
    # there on.
    n_steps = 1000
    got = under_test.explain_functions(expected_gradients, background=BACKGROUND, n_steps=n_steps)
    alpha = ((np.arange(100_000) + 0.5) / 100_000)[:, None, None]
    for point, relu, maximum in zip(
        under_test.POINTS, got["relu"].attributions, got["max"].attributions, strict=True
    ):
        path = BACKGROUND + alpha * (point - BACKGROUND)
        want_relu = ((point - BACKGROUND) * (path.sum(axis=-1, keepdims=True) > 0)).mean(
            axis=(0, 1)
        )
        is_first = path[..., :1] > path[..., 1:2]
        want_maximum = (
            (point - BACKGROUND) * np.concatenate([is_first, ~is_first, 0 * is_first], axis=-1)
        ).mean(axis=(0, 1))
        assert np.abs(relu - want_relu).max() < 10 / n_steps
        assert np.abs(maximum - want_maximum).max() < 10 / n_steps


def test_zeros_as_background_are_integrated_gradients() -> None:
    inputs, targets = (values[:7] for values in under_test.digits())
    got = under_test.explain(under_test.trained(), expected_gradients, inputs, targets, n_steps=20)
    want = under_test.explain(
        under_test.trained(), integrated_gradients, inputs, targets, n_steps=20
    )
    assert under_test.relative_error(got.attributions, want.attributions) < ROUNDING


@pytest.mark.parametrize("n_background", [1, 15, 100])
def test_completeness_on_a_trained_network_is_below_one_percent(n_background: int) -> None:
    # 15 x 20 rows of one example are more than a micro-batch takes, and are cut; 2000 are cut into
    # eight.
    inputs, targets = under_test.digits()
    background = inputs[1000 : 1000 + n_background]
    computed = under_test.explain(
        under_test.trained(), expected_gradients, inputs[:32], targets[:32], background=background
    )
    assert under_test.gap(computed) < 0.01
    expected = under_test.trained().predict(background, verbose=0).mean(axis=0)[targets[:32]]
    np.testing.assert_allclose(computed.per_sample["expected_value"], expected, rtol=1e-5)
    gain = (
        under_test.trained().predict(inputs[:32], verbose=0)[np.arange(32), targets[:32]] - expected
    )
    np.testing.assert_allclose(
        computed.attributions.sum(axis=(1, 2, 3)) - computed.per_sample["convergence_delta"],
        gain,
        atol=1e-5,
    )


def half(inputs: tf.Tensor) -> tf.Tensor:
    return inputs / 2


def half_and_zero(inputs: tf.Tensor) -> tf.Tensor:
    return tf.stack([inputs / 2, tf.zeros_like(inputs)])


def first_feature(inputs: tf.Tensor) -> tf.Tensor:
    return inputs[:, :1]


@pytest.mark.parametrize(("background", "mean"), [(half, 1 / 2), (half_and_zero, 1 / 4)])
def test_a_function_gives_each_input_its_own_background(background: Any, mean: float) -> None:
    got = under_test.explain_functions(expected_gradients, background=background)["linear"]
    assert (
        under_test.relative_error(
            got.attributions, under_test.POINTS * (1 - mean) * under_test.WEIGHTS
        )
        < ROUNDING
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_steps": 0}, "needs n_steps >= 1; got 0"),
        ({"rule": "simpson"}, "unknown quadrature rule 'simpson'"),
        ({"background": "black"}, "unknown baseline 'black'"),
        (
            {"background": np.zeros((4, 2), np.float32)},
            r"needs data of shape \(b, 3\); got \(4, 2\)",
        ),
        (
            {"background": np.zeros((0, 3), np.float32)},
            r"needs data of shape \(b, 3\); got \(0, 3\)",
        ),
        ({"background": first_feature}, r"first_feature.* returned \(1, 1\)"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Compute(under_test.functions(), partial(expected_gradients, **options)).check(
            np.zeros((0, 3), np.float32), np.zeros(0, np.int64)
        )
