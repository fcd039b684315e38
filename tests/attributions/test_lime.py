"""LIME against linear models, and regressions solved by other means."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.attributions.lime import lime
from hvd_xai.compute.attribute import Compute
from hvd_xai.primitives import coalitions
from tests.games_under_test import explain, mixed_game, mixed_inputs, model_of, twos

ROUNDING = 1e-5  # of values of size 10, fitted to float32 scores
SMALLEST_RIDGE = 1e-9


def test_a_linear_model_gives_back_its_terms() -> None:
    weights = np.array([2.0, -3.0, 0.0, 0.5], np.float32)
    inputs = np.array([[1.0, 2.0, 3.0, -4.0], [0.0, 1.0, -1.0, 2.0]], np.float32)
    model = model_of(lambda x: tf.linalg.matvec(x, weights) + 7, 4)
    computed = explain(lime, model, inputs, ridge=SMALLEST_RIDGE, baseline=twos)
    np.testing.assert_allclose(computed.attributions, (inputs - 2) * weights, atol=ROUNDING)
    np.testing.assert_allclose(
        computed.per_sample["intercept"], 7 + 2 * weights.sum(), atol=ROUNDING
    )
    np.testing.assert_allclose(computed.per_sample["local_r2"], 1, atol=ROUNDING)


def test_patches_of_an_image_get_the_sum_of_their_pixels() -> None:
    weights = np.random.default_rng(3).normal(size=(4, 6, 2)).astype(np.float32)
    inputs = np.random.default_rng(2).normal(size=(2, 4, 6, 2)).astype(np.float32)
    model = model_of(lambda x: tf.reduce_sum(x * weights, axis=[1, 2, 3]), 4, 6, 2)
    got = explain(lime, model, inputs, patch=2, ridge=SMALLEST_RIDGE, micro_batch=50).attributions
    np.testing.assert_allclose(
        got, (inputs * weights).reshape(2, 2, 2, 3, 2, 2).sum(axis=(2, 4, 5)), atol=ROUNDING
    )


def test_the_fit_is_the_weighted_ridge_regression_of_the_paper() -> None:
    inputs, ids = mixed_inputs(), np.array([4, 0, 9])
    computed = explain(
        lime,
        model_of(mixed_game, 10),
        inputs,
        ids,
        n_samples=100,
        kernel_width=0.4,
        ridge=2.0,
        seed=5,
    )
    drawn = coalitions.uniform(5, tf.constant(ids), (99, 10)).numpy() < 0.5
    for i, x in enumerate(inputs):
        z = np.concatenate([np.ones((1, 10)), drawn[i]])
        y = mixed_game(tf.constant(z * x, tf.float32)).numpy().astype(np.float64)
        cosine = z.sum(axis=1) / np.maximum(np.linalg.norm(z, axis=1) * np.sqrt(10), 1e-30)
        weights = np.exp(-((1 - cosine) ** 2) / 0.4**2)
        # Ridge regression as least squares with one more row for each coefficient, and none for the
        # intercept.
        design = np.sqrt(weights)[:, None] * np.column_stack([z, np.ones(100)])
        penalty = np.sqrt(2.0) * np.eye(10, 11)
        right = np.concatenate([np.sqrt(weights) * y, np.zeros(10)])
        solution = np.linalg.lstsq(np.concatenate([design, penalty]), right, rcond=None)[0]
        np.testing.assert_allclose(computed.attributions[i], solution[:10], atol=ROUNDING)
        np.testing.assert_allclose(computed.per_sample["intercept"][i], solution[10], atol=ROUNDING)
        left_over = weights @ (y - z @ solution[:10] - solution[10]) ** 2
        r2 = 1 - left_over / (weights @ (y - weights @ y / weights.sum()) ** 2)
        np.testing.assert_allclose(computed.per_sample["local_r2"][i], r2, atol=ROUNDING)
    assert np.all(computed.per_sample["local_r2"] < 0.99)


def test_a_score_that_no_linear_model_follows_has_a_low_r2() -> None:
    # 1 if the number of features present is odd. Wide open, so that all versions count alike.
    model = model_of(lambda x: tf.math.floormod(tf.reduce_sum(x, axis=1), 2.0), 8)
    computed = explain(lime, model, np.ones((1, 8), np.float32), kernel_width=100.0, n_samples=1000)
    assert computed.per_sample["local_r2"][0] < 0.05


def test_draws_depend_on_the_seed_and_on_the_sample_id_alone() -> None:
    inputs = np.repeat(mixed_inputs()[:1], 4, axis=0)
    compute = partial(explain, lime, model_of(mixed_game, 10), inputs, np.array([8, 3, 8, 2**62]))
    values = compute().attributions
    np.testing.assert_array_equal(values[0], values[2])
    assert len(np.unique(values[[0, 1, 3], 0])) == 3
    assert np.any(compute(seed=1).attributions != values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_samples": 1}, "needs n_samples >= 2; got 1"),
        ({"kernel_width": 0.0}, "needs kernel_width > 0; got 0.0"),
        ({"ridge": 0.0}, "needs ridge > 0; got 0.0"),
        ({"patch": 11}, "got patch=11"),
        ({"micro_batch": 0}, "at least 1; got 0"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(
    options: dict[str, Any], message: str
) -> None:
    compute = Compute(model_of(mixed_game, 10), partial(lime, **options))
    with pytest.raises(ValueError, match=message):
        compute.check(np.zeros((0, 10), np.float32), np.zeros(0, np.int64))
