"""Models of whole numbers, such as the bytes of an image, explained as models of floats are."""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.attributions.integrated_gradients import integrated_gradients
from hvd_xai.attributions.occlusion import occlusion
from hvd_xai.attributions.saliency import saliency
from hvd_xai.compute.attribute import Compute
from hvd_xai.tracing.float_inputs import floats_kept

INPUTS = np.array([[0, 10, 255, 3], [7, 200, 1, 90]], np.uint8)
TARGETS = np.array([1, 0])


def normalization() -> keras.layers.Layer:
    return keras.layers.Normalization(mean=[0.0, 0.0, 0.0, 0.0], variance=[255.0**2] * 4)


def chain(*first: Any) -> keras.Model:
    keras.utils.set_random_seed(5)
    return keras.Sequential([*first, keras.layers.Dense(6, "tanh"), keras.layers.Dense(2)])


def in_ops() -> keras.Model:
    inputs = keras.Input((4,), dtype="uint8")
    return keras.Model(inputs, chain(keras.Input((4,)))(keras.ops.cast(inputs, "float32") / 255.0))


def nested() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((4,), dtype="uint8"),
            chain(keras.Input((4,), dtype="uint8"), keras.layers.Rescaling(1 / 255)),
        ]
    )


@pytest.mark.parametrize(
    "build",
    [
        lambda: chain(keras.Input((4,), dtype="uint8"), keras.layers.Rescaling(1 / 255)),
        lambda: chain(keras.Input((4,), dtype="int32"), normalization()),
        in_ops,
        nested,
    ],
    ids=["rescaling", "normalization", "cast", "nested"],
)
@pytest.mark.parametrize(
    "method",
    # Paths, and the mean of an example, lead over values that are no whole numbers.
    [saliency, partial(integrated_gradients, n_steps=5), partial(occlusion, baseline="mean")],
    ids=["saliency", "path", "mean"],
)
def test_bytes_are_explained_as_floats_of_the_same_value(
    build: Callable[[], keras.Model], method: Any
) -> None:
    floats = chain(keras.Input((4,)), keras.layers.Rescaling(1 / 255))
    want = Compute(floats, method)(INPUTS.astype(np.float32), TARGETS, np.arange(2))
    got = Compute(build(), method)(INPUTS, TARGETS, np.arange(2))
    assert np.abs(want.attributions).max() > 0
    np.testing.assert_allclose(got.attributions, want.attributions, rtol=1e-5, atol=1e-7)


def test_ids_are_cast_as_always_and_have_no_gradient() -> None:
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            keras.layers.CategoryEncoding(300, output_mode="multi_hot"),
            keras.layers.Dense(2),
        ]
    )
    with floats_kept(model):
        np.testing.assert_array_equal(model(tf.constant(INPUTS, tf.float32)), model(INPUTS))
    with pytest.raises(ValueError, match="Images of integers have one if the model begins with a"):
        Compute(model, saliency).check(INPUTS.astype(np.int32), TARGETS)


def test_the_model_is_left_as_it_was() -> None:
    model = chain(keras.Input((4,), dtype="uint8"), keras.layers.Rescaling(1 / 255))
    half = tf.constant([[0.5, 1.5, 2.5, 255.0]])
    before = model(half)
    with floats_kept(model):
        assert np.abs(model(half) - before).max() > 0
    np.testing.assert_array_equal(model(half), before)
