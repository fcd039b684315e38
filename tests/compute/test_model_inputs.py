"""What a model says of its inputs, whatever the way in which it was built."""

from typing import Any

import keras
import numpy as np
import pytest

from hvd_xai.compute.model_inputs import read_inputs
from hvd_xai.probe.dataset_format import ModelInputs


class _OfSeveral(keras.Model):  # type: ignore[misc]  # keras ships no types
    def call(self, inputs: Any) -> Any:
        arrays = inputs.values() if isinstance(inputs, dict) else inputs
        return keras.ops.concatenate(list(arrays), axis=1)


class _OfOne(keras.Model):  # type: ignore[misc]  # keras ships no types
    def call(self, inputs: Any) -> Any:
        return 2 * inputs


AGE, HISTORY = np.zeros((2, 1), np.float32), np.zeros((2, 3), np.float32)


def _functional(as_dict: bool) -> keras.Model:
    inputs = {"age": keras.Input((1,), name="age"), "history": keras.Input((3,), name="history")}
    outputs = keras.layers.Concatenate()(list(inputs.values()))
    return keras.Model(inputs if as_dict else list(inputs.values()), outputs)


def _called(model: keras.Model, inputs: Any) -> keras.Model:
    model(inputs)
    return model


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (
            keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()]),
            ModelInputs(((8, 8, 1),)),
        ),
        (_functional(as_dict=False), ModelInputs(((1,), (3,)), ("age", "history"))),
        (_functional(as_dict=True), ModelInputs(((1,), (3,)), ("age", "history"), keyed=True)),
        (_called(_OfOne(), np.zeros((2, 8, 8, 1))), ModelInputs(((8, 8, 1),))),
        (_called(_OfSeveral(), [AGE, HISTORY]), ModelInputs(((1,), (3,)), ("0", "1"))),
        (
            _called(_OfSeveral(), {"age": AGE, "history": HISTORY}),
            ModelInputs(((1,), (3,)), ("age", "history"), keyed=True),
        ),
        (_OfOne(), ModelInputs()),
    ],
)
def test_inputs_are_read_of_models_of_every_make(model: keras.Model, expected: ModelInputs) -> None:
    assert read_inputs(model) == expected
