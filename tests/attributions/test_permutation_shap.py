"""Shapley values by permutations, against those from all coalitions."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.attributions.permutation_shap import permutation_shap
from hvd_xai.compute.attribute import Compute
from tests.games_under_test import explain, mixed_game, mixed_inputs, model_of, shapley_values, twos

ROUNDING = 1e-5  # of values of size 10, differences of float32 scores


def pairs(x: tf.Tensor) -> tf.Tensor:
    return (
        tf.reduce_sum(x**2 + x[:, :1] * x, axis=1)
        - 3 * x[:, 4] * x[:, 5]
        + tf.maximum(x[:, 1], x[:, 2])
    )


def all_together(x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_prod(x, axis=1) + tf.tanh(tf.reduce_sum(x, axis=1))


def test_features_that_act_alone_or_in_pairs_are_exact() -> None:
    inputs = np.random.default_rng(1).normal(size=(3, 10)).astype(np.float32)
    computed = explain(
        permutation_shap, model_of(pairs, 10), inputs, n_permutations=2, micro_batch=7
    )
    np.testing.assert_allclose(computed.attributions, shapley_values(pairs, inputs), atol=ROUNDING)
    assert np.all(computed.per_sample["standard_error"] < ROUNDING)


@pytest.mark.parametrize(("m", "n_permutations"), [(1, 2), (2, 2), (3, 3), (4, 12), (5, 60)])
def test_all_orders_give_the_shapley_values(m: int, n_permutations: int) -> None:
    inputs = np.random.default_rng(m).normal(size=(2, m)).astype(np.float32)
    computed = explain(
        permutation_shap,
        model_of(all_together, m),
        inputs,
        n_permutations=n_permutations,
        baseline=twos,
    )
    np.testing.assert_allclose(
        computed.attributions, shapley_values(all_together, inputs, 2.0), atol=ROUNDING
    )
    np.testing.assert_array_equal(computed.per_sample["standard_error"], 0)


def test_estimates_are_as_far_off_as_the_standard_error_says() -> None:
    inputs = np.repeat(mixed_inputs(), 30, axis=0)
    computed = explain(permutation_shap, model_of(mixed_game, 10), inputs, n_permutations=40)
    values, error = computed.attributions, computed.per_sample["standard_error"]
    gain = mixed_game(tf.constant(inputs)) - mixed_game(tf.zeros([1, 10]))
    np.testing.assert_allclose(values.sum(axis=1), gain, atol=ROUNDING)
    # a feature that does nothing gains nothing in any order
    np.testing.assert_array_equal(values[:, 9], 0)
    off = np.abs(values - np.repeat(shapley_values(mixed_game, mixed_inputs()), 30, axis=0)).max(
        axis=1
    )
    assert np.all(off < 5 * error)
    # the feature that is furthest off is about the one of the largest error, and off by about that
    for one in range(3):
        same = slice(30 * one, 30 * one + 30)
        assert 0.3 < np.sqrt(np.mean((off / error)[same] ** 2)) < 2


def test_symmetric_features_are_equal_on_average_and_values_linear_in_the_score() -> None:
    inputs = mixed_inputs()
    one, other = (
        explain(permutation_shap, model_of(game, 10), inputs)
        for game in (mixed_game, lambda x: 2 * mixed_game(x) + x[:, 9])
    )
    want = 2 * one.attributions + inputs * (np.arange(10) == 9)
    # the same orders, as seed and sample ids are the same
    np.testing.assert_allclose(other.attributions, want, atol=ROUNDING)
    assert np.all(
        np.abs(one.attributions[:, 5] - one.attributions[:, 6])
        < 5 * one.per_sample["standard_error"]
    )


def test_an_example_stops_when_its_error_is_small_enough() -> None:
    inputs = mixed_inputs()[:1] * np.array([[0.1], [0.7], [1.0], [1.5], [4.0]], np.float32)
    tolerance, targets = 0.1, np.zeros(5, np.int64)
    compute = Compute(
        model_of(mixed_game, 10), partial(permutation_shap, n_permutations=200, tolerance=tolerance)
    )
    computed = compute(inputs, targets, np.arange(5))
    error, taken = computed.per_sample["standard_error"], computed.per_sample["n_permutations"]
    assert np.all((error <= tolerance) | (taken == 200))
    assert taken[0] == 5  # one look was enough
    assert np.all(np.diff(taken) >= 0)  # the steeper the game, the more it takes
    assert taken[-1] == 200
    assert len(np.unique(taken)) >= 3
    gain = mixed_game(tf.constant(inputs)) - mixed_game(tf.zeros([1, 10]))
    np.testing.assert_allclose(computed.attributions.sum(axis=1), gain, rtol=ROUNDING)
    for i in range(5):  # what the others take is none of its business
        alone = compute(inputs[i : i + 1], targets[:1], np.array([i]))
        np.testing.assert_array_equal(alone.per_sample["n_permutations"], taken[i])
        np.testing.assert_allclose(alone.attributions[0], computed.attributions[i], rtol=ROUNDING)


def test_a_tolerance_that_is_never_met_takes_all_orders() -> None:
    inputs = mixed_inputs()
    model = model_of(mixed_game, 10)
    want = explain(permutation_shap, model, inputs, n_permutations=10)
    got = explain(permutation_shap, model, inputs, n_permutations=8, tolerance=1e-9)
    np.testing.assert_array_equal(got.per_sample["n_permutations"], 10)
    np.testing.assert_allclose(got.attributions, want.attributions, rtol=ROUNDING, atol=ROUNDING)
    np.testing.assert_allclose(
        got.per_sample["standard_error"], want.per_sample["standard_error"], rtol=1e-3
    )


def test_orders_depend_on_the_seed_and_on_the_sample_id_alone() -> None:
    inputs = np.repeat(mixed_inputs()[:1], 4, axis=0)
    compute = partial(
        explain, permutation_shap, model_of(mixed_game, 10), inputs, np.array([8, 3, 8, 2**62])
    )
    values = compute().attributions
    np.testing.assert_array_equal(values[0], values[2])
    assert len(np.unique(values[[0, 1, 3], 0])) == 3
    assert np.any(compute(seed=1).attributions != values)


def test_patches_of_a_series_get_the_sum_of_their_steps() -> None:
    weights = np.random.default_rng(3).normal(size=(9, 2)).astype(np.float32)
    inputs = np.random.default_rng(2).normal(size=(2, 9, 2)).astype(np.float32)
    model = model_of(lambda x: tf.reduce_sum(x * weights, axis=[1, 2]), 9, 2)
    values = explain(permutation_shap, model, inputs, patch=3, n_permutations=2).attributions
    np.testing.assert_allclose(
        values, (inputs * weights).reshape(2, 3, 6).sum(axis=2), atol=ROUNDING
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_permutations": 1}, "needs n_permutations >= 2; got 1"),
        ({"tolerance": 0.0}, "more than 0; got 0.0"),
        ({"tolerance": float("nan")}, "more than 0; got nan"),
        ({"patch": 11}, "got patch=11"),
        ({"micro_batch": 0}, "at least 1; got 0"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(
    options: dict[str, Any], message: str
) -> None:
    compute = Compute(model_of(mixed_game, 10), partial(permutation_shap, **options))
    with pytest.raises(ValueError, match=message):
        compute.check(np.zeros((0, 10), np.float32), np.zeros(0, np.int64))


def test_standard_errors_are_those_of_each_feature_and_of_drawing_again() -> None:
    """Sample ids seed the orders: one input under 300 ids is drawn 300 times."""
    inputs = np.repeat(mixed_inputs()[:1], 300, axis=0)
    computed = explain(permutation_shap, model_of(mixed_game, 10), inputs, n_permutations=8)
    spread = computed.attributions.std(axis=0, ddof=1)
    errors = computed.per_sample["standard_errors"]
    told = np.sqrt(np.mean(errors**2, axis=0))
    # 300 draws tell a spread to 4 %
    is_drawn = spread > ROUNDING
    np.testing.assert_allclose(told[is_drawn], spread[is_drawn], rtol=0.15)
    # the feature that does nothing, and what acts alone
    assert np.all(told[~is_drawn] < ROUNDING)
    np.testing.assert_array_equal(computed.per_sample["standard_error"], errors.max(axis=1))
