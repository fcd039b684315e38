"""Occlusion against patches moved by hand."""

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.attributions.occlusion import occlusion
from hvd_xai.compute.attribute import Compute
from tests.games_under_test import explain, model_of, twos

ROUNDING = 1e-5  # of drops of size 1, differences of float32 sums of size 10


def windows(size: int, side: int, step: int) -> Iterator[slice]:
    start = 0
    while start + side < size:
        yield slice(start, start + side)
        start += step
    yield slice(size - side, size)


def by_hand(
    function: Any, x: np.ndarray, sides: tuple[int, ...], steps: tuple[int, ...], baseline: float
) -> np.ndarray:
    shape = x.shape[: len(sides)]
    total, times = np.zeros(shape), np.zeros(shape)
    for window in product(*(windows(*axis) for axis in zip(shape, sides, steps, strict=True))):
        covered = x.copy()
        covered[window] = baseline
        total[window] += float(function(x[None])[0]) - float(function(covered[None])[0])
        times[window] += 1
    return total / times


def curved(x: tf.Tensor) -> tf.Tensor:
    flat = tf.reshape(x, [-1, int(np.prod(x.shape[1:]))])
    weights = tf.sin(tf.range(flat.shape[1], dtype=tf.float32))
    return tf.tanh(tf.linalg.matvec(flat, weights)) + tf.reduce_sum(
        flat[:, 1:] * flat[:, :-1], axis=1
    )


@pytest.mark.parametrize(
    ("shape", "patch", "stride"),
    [
        ((7,), 1, None),
        ((10, 2), 3, 2),
        ((6, 7, 2), (3, 2), (1, 2)),
        ((6, 7, 2), (4, 3), None),
        ((3, 4, 3, 1), 2, 1),
    ],
    ids=["table", "series", "image", "image_without_overlap", "volume"],
)
def test_each_place_gets_the_mean_drop_of_the_patches_that_cover_it(
    shape: tuple[int, ...], patch: int | tuple[int, ...], stride: int | tuple[int, ...] | None
) -> None:
    n_axes = max(1, len(shape) - 1)
    sides = (patch,) * n_axes if isinstance(patch, int) else patch
    steps = sides if stride is None else (stride,) * n_axes if isinstance(stride, int) else stride
    inputs = np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32)
    attributions = explain(
        occlusion,
        model_of(curved, *shape),
        inputs,
        patch=patch,
        stride=stride,
        baseline=twos,
        micro_batch=5,
    ).attributions
    for got, x in zip(attributions, inputs, strict=True):
        np.testing.assert_allclose(got, by_hand(curved, x, sides, steps, 2.0), atol=ROUNDING)


def first_row(inputs: tf.Tensor) -> tf.Tensor:
    return inputs[:, :1]


def test_a_linear_model_gives_back_its_terms() -> None:
    weights = np.array([2.0, -3.0, 0.0, 0.5], np.float32)
    inputs = np.array([[1.0, 2.0, 3.0, -4.0]], np.float32)
    attributions = explain(
        occlusion, model_of(lambda x: tf.linalg.matvec(x, weights), 4), inputs
    ).attributions
    np.testing.assert_allclose(attributions, inputs * weights, atol=ROUNDING)
    assert attributions[0, 2] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": 9}, r"one side for each of the axes \(8, 8\)"),
        (
            {"patch": 2, "stride": 3},
            r"a stride for each side of the patch, \(2, 2\), from 1 to that side; got stride=3",
        ),
        ({"stride": 0}, "got stride=0"),
        ({"stride": (1, 1, 1)}, r"got stride=\(1, 1, 1\)"),
        ({"baseline": "black"}, "unknown baseline 'black'"),
        ({"baseline": first_row}, r"a baseline has the shape of the inputs, \(\d+, 8, 8, 1\)"),
        ({"micro_batch": 0}, "at least 1; got 0"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Compute(model_of(curved, 8, 8, 1), partial(occlusion, channels="last", **options)).check(
            np.zeros((0, 8, 8, 1), np.float32), np.zeros(0, np.int64)
        )
