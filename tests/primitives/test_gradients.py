"""Gradients and integrals of them, of functions whose derivatives are known."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.primitives import gradients
from tests.attributions.functions_under_test import POINTS, functions

SQUARE, CUBE = 1, 2


def test_gradients_are_those_of_each_examples_own_score() -> None:
    got = gradients.differentiate(
        functions(), tf.constant(POINTS), tf.constant([SQUARE, CUBE]), "output"
    )
    np.testing.assert_allclose(got, [2 * POINTS[0], 3 * POINTS[1] ** 2], rtol=1e-6)


def test_a_score_without_gradient_is_refused() -> None:
    inputs = keras.Input((3,))
    counted = keras.layers.Lambda(
        lambda x: tf.cast(tf.cast(x[:, :1], tf.int32), tf.float32), output_shape=(1,)
    )
    with pytest.raises(ValueError, match="has no gradient there"):
        gradients.differentiate(
            keras.Model(inputs, counted(inputs)), tf.constant(POINTS), tf.constant([0, 0]), "output"
        )


def test_an_integral_weighs_gradients_times_velocities() -> None:
    points = np.stack([POINTS, POINTS / 2, POINTS * 0], axis=1)
    velocity, weight = np.ones_like(points) * [[[1.0], [2.0], [3.0]]], np.array([0.5, 0.25, 7.0])
    path = [tf.constant(values, tf.float32) for values in (points, velocity, weight)]
    got = gradients.integrate(
        functions(), path[0], path[1], path[2], tf.constant([SQUARE, SQUARE]), "output"
    )
    np.testing.assert_allclose(got, 0.5 * 2 * POINTS + 0.25 * 2 * POINTS, rtol=1e-6)


def test_convergence_delta_is_what_the_sum_has_too_much() -> None:
    start, inputs = POINTS / 2, tf.constant(POINTS)  # and attributions that are the inputs
    got = gradients.convergence_delta(
        functions(), inputs, inputs, tf.constant(start), tf.constant([SQUARE, CUBE]), "output"
    )
    gain = [(POINTS[0] ** 2 - start[0] ** 2).sum(), (POINTS[1] ** 3 - start[1] ** 3).sum()]
    np.testing.assert_allclose(got, POINTS.sum(axis=1) - gain, rtol=1e-6)
