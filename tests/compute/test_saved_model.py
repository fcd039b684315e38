"""Saved models that are only explained: loaded without running what they carry."""

import shlex
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.compute.saved_model import read_model
from hvd_xai.errors import advising_command_line
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
    with pytest.raises(ValueError, match=r"cannot be loaded: .*[Ll]ambda.* add is_trusted=True"):
        read_model(tmp_path / "model.keras")
    with (
        advising_command_line(),
        pytest.raises(ValueError, match=r"[Ll]ambda.* add --unsafe-models\.$"),
    ):
        read_model(tmp_path / "model.keras")
    trusted = read_model(tmp_path / "model.keras", is_trusted=True)
    assert trusted(np.zeros((1, 2))).numpy().tolist() == [[1.0, 1.0]]


def test_classes_of_ones_own_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    objects = load_objects(str(tmp_path / "own.py"))
    assert set(objects) == {"double", "Scaled"}
    keras.Sequential([keras.Input((2,)), objects["Scaled"]()]).save(tmp_path / "model.keras")
    assert read_model(tmp_path / "model.keras", objects)(np.ones((1, 2))).numpy().tolist() == [
        [2.0, 2.0]
    ]
    with pytest.raises(ValueError, match=r"cannot be loaded: .*custom_objects="):
        read_model(tmp_path / "model.keras")
    assert list(load_objects("collections:OrderedDict")) == ["OrderedDict"]


def test_a_layer_is_no_model(tmp_path: Path) -> None:
    layer = keras.layers.Dense(3)
    layer.build((None, 2))
    keras.saving.save_model(layer, tmp_path / "layer.keras")
    with pytest.raises(ValueError, match="it holds a Dense, and no keras"):
        read_model(tmp_path / "layer.keras")


def _run_line(message: str) -> None:
    """Runs the one line of Python that a message gives, in this process."""
    words = shlex.split(message[message.index("python -c") :].partition("; then add")[0])
    exec(words[2], {})  # the line that the error tells people to run


def test_a_model_in_hdf5_is_refused_with_the_line_that_converts_it(tmp_path: Path) -> None:
    model = functional()
    keras.saving.save_model(model, tmp_path / "model.h5")
    with pytest.raises(ValueError, match="This line converts it: python -c") as error:
        read_model(tmp_path / "model.h5")
    _run_line(str(error.value))
    inputs = np.random.default_rng(0).random((2, *INPUT_SHAPE), np.float32)
    np.testing.assert_array_equal(read_model(tmp_path / "model.keras")(inputs), model(inputs))


def test_a_saved_model_is_refused_with_the_line_that_makes_a_model_of_it(tmp_path: Path) -> None:
    model = functional()
    tf.saved_model.save(model, str(tmp_path / "saved"))
    with pytest.raises(ValueError, match=r"but a SavedModel.* This line makes one of it") as error:
        read_model(tmp_path / "saved")
    _run_line(str(error.value).replace("Input(SHAPE)", f"Input({INPUT_SHAPE})"))
    inputs = np.random.default_rng(0).random((2, *INPUT_SHAPE), np.float32)
    (outputs,) = read_model(tmp_path / "saved.keras", is_trusted=True)(inputs).values()
    np.testing.assert_allclose(outputs, model(inputs), rtol=1e-6)


@pytest.mark.parametrize(("name", "content"), [("model.h5", b""), ("model.keras", b"no archive")])
def test_what_is_no_model_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"is none|cannot be loaded"):
        read_model(tmp_path / name)
