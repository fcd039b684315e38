"""Permutation importance of single examples, against linear models and a data set shuffled in
full."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.attributions.feature_permutation import feature_permutation
from hvd_xai.compute.attribute import Compute
from tests.games_under_test import explain, mixed_game, mixed_inputs, model_of, twos

ROUNDING = 1e-5  # of values of size 10, means of float32 differences
WEIGHTS = np.array([2.0, -3.0, 0.0, 0.5], np.float32)


def linear(x: tf.Tensor) -> tf.Tensor:
    return tf.linalg.matvec(x, WEIGHTS)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_a_linear_model_gives_its_terms_less_their_mean() -> None:
    inputs, background = random(3, 4), random(20, 4, seed=1)
    values = explain(
        feature_permutation, model_of(linear, 4), inputs, background=background, micro_batch=30
    ).attributions
    np.testing.assert_allclose(values, WEIGHTS * (inputs - background.mean(axis=0)), atol=ROUNDING)
    np.testing.assert_array_equal(values[:, 2], 0)


def test_the_mean_over_a_data_set_is_its_permutation_importance() -> None:
    # With all pairs of examples instead of one shuffle, as Fisher et al. do in their equation 3.
    data = random(12, 10)
    labels = mixed_game(tf.constant(data)) + random(12, seed=5)

    def negative_error(x: tf.Tensor) -> tf.Tensor:
        nearest = tf.argmin(
            tf.reduce_sum((x[:, None, 1:] - data[None, :, 1:]) ** 2, axis=2), axis=1
        )
        return -((mixed_game(x) - tf.gather(labels, nearest)) ** 2)

    # The label of an example is found by the features that are not replaced: feature 0 is the one
    # that is looked at.
    values = explain(
        feature_permutation, model_of(negative_error, 10), data, background=data
    ).attributions
    replaced = np.repeat(data[:, None], 12, axis=1)
    replaced[:, :, 0] = data[None, :, 0]
    errors = (mixed_game(tf.constant(replaced.reshape(144, 10))) - np.repeat(labels, 12)) ** 2
    original = (mixed_game(tf.constant(data)) - labels) ** 2
    np.testing.assert_allclose(values[:, 0].mean(), np.mean(errors) - np.mean(original), rtol=1e-4)


def test_without_background_the_baseline_is_put_in() -> None:
    inputs = mixed_inputs()
    values = explain(
        feature_permutation, model_of(mixed_game, 10), inputs, baseline=twos
    ).attributions
    for j in range(10):
        replaced = np.where(np.arange(10) == j, np.float32(2), inputs)
        np.testing.assert_allclose(
            values[:, j],
            mixed_game(tf.constant(inputs)) - mixed_game(tf.constant(replaced)),
            atol=ROUNDING,
        )


def test_patches_are_taken_from_one_and_the_same_example() -> None:
    inputs, background = random(2, 4, 6, 2), random(3, 4, 6, 2, seed=1)
    model = model_of(
        lambda x: tf.reduce_prod(tf.reduce_mean(x[:, :2, 2:4], axis=[1, 2]), axis=1), 4, 6, 2
    )
    values = explain(
        feature_permutation, model, inputs, background=background, patch=2
    ).attributions
    assert values.shape == (2, 2, 3)
    of_patch = np.prod(background[:, :2, 2:4].mean(axis=(1, 2)), axis=1)
    want = np.prod(inputs[:, :2, 2:4].mean(axis=(1, 2)), axis=1) - of_patch.mean()
    np.testing.assert_allclose(values[:, 0, 1], want, atol=ROUNDING)
    assert np.count_nonzero(values) == 2


def test_what_is_drawn_is_of_the_background_once_and_by_seed_and_sample_id_alone() -> None:
    background = 2.0 ** np.arange(8, dtype=np.float32)[:, None] * np.ones((1, 2), np.float32)
    model = model_of(lambda x: x[:, 0], 2)
    compute = partial(
        explain,
        feature_permutation,
        model,
        np.zeros((4, 2), np.float32),
        np.array([8, 3, 8, 2**62]),
        background=background,
        n_samples=3,
    )
    drawn = -3 * compute().attributions[:, 0]
    # three different powers of 2
    assert [int(total).bit_count() for total in drawn] == [
        3,
        3,
        3,
        3,
    ]
    assert drawn[0] == drawn[2]
    assert len(np.unique(drawn)) == 3
    assert np.any(-3 * compute(seed=1).attributions[:, 0] != drawn)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_samples": 0}, "needs n_samples >= 1; got 0"),
        (
            {"background": np.zeros((2, 5))},
            r"a background of shape \('b', 4\), b >= 1; got \(2, 5\)",
        ),
        ({"background": np.zeros((0, 4))}, r"got \(0, 4\)"),
        ({"patch": 5}, "got patch=5"),
        ({"micro_batch": 0}, "at least 1; got 0"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(
    options: dict[str, Any], message: str
) -> None:
    compute = Compute(model_of(linear, 4), partial(feature_permutation, **options))
    with pytest.raises(ValueError, match=message):
        compute.check(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
