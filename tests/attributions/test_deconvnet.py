"""Deconvolutional networks by hand.

How rectifiers are found is tested with guided backpropagation, which finds them in the same way.
"""

import keras
import numpy as np
import pytest

from hvd_xai.attributions.deconvnet import deconvnet
from hvd_xai.compute.attribute import Compute

# The same float32 kernels in another order.
ROUNDING = 1e-6


def explain(model: keras.Model, inputs: np.ndarray) -> np.ndarray:
    return Compute(model, deconvnet)(
        inputs, np.zeros(len(inputs), np.int64), np.arange(len(inputs))
    ).attributions


def test_two_layers_by_hand() -> None:
    # At (1, 1) the rectifiers' inputs are 3, -1 and 1, 5. From above, (-1, 0.5) is cut to (0, 0.5),
    # and 0.5 * (2, 8) = (1, 4) passes the first layer though its second unit is off: 1 * (1, 2) + 4
    # * (-2, 1) = (-7, 6).
    inputs = keras.Input((2,))
    hidden = keras.layers.Dense(2, "relu")(keras.layers.Dense(2, "relu", use_bias=False)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(1, use_bias=False)(hidden))
    weights = [[[1.0, -2.0], [2.0, 1.0]], [[1.0, 2.0], [4.0, 8.0]], [-2.0, -1.0], [[-1.0], [0.5]]]
    model.set_weights([np.array(weight, np.float32) for weight in weights])
    np.testing.assert_allclose(
        explain(model, np.ones((1, 2), np.float32)), [[-7.0, 6.0]], rtol=ROUNDING
    )


def test_poolings_are_undone_at_the_places_that_won_and_filters_transposed() -> None:
    # One filter (1, 2) over 1 5 2 0 gives 11 9 2; pooled in twos, 11 from the first place wins; so
    # does the filter's own place.
    inputs = keras.Input((4, 1))
    conv = keras.layers.Conv1D(1, 2, use_bias=False, activation="relu")
    pooled = keras.layers.MaxPooling1D(2)(conv(inputs))
    model = keras.Model(inputs, keras.layers.Flatten()(pooled))
    conv.set_weights([np.array([1.0, 2.0], np.float32).reshape(2, 1, 1)])
    got = explain(model, np.array([1.0, 5.0, 2.0, 0.0], np.float32).reshape(1, 4, 1))
    np.testing.assert_array_equal(got[0, :, 0], [1.0, 2.0, 0.0, 0.0])


def test_relu6_passes_on_what_is_positive_whatever_it_let_through() -> None:
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.ReLU(max_value=6), keras.layers.Dense(1, use_bias=False)]
    )
    model.set_weights([np.array([[1.0], [2.0], [3.0], [-4.0]], np.float32)])
    np.testing.assert_array_equal(
        explain(model, np.array([[-1.0, 3.0, 7.0, 1.0]], np.float32)), [[1.0, 2.0, 3.0, 0.0]]
    )


def test_a_model_without_rectifiers_is_refused() -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)], name="linear")
    with pytest.raises(
        ValueError,
        match=(
            r"`deconvnet` replaces the gradient of rectifiers .* none between the inputs of model"
            r" 'linear'"
        ),
    ):
        explain(model, np.ones((1, 3), np.float32))
