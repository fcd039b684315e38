"""Noisy copies of examples, seen through methods that return their inputs."""

from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.primitives import noisy_copies
from hvd_xai.protocols import Attributed
from tests.attributions.functions_under_test import functions

INPUTS = np.random.default_rng(0).uniform(-1, 3, (4, 500, 3)).astype(np.float32)
IDS = np.array([7, 2**40, 0, 3])
RANGES = np.ptp(INPUTS, axis=(1, 2))


def copies(
    model: keras.Model, inputs: tf.Tensor, targets: tf.Tensor, /, *, ids: tf.Tensor
) -> tf.Tensor:
    return inputs


def squares(
    model: keras.Model, inputs: tf.Tensor, targets: tf.Tensor, /, *, ids: tf.Tensor
) -> Attributed:
    return Attributed(inputs**2, {"dropped": targets})


def ids_and_targets(
    model: keras.Model, inputs: tf.Tensor, targets: tf.Tensor, /, *, ids: tf.Tensor
) -> tf.Tensor:
    return tf.cast(tf.stack([ids, targets], axis=1), tf.float32)


def given_options(
    model: keras.Model,
    inputs: tf.Tensor,
    targets: tf.Tensor,
    /,
    *,
    ids: tf.Tensor,
    score: str = "none",
    micro_batch: int = 0,
) -> tf.Tensor:
    return tf.fill([inputs.shape[0], 2], tf.constant(float(micro_batch))) * [1.0, float(len(score))]


def moments(method: Any, rows: slice | list[int] = slice(None), **options: Any) -> list[np.ndarray]:
    settings: dict[str, Any] = {
        "n_samples": 1,
        "noise": 0.1,
        "is_relative": True,
        "seed": 0,
        "score": "output",
        "micro_batch": 64,
        **options,
    }
    score, micro_batch = settings.pop("score"), settings.pop("micro_batch")
    settings["scale"] = settings.pop("noise")
    mean, variance = noisy_copies.moments(
        method,
        functions(),
        tf.constant(INPUTS[rows]),
        tf.constant(IDS[rows] % 5),
        tf.constant(IDS[rows], tf.int64),
        noisy_copies.Noise(**settings),
        score=score,
        micro_batch=micro_batch,
    )
    return [mean.attributions.numpy(), variance.numpy()]


def test_noise_is_normal_and_a_share_of_each_examples_range() -> None:
    noise = moments(copies)[0] - INPUTS
    # 1500 numbers: the standard deviation is known to 1 in sqrt(3000), the mean to 1 in sqrt(1500);
    # four times that.
    np.testing.assert_allclose(noise.std(axis=(1, 2)), 0.1 * RANGES, rtol=4 / 3000**0.5)
    assert np.all(np.abs(noise.mean(axis=(1, 2))) < 4 * 0.1 * RANGES / 1500**0.5)
    assert np.abs(np.corrcoef(noise.reshape(4, -1)) - np.eye(4)).max() < 4 / 1500**0.5


def test_noise_can_be_in_units_of_the_inputs() -> None:
    relative, absolute = moments(copies)[0] - INPUTS, moments(copies, is_relative=False)[0] - INPUTS
    np.testing.assert_allclose(absolute * RANGES[:, None, None], relative, atol=1e-5)


def test_noise_depends_on_seed_and_sample_id_alone() -> None:
    everything = moments(copies, n_samples=3)[0]
    np.testing.assert_allclose(
        moments(copies, [2, 1], n_samples=3)[0], everything[[2, 1]], rtol=1e-6
    )
    np.testing.assert_allclose(
        moments(copies, n_samples=3, micro_batch=2)[0], everything, rtol=1e-5, atol=1e-6
    )
    assert np.abs(moments(copies, n_samples=3, seed=1)[0] - everything).min(axis=(1, 2)).max() > 0


def test_mean_and_variance_are_those_of_the_copies() -> None:
    (mean, variance), (mean_square, _) = (
        moments(copies, n_samples=10),
        moments(squares, n_samples=10),
    )
    np.testing.assert_allclose(variance, mean_square - mean**2, atol=1e-5)
    np.testing.assert_allclose(variance.mean(axis=(1, 2)), (0.1 * RANGES) ** 2 * 9 / 10, rtol=0.1)


@pytest.mark.parametrize("micro_batch", [1, 3, 20, 64])
def test_chunks_make_no_difference(micro_batch: int) -> None:
    for got, want in zip(
        moments(copies, n_samples=10, micro_batch=micro_batch),
        moments(copies, n_samples=10, micro_batch=1000),
        strict=True,
    ):
        np.testing.assert_allclose(got, want, atol=1e-6)


def test_methods_get_the_ids_and_targets_of_their_example() -> None:
    mean, variance = moments(ids_and_targets, n_samples=5)
    np.testing.assert_array_equal(mean, np.stack([IDS, IDS % 5], axis=1).astype(np.float32))
    assert np.all(variance == 0)


@pytest.mark.parametrize(
    ("method", "micro_batch"), [(given_options, 64), (partial(given_options, micro_batch=5), 5)]
)
def test_methods_get_score_and_micro_batch_where_they_take_them(
    method: Any, micro_batch: int
) -> None:
    np.testing.assert_array_equal(
        moments(method, score="output")[0], np.tile([micro_batch, 6.0 * micro_batch], (4, 1))
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_samples": 0}, "at least 1; got 0"),
        ({"noise": -0.1}, "at least 0; got -0.1"),
        ({"noise": float("nan")}, "at least 0; got nan"),
        ({"micro_batch": 0}, "at least 1; got 0"),
        (
            {"method": partial(given_options, score="logit")},
            "the inner one has score='logit'. Bind it outside.",
        ),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        moments(**{"method": copies, **options})
