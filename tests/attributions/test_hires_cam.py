"""HiResCAM against class activation maps, Grad-CAM and the score."""

from functools import partial
from typing import Any

import keras
import numpy as np

from hvd_xai.attributions.grad_cam import grad_cam
from hvd_xai.attributions.hires_cam import hires_cam
from hvd_xai.compute.attribute import Compute

ROUNDING = 1e-6  # float32 sums of some ten terms, in another order


def explain(
    model: keras.Model, inputs: np.ndarray, targets: np.ndarray, **options: Any
) -> np.ndarray:
    return Compute(model, partial(hires_cam, **options))(
        inputs, targets, np.arange(len(inputs))
    ).attributions


def assert_close(got: np.ndarray, want: np.ndarray) -> None:
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= ROUNDING * np.abs(want).max()


def model_with(*head: keras.Layer) -> keras.Model:
    keras.utils.set_random_seed(2)
    return keras.Sequential(
        [
            keras.Input((6, 5, 2)),
            keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
            *head,
            keras.layers.Dense(3, name="head", bias_initializer="random_normal"),
        ]
    )


INPUTS = np.random.default_rng(2).normal(size=(6, 6, 5, 2)).astype(np.float32)
TARGETS = np.arange(6) % 3


def test_with_average_pooling_it_is_the_class_activation_map() -> None:
    model = model_with(keras.layers.GlobalAveragePooling2D())
    activations = np.asarray(model.get_layer("conv")(INPUTS))
    kernel = model.get_layer("head").get_weights()[0]
    cam = np.einsum("nhwk,kn->nhw", activations, kernel[:, TARGETS])
    got = explain(model, INPUTS, TARGETS)
    assert_close(got, cam / (4 * 3))
    assert (got < 0).any()
    grad_cams = Compute(model, grad_cam)(INPUTS, TARGETS, np.arange(6)).attributions
    assert_close(np.maximum(got, 0), grad_cams)


def test_with_one_dense_layer_it_adds_up_to_the_score() -> None:
    model = model_with(keras.layers.Flatten())
    scores = np.asarray(model(INPUTS))[np.arange(6), TARGETS]
    bias = model.get_layer("head").get_weights()[1]
    assert np.abs(bias).min() > 0
    assert_close(explain(model, INPUTS, TARGETS).sum(axis=(1, 2)), scores - bias[TARGETS])


def test_places_that_the_model_does_not_use_get_exactly_zero() -> None:
    # Draelos and Carin's case against Grad-CAM, which spreads the mean gradient over the unused
    # half.
    model = model_with(keras.layers.Cropping2D(((0, 0), (0, 2))), keras.layers.Flatten())
    maps = explain(model, INPUTS, TARGETS, layer="conv")
    np.testing.assert_array_equal(maps[:, :, 1:], 0)
    assert np.abs(maps[:, :, 0]).max() > 0
    assert (
        Compute(model, partial(grad_cam, layer="conv"))(INPUTS, TARGETS, np.arange(6))
        .attributions[:, :, 1:]
        .max()
        > 0
    )
