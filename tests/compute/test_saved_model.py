"""Saved models that are only explained: loaded without running what they carry."""

import json
import os
import shlex
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


Members = dict[str, bytes]


def change_json(name: str, change: Callable[[Any], object]) -> Callable[[Members], object]:
    def changed(members: Members) -> None:
        record = json.loads(members[name])
        change(record)
        members[name] = json.dumps(record).encode()

    return changed


def cut_weights(members: Members) -> None:
    members["model.weights.h5"] = members["model.weights.h5"][:200]


def spoil_weights(members: Members) -> None:
    members["model.weights.h5"] = bytes(2000)


def widen(config: Any) -> None:
    config["config"]["layers"][-1]["config"]["units"] = 10**15


DAMAGES: dict[str, Callable[[Members], object]] = {
    "no configuration": lambda members: members.pop("config.json"),
    "no weights": lambda members: members.pop("model.weights.h5"),
    "weights cut off": cut_weights,
    "weights of zeros": spoil_weights,
    "a configuration that is no JSON": lambda members: members.update({"config.json": b"{"}),
    "a configuration that is no text": lambda members: members.update({"config.json": b"\xff"}),
    "a configuration of null": lambda members: members.update({"config.json": b"null"}),
    "a configuration of a list": lambda members: members.update({"config.json": b"[[1]]"}),
    "a configuration of brackets": lambda members: members.update({"config.json": b"[" * 200_000}),
    "a class of no module": change_json(
        "config.json", lambda config: config.update(module="no_such_package", class_name="Model")
    ),
    "a function for a class": change_json(
        "config.json", lambda config: config.update(module="builtins", class_name="print")
    ),
    "layers of null": change_json(
        "config.json", lambda config: config["config"].update(layers=None)
    ),
    "a layer of terabytes": change_json("config.json", widen),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_is_one_line_that_names_it(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]).save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    DAMAGES[damage](members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match=r"model\.keras' cannot be loaded: ") as caught:
        read_model(path)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 800


def test_a_model_that_is_encrypted_a_bomb_or_a_pipe_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", bytes(257 * 2**20))
    with pytest.raises(ValueError, match=r"its config\.json announces 269,484,032 bytes"):
        read_model(path)
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]).save(path)
    content = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(mark)
        while at >= 0:
            struct.pack_into("<H", content, at + place, 1)
            at = content.find(mark, at + 4)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.keras' cannot be loaded: .*encrypted"):
        read_model(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match="is none"):
        read_model(path)
