"""Closed forms of SmoothGrad over gradients and over other methods."""

from functools import partial

import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.attributions.grad_cam import grad_cam
from hvd_xai.attributions.integrated_gradients import integrated_gradients
from hvd_xai.attributions.saliency import saliency
from hvd_xai.attributions.smoothgrad import smoothgrad
from hvd_xai.compute.attribute import Compute
from tests import models_under_test as models
from tests.attributions import functions_under_test as under_test

ROUNDING = 1e-6


def loss(outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    return -tf.math.log(tf.gather(outputs, targets, batch_dims=1))


@pytest.mark.parametrize(("noise", "is_relative"), [(0.15, True), (100.0, False)])
def test_closed_forms(noise: float, is_relative: bool) -> None:
    got = under_test.explain_functions(smoothgrad, noise=noise, is_relative=is_relative)
    np.testing.assert_array_equal(got["linear"].attributions, np.tile(under_test.WEIGHTS, (2, 1)))
    # Of squares it is twice the mean of the copies, whose mean differs from the example by noise /
    # sqrt(n); four times that.
    ranges = np.ptp(under_test.POINTS, axis=1, keepdims=True) if is_relative else 1.0
    assert np.all(
        np.abs(got["square"].attributions / 2 - under_test.POINTS) < 4 * noise * ranges / 50**0.5
    )


def test_without_noise_it_is_the_method() -> None:
    inputs, targets, _ = models.examples(3)
    model = models.functional()
    got = under_test.explain(model, smoothgrad, inputs, targets, n_samples=3, noise=0.0, score=loss)
    assert (
        under_test.relative_error(
            got.attributions,
            under_test.explain(model, saliency, inputs, targets, score=loss).attributions,
        )
        < ROUNDING
    )
    assert not got.per_sample


def test_says_what_its_method_says_of_its_attributions() -> None:
    for method, facts in [(saliency, ("inputs", True)), (grad_cam, ("places", False))]:
        compute = Compute(models.functional(), partial(smoothgrad, method=method, n_samples=2))
        compute.check(*models.examples(0))
        assert (compute.attributed_to, compute.signed) == facts


def test_a_constant_example_has_no_relative_noise() -> None:
    inputs = np.full((1, 3), 2.0, np.float32)
    got = under_test.explain(under_test.functions(), smoothgrad, inputs, np.array([2])).attributions
    assert under_test.relative_error(got, 3 * inputs**2) < ROUNDING


def test_smooths_methods_that_form_their_own_micro_batches() -> None:
    # The same copies: of the square the gradient is twice the copy, of the linear function the
    # integral is the copy times the weights.
    linear, square = np.zeros(2, np.int64), np.ones(2, np.int64)
    twice_the_copies = under_test.explain(
        under_test.functions(), smoothgrad, under_test.POINTS, square
    ).attributions
    method = partial(integrated_gradients, n_steps=4)
    got = under_test.explain(
        under_test.functions(), smoothgrad, under_test.POINTS, linear, method=method
    ).attributions
    assert under_test.relative_error(got, under_test.WEIGHTS * twice_the_copies / 2) < ROUNDING
    assert np.abs(got - under_test.WEIGHTS * under_test.POINTS).max() > 0.01


def test_smooths_maps_of_a_layer() -> None:
    inputs, targets, _ = models.examples(3)
    got = under_test.explain(
        models.functional(), smoothgrad, inputs, targets, method="grad_cam", n_samples=4, noise=0.0
    )
    want = under_test.explain(models.functional(), grad_cam, inputs, targets)
    assert under_test.relative_error(got.attributions, want.attributions) < ROUNDING
