"""Baselines are where paths start."""

import inspect
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai import baselines
from hvd_xai.protocols import Baseline

RANDOM = np.random.default_rng(0)
TABLE = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])


def test_zero_is_zero_of_the_same_shape() -> None:
    np.testing.assert_array_equal(baselines.zero(tf.ones((2, 3))), np.zeros((2, 3)))


def test_names_and_functions_resolve() -> None:
    assert baselines.resolve("zero") is baselines.zero
    assert baselines.resolve(baselines.zero) is baselines.zero
    with pytest.raises(
        ValueError,
        match=(
            r"unknown baseline 'grey'; pass baseline= one of 'zero', 'constant', .*, or a function"
        ),
    ):
        baselines.resolve("grey")
    with pytest.raises(
        ValueError,
        match=(
            r"needs the data: pass baseline=functools.partial\(hvd_xai.baselines.samples,"
            r" data=...\)"
        ),
    ):
        baselines.resolve("samples")


@pytest.mark.parametrize("value", [0, None, np.zeros((8, 8, 3))])
def test_a_value_for_a_baseline_is_refused_with_the_baseline_to_take(value: object) -> None:
    resolve = inspect.unwrap(baselines.resolve)  # as it is where no types are checked at run time
    with pytest.raises(
        TypeError,
        match=(
            rf"a function of the inputs; got {type(value).__name__}\. For a value"
            r" .*baselines\.constant"
        ),
    ):
        resolve(value)


def test_constant_is_a_value_or_a_colour() -> None:
    inputs = tf.zeros((2, 4, 4, 3))
    np.testing.assert_array_equal(baselines.constant(inputs, value=2.0), np.full((2, 4, 4, 3), 2))
    np.testing.assert_array_equal(
        baselines.constant(inputs, value=np.array([1, 2, 3]))[1, 3, 3], [1, 2, 3]
    )
    with pytest.raises(
        ValueError, match=r"must broadcast to an example's shape \(4, 4, 3\); got \(4,\)"
    ):
        baselines.constant(inputs, value=np.arange(4))


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((2, 5), (1,)), ((2, 5, 3), (1,)), ((2, 4, 5, 3), (1, 2)), ((2, 2, 4, 5, 3), (1, 2, 3))],
)
def test_mean_is_each_examples_own(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    inputs = RANDOM.normal(size=shape).astype(np.float32)
    got = baselines.mean(tf.constant(inputs), channels="last").numpy()
    np.testing.assert_allclose(
        got, np.broadcast_to(inputs.mean(axis=axes, keepdims=True), shape), atol=1e-6
    )


def test_blurred_is_a_gaussian_mean_of_neighbours() -> None:
    impulse = np.zeros((1, 31, 2), np.float32)
    impulse[0, 15, 0] = 1
    got = baselines.blurred(tf.constant(impulse), sigma=2.0, channels="last").numpy()
    gaussian = np.exp(-((np.arange(31) - 15) ** 2) / 8)
    # cut off at 4 sigma: 6e-5 is beyond
    np.testing.assert_allclose(got[0, 7:24, 0], (gaussian / gaussian.sum())[7:24], atol=1e-4)
    np.testing.assert_array_equal(got[0, :, 1], np.zeros(31))


@pytest.mark.parametrize("shape", [(2, 9, 3), (2, 6, 9, 3), (2, 4, 6, 9, 3)])
def test_blurred_keeps_what_is_of_one_colour_and_the_order_of_axes(shape: tuple[int, ...]) -> None:
    blurred = partial(baselines.blurred, channels="last")
    colours = np.broadcast_to(
        np.arange(6.0, dtype=np.float32).reshape(2, *[1] * (len(shape) - 2), 3), shape
    )
    np.testing.assert_allclose(blurred(tf.constant(colours), sigma=3.0), colours, rtol=1e-6)
    images = RANDOM.normal(size=shape).astype(np.float32)
    np.testing.assert_allclose(blurred(tf.constant(images), sigma=0.1), images, atol=1e-6)
    smooth = blurred(tf.constant(images), sigma=1000.0).numpy()
    np.testing.assert_allclose(
        smooth, baselines.mean(tf.constant(images), channels="last"), atol=1e-4
    )


def test_uniform_is_seeded_by_sample_id() -> None:
    inputs, ids = tf.zeros((3, 40, 2)), tf.constant([7, 8, 9], tf.int64)
    noise = baselines.uniform(inputs, ids=ids, low=-1.0, high=3.0, n_references=2).numpy()
    assert noise.shape == (2, 3, 40, 2)
    assert noise.min() >= -1
    assert noise.max() < 3
    assert abs(noise.mean() - 1) < 4 * (4 / 12**0.5) / 480**0.5  # four standard errors of a mean
    np.testing.assert_array_equal(
        baselines.uniform(inputs[:1], ids=ids[1:2], low=-1.0, high=3.0, n_references=2)[:, 0],
        noise[:, 1],
    )
    assert np.all(baselines.uniform(inputs, ids=ids, seed=1) != baselines.uniform(inputs, ids=ids))


def test_references_are_one_or_several_of_each_input() -> None:
    inputs, ids = tf.ones((3, 2)), tf.range(3, dtype=tf.int64)
    data = np.arange(10.0).reshape(5, 2)
    shapes = {"zero": (1, 3, 2), "black_and_white": (2, 3, 2), "uniform": (1, 3, 2)}
    assert {
        name: tuple(baselines.references(name, TABLE, inputs, ids).shape) for name in shapes
    } == shapes
    got = baselines.references(partial(baselines.samples, data=data), TABLE, inputs, ids)
    np.testing.assert_array_equal(got[:, 0], data)
    np.testing.assert_array_equal(
        baselines.references("black_and_white", TABLE, inputs, ids)[:, 0], [[0, 0], [1, 1]]
    )


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        (
            partial(baselines.samples, data=np.zeros((5, 3))),
            r"needs data of shape \(b, 2\); got \(5, 3\)",
        ),
        (
            partial(baselines.samples, data=np.zeros((0, 2))),
            r"needs data of shape \(b, 2\); got \(0, 2\)",
        ),
        (partial(baselines.uniform, low=1.0, high=1.0), "needs n_references >= 1 and low < high"),
        ("blurred", "needs inputs with places"),
    ],
)
def test_baselines_that_do_not_fit_are_refused(baseline: str | Baseline, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        baselines.references(baseline, TABLE, tf.ones((3, 2)), tf.range(3, dtype=tf.int64))
