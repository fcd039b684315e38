"""Saved models that are only explained: loaded without running what they carry."""

from pathlib import Path

import keras
import numpy as np
import pytest

from hvd_xai.compute.saved_model import read_model
from hvd_xai.lookup.modules import load_objects
from tests.models_under_test import INPUT_SHAPE, functional

OWN = """
import keras


def double(inputs):
    return 2.0 * inputs


class Scaled(keras.layers.Layer):
    def call(self, inputs):
        return double(inputs)
"""


def test_a_model_gives_what_it_gave(tmp_path: Path) -> None:
    model = functional()
    model.compile("sgd", "mse")
    model.save(tmp_path / "model.keras")
    inputs = np.random.default_rng(0).random((2, *INPUT_SHAPE), np.float32)
    np.testing.assert_array_equal(read_model(tmp_path / "model.keras")(inputs), model(inputs))


def test_code_that_a_model_carries_is_not_run(tmp_path: Path) -> None:
    keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x + 1)]).save(
        tmp_path / "model.keras"
    )
    with pytest.raises(ValueError, match=r"cannot be loaded: .*[Ll]ambda"):
        read_model(tmp_path / "model.keras")


def test_classes_of_ones_own_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    objects = load_objects(str(tmp_path / "own.py"))
    assert set(objects) == {"double", "Scaled"}
    keras.Sequential([keras.Input((2,)), objects["Scaled"]()]).save(tmp_path / "model.keras")
    assert read_model(tmp_path / "model.keras", objects)(np.ones((1, 2))).numpy().tolist() == [
        [2.0, 2.0]
    ]
    with pytest.raises(ValueError, match=r"cannot be loaded: .*--custom-objects"):
        read_model(tmp_path / "model.keras")
    assert list(load_objects("collections:OrderedDict")) == ["OrderedDict"]


def test_a_layer_is_no_model(tmp_path: Path) -> None:
    layer = keras.layers.Dense(3)
    layer.build((None, 2))
    keras.saving.save_model(layer, tmp_path / "layer.keras")
    with pytest.raises(ValueError, match="it holds a Dense, and no keras"):
        read_model(tmp_path / "layer.keras")


@pytest.mark.parametrize(("name", "content"), [("model.h5", b""), ("model.keras", b"no archive")])
def test_what_is_no_model_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"is none|cannot be loaded"):
        read_model(tmp_path / name)
