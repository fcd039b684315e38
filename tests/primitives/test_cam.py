"""Class activation maps work for every rank of data, wherever the channels are.

Errors name the method.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest

from hvd_xai import scores
from hvd_xai.attributions.eigen_cam import eigen_cam
from hvd_xai.attributions.grad_cam import grad_cam
from hvd_xai.attributions.grad_cam_plus_plus import grad_cam_plus_plus
from hvd_xai.attributions.hires_cam import hires_cam
from hvd_xai.attributions.layer_cam import layer_cam
from hvd_xai.attributions.score_cam import score_cam
from hvd_xai.compute.attribute import Compute
from hvd_xai.protocols import Attribution
from tests import models_under_test as models

Cam = Callable[..., Any]
CAMS: list[Cam] = [eigen_cam, grad_cam, grad_cam_plus_plus, hires_cam, layer_cam, score_cam]
ROUNDING = 1e-6  # the same sums in another order


def explain(model: keras.Model, method: Attribution, inputs: np.ndarray) -> np.ndarray:
    return Compute(model, method)(
        inputs, np.arange(len(inputs)) % 2, np.arange(len(inputs))
    ).attributions


@pytest.mark.parametrize("method", CAMS)
@pytest.mark.parametrize(
    ("shape", "layer", "want"),
    [((7, 2), keras.layers.Conv1D, (5,)), ((5, 4, 6, 1), keras.layers.Conv3D, (3, 2, 4))],
    ids=["series", "volumes"],
)
def test_series_and_volumes_are_images_of_other_ranks(
    method: Cam, shape: tuple[int, ...], layer: type[keras.Layer], want: tuple[int, ...]
) -> None:
    keras.utils.set_random_seed(4)
    model = keras.Sequential(
        [
            keras.Input(shape),
            layer(4, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    inputs = np.random.default_rng(4).normal(size=(3, *shape)).astype(np.float32)
    maps = explain(model, method, inputs)
    assert maps.shape == (3, *want)
    assert np.abs(maps).max() > 0
    assert np.isfinite(maps).all()


@pytest.mark.parametrize("method", CAMS)
def test_channels_may_come_first_also_where_a_layer_does_not_say_so(method: Cam) -> None:
    def build(data_format: str) -> keras.Model:
        keras.utils.set_random_seed(4)
        first = data_format == "channels_first"
        return keras.Sequential(
            [
                keras.Input((2, 6, 5) if first else (6, 5, 2)),
                keras.layers.Conv2D(4, 3, data_format=data_format, name="conv"),
                keras.layers.BatchNormalization(axis=1 if first else -1),
                keras.layers.ReLU(name="relu"),
                keras.layers.GlobalAveragePooling2D(data_format=data_format),
                keras.layers.Dense(2),
            ]
        )

    last, first = build("channels_last"), build("channels_first")
    inputs = np.random.default_rng(4).normal(size=(3, 6, 5, 2)).astype(np.float32)
    for layer in ("conv", None):  # None is `relu`
        want = explain(last, partial(method, layer=layer), inputs)
        got = explain(first, partial(method, layer=layer), inputs.transpose(0, 3, 1, 2))
        assert got.shape == want.shape == (3, 4, 3)
        assert np.abs(got - want).max() <= ROUNDING * np.abs(want).max()


def test_a_layer_that_moves_axes_ends_the_search_for_channels() -> None:
    keras.utils.set_random_seed(4)
    conv = keras.layers.Conv1D(3, 2, data_format="channels_first", activation="relu")
    tail = [
        keras.layers.Permute((2, 1)),
        keras.layers.ReLU(),
        keras.layers.Flatten(),
        keras.layers.Dense(2),
    ]
    model = keras.Sequential([keras.Input((2, 6)), conv, *tail])
    assert explain(model, grad_cam, np.ones((1, 2, 6), np.float32)).shape == (1, 5)


@pytest.mark.parametrize("method", CAMS)
def test_errors_name_the_method(method: Cam) -> None:
    inputs, targets, ids = models.examples(0)
    with pytest.raises(
        ValueError, match=f"`{method.__name__}` finds no layer 'conv9' among those the model calls"
    ):
        Compute(models.functional(), partial(method, layer="conv9")).check(inputs, targets, ids)


def two_heads() -> keras.Model:
    keras.utils.set_random_seed(6)
    inputs = keras.Input((6, 5, 1))
    shared = keras.layers.Conv2D(3, 2, activation="relu", name="shared")(inputs)
    of_first = keras.layers.Conv2D(4, 2, activation="relu", name="of_first")(shared)
    of_second = keras.layers.Conv2D(2, 3, activation="relu", name="of_second")(shared)
    return keras.Model(
        inputs,
        {
            name: keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(features))
            for name, features in (("first", of_first), ("second", of_second))
        },
    )


@pytest.mark.parametrize("method", [grad_cam, score_cam])
def test_the_last_layer_is_that_of_the_head_which_is_explained(method: Cam) -> None:
    model, inputs = two_heads(), np.random.default_rng(6).normal(size=(3, 6, 5, 1))
    for head, layer in (("first", "of_first"), ("second", "of_second")):
        explained = partial(method, score=partial(scores.output, head=head))
        by_default, named = (
            explain(model, one, inputs.astype(np.float32))
            for one in (explained, partial(explained, layer=layer))
        )
        np.testing.assert_array_equal(by_default, named)
    message = (
        rf"`{method.__name__}` needs a layer that the score depends on; it does not depend on layer"
        r" 'functional\w*/of_first'\. Pass layer= one of 'shared' \(None, 5, 4, 3\), 'of_second'"
        r" \(None, 3, 2, 2\)\."
    )
    with pytest.raises(ValueError, match=message):
        explain(model, partial(explained, layer="of_first"), inputs.astype(np.float32))
