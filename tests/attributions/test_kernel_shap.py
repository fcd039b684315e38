"""Kernel SHAP against Shapley values from all coalitions."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.attributions.kernel_shap import kernel_shap
from hvd_xai.compute.attribute import Compute
from tests.games_under_test import explain, mixed_game, mixed_inputs, model_of, shapley_values, twos

ROUNDING = 1e-5  # of values of size 10, fitted to float32 scores


def test_all_coalitions_of_ten_features_give_the_shapley_values() -> None:
    inputs = mixed_inputs()
    values = explain(
        kernel_shap, model_of(mixed_game, 10), inputs, n_samples=2**10 - 2, micro_batch=100
    ).attributions
    np.testing.assert_allclose(values, shapley_values(mixed_game, inputs), atol=ROUNDING)
    gain = mixed_game(tf.constant(inputs)) - mixed_game(tf.zeros([1, 10]))
    np.testing.assert_allclose(values.sum(axis=1), gain, atol=ROUNDING)
    np.testing.assert_allclose(values[:, 5], values[:, 6], atol=ROUNDING)
    np.testing.assert_allclose(values[:, 9], 0, atol=ROUNDING)


@pytest.mark.parametrize("m", [2, 3, 4, 5])
def test_few_features_are_exact_by_default_from_any_baseline(m: int) -> None:
    def game(x: tf.Tensor) -> tf.Tensor:
        return tf.reduce_prod(x, axis=1) + tf.reduce_max(x, axis=1)

    inputs = np.random.default_rng(m).normal(size=(2, m)).astype(np.float32)
    values = explain(kernel_shap, model_of(game, m), inputs, baseline=twos).attributions
    np.testing.assert_allclose(values, shapley_values(game, inputs, 2.0), atol=ROUNDING)


def test_values_are_linear_in_the_score() -> None:
    def f(x: tf.Tensor) -> tf.Tensor:
        return tf.reduce_prod(x, axis=1)

    def g(x: tf.Tensor) -> tf.Tensor:
        return tf.exp(x[:, 0]) * x[:, 3]

    inputs = np.array([[1.0, -0.5, 2.0, 0.3]], np.float32)
    both = explain(kernel_shap, model_of(lambda x: 2 * f(x) - 3 * g(x), 4), inputs).attributions
    apart = [explain(kernel_shap, model_of(part, 4), inputs).attributions for part in (f, g)]
    np.testing.assert_allclose(both, 2 * apart[0] - 3 * apart[1], atol=ROUNDING)


def test_features_that_act_alone_are_exact_whatever_is_drawn() -> None:
    inputs = np.random.default_rng(0).normal(size=(3, 40)).astype(np.float32)
    values = explain(
        kernel_shap, model_of(lambda x: tf.reduce_sum(x**2, axis=1), 40), inputs, n_samples=200
    ).attributions
    np.testing.assert_allclose(values, inputs**2, atol=ROUNDING)


def test_a_sample_of_the_coalitions_comes_close_and_sums_up() -> None:
    # 1,022 coalitions are too many for the budget: sizes 1, 2 and their complements are listed, the
    # others drawn.
    inputs = np.repeat(mixed_inputs()[:1], 20, axis=0)
    values = explain(kernel_shap, model_of(mixed_game, 10), inputs, n_samples=400).attributions
    np.testing.assert_allclose(
        values.sum(axis=1),
        mixed_game(tf.constant(inputs)) - mixed_game(tf.zeros([1, 10])),
        atol=ROUNDING,
    )
    want = shapley_values(mixed_game, inputs[:1])
    assert np.abs(values - want).max() < 0.1 * np.abs(want).max()
    # errors of other sample ids cancel; what does not is bias
    assert np.abs(values.mean(axis=0) - want).max() < 0.02 * np.abs(want).max()


def test_draws_depend_on_the_seed_and_on_the_sample_id_alone() -> None:
    inputs = np.repeat(mixed_inputs()[:1], 4, axis=0)
    compute = partial(
        explain,
        kernel_shap,
        model_of(mixed_game, 10),
        inputs,
        np.array([8, 3, 8, 2**62]),
        n_samples=60,
    )
    values = compute().attributions
    np.testing.assert_array_equal(values[0], values[2])
    assert len(np.unique(values[[0, 1, 3], 0])) == 3
    assert np.any(compute(seed=1).attributions != values)


def test_patches_of_an_image_get_the_sum_of_their_pixels() -> None:
    weights = np.random.default_rng(3).normal(size=(4, 6, 2)).astype(np.float32)
    inputs = np.random.default_rng(2).normal(size=(2, 4, 6, 2)).astype(np.float32)
    values = explain(
        kernel_shap,
        model_of(lambda x: tf.reduce_sum(x * weights, axis=[1, 2, 3]), 4, 6, 2),
        inputs,
        patch=2,
    ).attributions
    want = (inputs * weights).reshape(2, 2, 2, 3, 2, 2).sum(axis=(2, 4, 5))
    np.testing.assert_allclose(values, want, atol=ROUNDING)


@pytest.mark.parametrize(
    ("m", "options", "message"),
    [
        (1, {}, "needs at least 2 features"),
        (10, {"n_samples": 21}, "of 10 features needs .* n_samples >= 22; got 21"),
        (4, {"n_samples": 9}, "n_samples >= 10; got 9"),
        (4, {"patch": 5}, "got patch=5"),
        (4, {"micro_batch": 0}, "at least 1; got 0"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(
    m: int, options: dict[str, Any], message: str
) -> None:
    compute = Compute(model_of(lambda x: x[:, 0], m), partial(kernel_shap, **options))
    with pytest.raises(ValueError, match=message):
        compute.check(np.zeros((0, m), np.float32), np.zeros(0, np.int64))


def test_standard_errors_are_those_of_drawing_again() -> None:
    """Sample ids seed the draws: one input under 300 ids is drawn 300 times."""
    inputs = np.repeat(mixed_inputs()[:1], 300, axis=0)
    computed = explain(kernel_shap, model_of(mixed_game, 10), inputs, n_samples=120)
    spread = computed.attributions.std(axis=0, ddof=1)
    errors = computed.per_sample["standard_errors"]
    told = np.sqrt(np.mean(errors**2, axis=0))
    # 300 draws tell a spread to 4 %, and few pairs are not quite as far off as they would say
    is_drawn = spread > ROUNDING
    np.testing.assert_allclose(told[is_drawn], spread[is_drawn], rtol=0.25)
    np.testing.assert_array_equal(computed.per_sample["standard_error"], errors.max(axis=1))


def test_what_is_not_drawn_has_no_standard_error() -> None:
    listed = explain(kernel_shap, model_of(mixed_game, 10), mixed_inputs(), n_samples=2**10 - 2)
    np.testing.assert_array_equal(listed.per_sample["standard_errors"], 0)
    inputs = np.random.default_rng(0).normal(size=(3, 40)).astype(np.float32)
    alone = model_of(lambda x: tf.reduce_sum(x**2, axis=1), 40)
    errors = explain(kernel_shap, alone, inputs, n_samples=200).per_sample["standard_errors"]
    assert np.all(errors < ROUNDING)
