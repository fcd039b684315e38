"""RISE against its expectation."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.attributions.rise import rise
from hvd_xai.compute.attribute import Compute
from tests.games_under_test import explain, model_of, twos

STANDARD_ERRORS = 5  # how far an estimate may be from its expectation


def linear(x: tf.Tensor) -> tf.Tensor:
    return tf.linalg.matvec(x, tf.constant([2.0, -3.0, 0.0, 0.5, 1.0]))


def test_a_linear_model_converges_to_the_order_of_its_terms() -> None:
    # Where masks are 0 or 1, the expectation is F(baseline) + g_j + p Σ_{k≠j} g_k, g_k what term k
    # gains.
    inputs = np.array([[1.0, 2.0, 3.0, -4.0, 0.2], [0.0, 1.0, -1.0, 6.0, 3.0]], np.float32)
    gains = (inputs - 2) * np.array([2.0, -3.0, 0.0, 0.5, 1.0])
    maps = explain(
        rise, model_of(linear, 5), inputs, n_masks=4000, probability=0.3, baseline=twos
    ).attributions
    want = 1.0 + 0.7 * gains + 0.3 * gains.sum(axis=1, keepdims=True)
    # scores are at most that, masks shown 0.3 of the time
    scale = np.sqrt((np.abs(gains).sum(axis=1, keepdims=True) + 1) ** 2 / 0.3 / 4000)
    assert np.all(np.abs(maps - want) < STANDARD_ERRORS * scale)
    for one, gain in zip(maps, gains, strict=True):
        np.testing.assert_array_equal(np.argsort(one)[[0, -1]], np.argsort(gain)[[0, -1]])


def test_every_place_is_shown_with_the_same_probability() -> None:
    # A score of 1 makes the maps the mean of the masks over its expectation: edges and corners must
    # not be dimmer.
    ids = np.arange(40)
    model = model_of(lambda x: tf.ones_like(x[:, 0, 0, 0]), 10, 13, 2)
    maps = explain(
        rise,
        model,
        np.zeros((40, 10, 13, 2), np.float32),
        ids,
        patch=(3, 4),
        n_masks=250,
        probability=0.3,
    ).attributions
    assert maps.shape == (40, 10, 13)
    error = np.sqrt(0.7 / 0.3 / (40 * 250))
    assert np.abs(maps.mean(axis=0) - 1).max() < STANDARD_ERRORS * error
    assert maps.std(axis=0).min() > 0.2 * np.sqrt(0.7 / 0.3 / 250)  # and the masks are not flat


def test_the_place_that_the_model_looks_at_stands_out() -> None:
    model = model_of(lambda x: x[:, 3, 6, 0], 8, 9, 1)
    maps = explain(
        rise, model, np.ones((3, 8, 9, 1), np.float32), patch=2, n_masks=1000, micro_batch=100
    ).attributions
    peak = np.array([np.unravel_index(one.argmax(), one.shape) for one in maps])
    assert np.all(np.abs(peak - [3, 6]) <= 1)
    np.testing.assert_array_less(maps.max(axis=(1, 2)), 1.0)
    far = maps[:, :, :3].mean()  # independent of it: half of the score
    assert abs(far - 0.5) < 0.05


@pytest.mark.parametrize("shape", [(9,), (11, 2), (5, 6, 4, 1)])
def test_masks_of_any_number_of_axes_are_between_0_and_1_and_smooth(shape: tuple[int, ...]) -> None:
    # With a single mask, the map is the mask, times its score, over the probability.
    model = model_of(lambda x: tf.ones_like(tf.reshape(x, [-1, int(np.prod(shape))])[:, 0]), *shape)
    patch = 1 if len(shape) == 1 else 4
    masks = (
        0.5
        * explain(
            rise, model, np.zeros((20, *shape), np.float32), patch=patch, n_masks=1
        ).attributions
    )
    assert masks.shape == (20, *(shape if len(shape) == 1 else shape[:-1]))
    assert masks.min() >= 0
    assert masks.max() <= 1 + 1e-6
    if len(shape) == 1:
        assert set(np.unique(masks)) == {0.0, 1.0}
    else:
        # a cell has 4 places
        assert (
            max(np.abs(np.diff(masks, axis=axis)).max() for axis in range(1, masks.ndim))
            <= 0.25 + 1e-6
        )


def test_masks_depend_on_the_seed_and_on_the_sample_id_alone() -> None:
    inputs = np.ones((4, 5), np.float32)
    compute = partial(
        explain, rise, model_of(linear, 5), inputs, np.array([8, 3, 8, 2**62]), n_masks=40
    )
    values = compute().attributions
    np.testing.assert_array_equal(values[0], values[2])
    assert len(np.unique(values[[0, 1, 3]], axis=0)) == 3
    assert np.any(compute(seed=1).attributions != values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_masks": 0}, "needs n_masks >= 1; got 0"),
        ({"probability": 0.0}, "a probability between 0 and 1; got 0.0"),
        ({"probability": 1.0}, "a probability between 0 and 1; got 1.0"),
        ({"patch": 6}, "got patch=6"),
        ({"micro_batch": 0}, "at least 1; got 0"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(
    options: dict[str, Any], message: str
) -> None:
    compute = Compute(model_of(linear, 5), partial(rise, **options))
    with pytest.raises(ValueError, match=message):
        compute.check(np.zeros((0, 5), np.float32), np.zeros(0, np.int64))
