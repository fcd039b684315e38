"""Score-CAM against a loop over channels."""

from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.attributions.score_cam import score_cam
from hvd_xai.compute.attribute import Compute
from tests import models_under_test as models

ROUNDING = 1e-6  # float32 sums of some ten terms, in another order


def explain(
    model: keras.Model, inputs: np.ndarray, targets: np.ndarray, **options: Any
) -> np.ndarray:
    return Compute(model, partial(score_cam, **options))(
        inputs, targets, np.arange(len(inputs))
    ).attributions


def assert_close(got: np.ndarray, want: np.ndarray) -> None:
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= ROUNDING * np.abs(want).max()


def half(inputs: tf.Tensor) -> tf.Tensor:
    return tf.fill(tf.shape(inputs), 0.5)


def first_rows(inputs: tf.Tensor) -> tf.Tensor:
    return inputs[:, :1]


def logit(outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Tells channels apart, as the probabilities of a fresh model hardly do."""
    return 10 * tf.math.log(tf.gather(outputs, targets, batch_dims=1))


def by_loop(
    model: keras.Model, layer: str, x: np.ndarray, target: int, baseline: float, n_channels: int
) -> np.ndarray:
    """Computes algorithm 1 of Wang et al., one channel at a time."""
    activations = np.asarray(keras.Model(model.inputs[0], model.get_layer(layer).output)(x[None]))[
        0
    ]
    kept = np.argsort(-activations.max(axis=(0, 1)), kind="stable")[:n_channels]
    scores = []
    for k in kept:
        mask = np.asarray(tf.image.resize(activations[..., k, None], x.shape[:2]))
        spread = mask.max() - mask.min()
        mask = (mask - mask.min()) / spread if spread > 0 else np.zeros_like(mask)
        outputs = np.asarray(model(((1 - mask) * baseline + mask * x)[None]))
        scores.append(10 * np.log(outputs[0, target]))
    weights = np.exp(np.array(scores) - max(scores))
    maps: np.ndarray = np.maximum(activations[..., kept] @ (weights / weights.sum()), 0)
    return maps


@pytest.mark.parametrize(
    "options",
    [{}, {"layer": "conv", "baseline": half, "n_channels": 3}, {"n_channels": 4, "micro_batch": 3}],
)
def test_equals_a_loop_over_channels(options: dict[str, Any]) -> None:
    model = models.functional()
    inputs, targets, _ = models.examples(3)
    layer, baseline, n_channels = (
        options.get("layer", "last_conv"),
        0.5 if "baseline" in options else 0.0,
        options.get("n_channels", 6),
    )
    want = [
        by_loop(model, layer, x, target, baseline, n_channels)
        for x, target in zip(inputs, targets, strict=True)
    ]
    got = explain(model, inputs, targets, score=logit, **options)
    assert got.shape == np.shape(want)
    # ten times a logarithm, then an exponential: ten roundings
    assert np.abs(got - want).max() <= 1e-5 * np.max(want)


def test_a_channel_that_is_the_same_everywhere_lets_nothing_through() -> None:
    inputs = keras.Input((2, 2, 1))
    conv, head = keras.layers.Conv2D(2, 1, name="conv"), keras.layers.Dense(1, use_bias=False)
    model = keras.Model(inputs, head(keras.layers.Flatten()(conv(inputs))))
    conv.set_weights([np.array([[[[1.0, 0.0]]]], np.float32), np.array([0.0, 3.0], np.float32)])
    head.set_weights([np.ones((8, 1), np.float32)])
    x = np.array([0.0, 1.0, 2.0, 4.0], np.float32).reshape(1, 2, 2, 1)
    # The first channel is x: its mask is x / 4, and lets through (0, 1/4, 1, 4), which adds 21/4 to
    # the score; the second adds 0.
    weights = np.exp([21 / 4, 0])
    want = (weights[0] * x[..., 0] + weights[1] * 3) / weights.sum()
    assert_close(explain(model, x, np.zeros(1, np.int64), layer="conv"), want)


def test_inputs_may_have_no_axis_of_channels() -> None:
    keras.utils.set_random_seed(3)
    layers = [
        keras.layers.Conv1D(4, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(2),
    ]
    with_axis = keras.Sequential([keras.Input((9, 1)), *layers])
    without = keras.Sequential([keras.Input((9,)), keras.layers.Reshape((9, 1)), *layers])
    inputs, targets = (
        np.random.default_rng(3).normal(size=(4, 9)).astype(np.float32),
        np.arange(4) % 2,
    )
    assert_close(explain(without, inputs, targets), explain(with_axis, inputs[..., None], targets))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_channels": 0}, "needs n_channels >= 1; got 0"),
        ({"baseline": first_rows}, r"a baseline has the shape of the inputs, \(42, 8, 8, 1\)"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    inputs, targets, ids = models.examples(0)
    with pytest.raises(ValueError, match=message):
        Compute(models.functional(), partial(score_cam, **options)).check(inputs, targets, ids)


def test_a_layer_of_other_axes_is_refused() -> None:
    model = keras.Sequential(
        [
            keras.Input((4, 4, 2)),
            keras.layers.Reshape((16, 2)),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    with pytest.raises(
        ValueError, match=r"inputs have shape \(None, 4, 4, 2\), and the maps \(None, 16\)"
    ):
        Compute(model, score_cam).check(np.zeros((1, 4, 4, 2), np.float32), np.zeros(1, np.int64))
