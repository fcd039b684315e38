"""Closed forms and completeness of blur integrated gradients, with SciPy's blur as the judge."""

from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import gaussian_filter  # type: ignore[import-untyped]  # scipy ships no types

from hvd_xai.attributions.blur_integrated_gradients import blur_integrated_gradients
from hvd_xai.compute.attribute import Compute
from tests.attributions import functions_under_test as under_test

ROUNDING = 1e-5  # of sums over a few hundred waves
# SciPy samples the Gaussian at the places, which is not quite one; it nearly is from a standard
# deviation of 1 on
BLUR = 2e-3

SHAPE = (12, 9, 2)
WEIGHTS = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
IMAGES = np.random.default_rng(2).uniform(size=(3, *SHAPE)).astype(np.float32)


def model_of(function: Any, shape: tuple[int, ...] = SHAPE) -> keras.Model:
    inputs = keras.Input(shape)
    return keras.Model(inputs, keras.layers.Lambda(function, output_shape=(1,))(inputs))


# A function tells nobody where it takes channels to be.
METHOD = partial(blur_integrated_gradients, channels="last")


def flat_sum(x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(keras.layers.Flatten()(x), axis=1, keepdims=True)


@pytest.mark.parametrize(("sigma", "n_steps"), [(1.5, 50), (3.0, 1)])
def test_a_linear_model_gets_its_weights_times_what_the_blur_took(
    sigma: float, n_steps: int
) -> None:
    model = model_of(lambda x: flat_sum(x * WEIGHTS))
    computed = under_test.explain(model, METHOD, IMAGES, max_sigma=sigma, n_steps=n_steps)
    blurred = gaussian_filter(IMAGES, (0, sigma, sigma, 0), mode="reflect", truncate=8)
    assert under_test.relative_error(computed.attributions, WEIGHTS * (IMAGES - blurred)) < BLUR
    assert (
        np.abs(computed.per_sample["convergence_delta"]).max()
        < ROUNDING * np.abs(computed.attributions).sum(axis=(1, 2, 3)).max()
    )


def test_the_strongest_blur_leaves_the_mean_of_each_channel() -> None:
    model = model_of(lambda x: flat_sum(x * WEIGHTS))
    attributions = under_test.explain(model, METHOD, IMAGES, max_sigma=100.0).attributions
    assert (
        under_test.relative_error(
            attributions, WEIGHTS * (IMAGES - IMAGES.mean(axis=(1, 2), keepdims=True))
        )
        < ROUNDING
    )


def test_a_square_sums_to_what_the_blur_took_of_it() -> None:
    # The gradient at the middle of a step is not quite the mean of its ends: an error of the square
    # of the step.
    deltas = [
        under_test.explain(
            model_of(lambda x: flat_sum(x**2)), METHOD, IMAGES, n_steps=n_steps
        ).per_sample["convergence_delta"]
        for n_steps in (10, 40)
    ]
    assert np.abs(deltas[0]).max() < 0.05
    assert np.abs(deltas[1]).max() < 1.2 / 4**2 * np.abs(deltas[0]).max()


def test_a_constant_image_gets_nothing() -> None:
    images = np.full((1, *SHAPE), 3.0, np.float32)
    attributions = under_test.explain(
        model_of(lambda x: flat_sum(x**3)), METHOD, images
    ).attributions
    assert np.abs(attributions).max() < ROUNDING * 3.0**3


@pytest.mark.parametrize("shape", [(7, 2), (4, 5, 3, 1)], ids=["series", "volume"])
def test_series_and_volumes(shape: tuple[int, ...]) -> None:
    inputs = np.random.default_rng(3).uniform(size=(2, *shape)).astype(np.float32)
    attributions = under_test.explain(
        model_of(flat_sum, shape), METHOD, inputs, max_sigma=1.5
    ).attributions
    blurred = gaussian_filter(inputs, (0, *[1.5] * (len(shape) - 1), 0), mode="reflect", truncate=8)
    assert under_test.relative_error(attributions, inputs - blurred) < BLUR


def test_completeness_on_a_trained_network_is_below_one_percent() -> None:
    inputs, targets = (values[:64] for values in under_test.digits())
    assert (
        under_test.gap(
            under_test.explain(under_test.trained(), blur_integrated_gradients, inputs, targets)
        )
        < 0.01
    )


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({"n_steps": 0}, (5, 5, 1), "needs n_steps >= 1 and max_sigma > 0; got 0 and None"),
        ({"max_sigma": 0.0}, (5, 5, 1), "got 50 and 0.0"),
        ({}, (4,), r"needs inputs \(n, places..., channels\) of rank 3 to 5; got \(None, 4\)"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(
    options: dict[str, Any], shape: tuple[int, ...], message: str
) -> None:
    compute = Compute(model_of(flat_sum, shape), partial(METHOD, **options))
    with pytest.raises(ValueError, match=message):
        compute.check(np.zeros((0, *shape), np.float32), np.zeros(0, np.int64))
