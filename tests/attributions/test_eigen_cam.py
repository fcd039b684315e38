"""Eigen-CAM against NumPy's singular value decomposition."""

from functools import partial
from typing import Any

import keras
import numpy as np
import pytest

from hvd_xai.attributions.eigen_cam import eigen_cam
from hvd_xai.compute.attribute import Compute

ROUNDING = 1e-6  # float32 sums of some ten terms, in another order


def explain(
    model: keras.Model, inputs: np.ndarray, targets: np.ndarray, **options: Any
) -> np.ndarray:
    return Compute(model, partial(eigen_cam, **options))(
        inputs, targets, np.arange(len(inputs))
    ).attributions


def assert_close(got: np.ndarray, want: np.ndarray) -> None:
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= ROUNDING * np.abs(want).max()


def passing(shape: tuple[int, ...]) -> keras.Model:
    """Returns a model whose last spatial layer returns its inputs."""
    return keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Activation("linear"),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )


def by_svd(activations: np.ndarray) -> np.ndarray:
    matrix = activations.astype(np.float64).reshape(-1, activations.shape[-1])
    projected: np.ndarray = matrix @ np.linalg.svd(matrix)[2][0]
    return (projected if projected.sum() >= 0 else -projected).reshape(activations.shape[:-1])


@pytest.mark.parametrize(
    "shape", [(4, 5, 3), (3, 2, 9)], ids=["more places than channels", "more channels than places"]
)
def test_equals_numpys_decomposition(shape: tuple[int, ...]) -> None:
    inputs = np.random.default_rng(1).normal(0.5, 1, (6, *shape)).astype(np.float32)
    inputs[4], inputs[5] = 0, np.nan
    maps = explain(passing(shape), inputs, np.zeros(6, np.int64))
    for got, activations in zip(maps[:4], inputs[:4], strict=True):
        assert_close(got, by_svd(activations))
        assert got.sum() > 0
    np.testing.assert_array_equal(maps[4], 0)
    assert np.isnan(maps[5]).all()  # and the examples beside it are as they were


def test_all_targets_get_the_same_map() -> None:
    inputs = np.repeat(
        np.random.default_rng(1).uniform(size=(1, 4, 4, 2)).astype(np.float32), 2, axis=0
    )
    maps = explain(passing((4, 4, 2)), inputs, np.array([0, 1]))
    np.testing.assert_array_equal(maps[0], maps[1])
    assert maps.min() > 0  # no activation is negative
