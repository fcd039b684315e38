"""Sobol indices against those known in closed form."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.attributions.sobol import sobol
from hvd_xai.compute.attribute import Compute
from tests.games_under_test import explain, model_of, twos

SAMPLING = 0.04  # of indices of 4,000 designs: fourth moments over the root of that


def test_features_that_act_alone_have_their_share_of_the_variance() -> None:
    weights = np.array([2.0, -3.0, 0.0, 0.5], np.float32)
    inputs = np.array([[1.0, 1.0, 3.0, -4.0], [0.0, 1.0, -1.0, 2.0]], np.float32)
    indices = explain(
        sobol,
        model_of(lambda x: tf.linalg.matvec(x, weights), 4),
        inputs,
        n_designs=4000,
        baseline=twos,
    ).attributions
    variance = ((inputs - 2) * weights) ** 2
    np.testing.assert_allclose(
        indices, variance / variance.sum(axis=1, keepdims=True), atol=SAMPLING
    )
    np.testing.assert_array_equal(indices[:, 2], 0)


def test_features_that_act_together_count_for_what_they_do_with_others() -> None:
    # Of a product of two uniform variables, E V[ab | b] = E b² / 12 = 1/36 and V[ab] = 1/9 - 1/16:
    # 4/7 each; alone, they have 3/7 each.
    indices = explain(
        sobol, model_of(lambda x: x[:, 0] * x[:, 1], 3), np.ones((1, 3), np.float32), n_designs=4000
    ).attributions
    np.testing.assert_allclose(indices, [[4 / 7, 4 / 7, 0]], atol=SAMPLING)


def test_patches_of_an_image_are_dimmed_together() -> None:
    weights = np.random.default_rng(3).normal(size=(4, 6, 2)).astype(np.float32)
    inputs = np.random.default_rng(2).normal(size=(2, 4, 6, 2)).astype(np.float32)
    model = model_of(lambda x: tf.reduce_sum(x * weights, axis=[1, 2, 3]), 4, 6, 2)
    indices = explain(sobol, model, inputs, patch=2, n_designs=1000).attributions
    variance = (inputs * weights).reshape(2, 2, 2, 3, 2, 2).sum(axis=(2, 4, 5)) ** 2
    np.testing.assert_allclose(
        indices, variance / variance.sum(axis=(1, 2), keepdims=True), atol=2 * SAMPLING
    )


def test_a_score_that_does_not_vary_has_indices_of_0() -> None:
    indices = explain(
        sobol, model_of(lambda x: 0 * x[:, 0] + 5, 3), np.ones((1, 3), np.float32)
    ).attributions
    np.testing.assert_array_equal(indices, 0)


def test_the_design_depends_on_the_seed_alone() -> None:
    inputs = np.ones((3, 4), np.float32)
    compute = partial(
        explain,
        sobol,
        model_of(lambda x: tf.reduce_prod(x, axis=1), 4),
        inputs,
        np.array([8, 3, 9]),
    )
    indices = compute().attributions
    np.testing.assert_array_equal(indices[1:], indices[:2])
    assert np.any(compute(seed=1).attributions != indices)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_designs": 1}, "needs n_designs >= 2; got 1"),
        ({"patch": 5}, "got patch=5"),
        ({"micro_batch": 0}, "at least 1; got 0"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(
    options: dict[str, Any], message: str
) -> None:
    compute = Compute(model_of(lambda x: x[:, 0], 4), partial(sobol, **options))
    with pytest.raises(ValueError, match=message):
        compute.check(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
