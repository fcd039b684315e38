"""Loads saved models that are to be explained, without Horovod."""

import shlex
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from hvd_xai.errors import advise

_LONGEST = 500
_LARGEST_TEXT = 256 * 2**20
"""Bytes of the largest configuration that is read: an archive of some kilobytes may hold more than
fits in memory."""

# Files by whose content other programs tell what Keras 3 does not load as a model.
_SAVED_MODEL = "saved_model.pb"
_HDF5 = (".h5", ".hdf5")


def read_model(
    path: Path, custom_objects: Mapping[str, Any] | None = None, *, is_trusted: bool = False
) -> "keras.Model":
    """Loads a saved model without its optimizer, and runs no code that the file carries.

    Args:
        path: `.keras` file of the model.
        custom_objects: your own classes and functions that the model was saved with, by name.
        is_trusted: whether code that the file carries may run after all, as that of Lambda layers.

    Raises:
        ValueError: if the path is no `.keras` file, the file needs classes that are not given or
            code that is not trusted, or it holds a Keras object that is no model.
    """
    if path.suffix != ".keras" or not path.is_file():
        raise ValueError(_not_keras(path))
    try:
        _check_texts(path)
        model = keras.saving.load_model(
            path,
            custom_objects=dict(custom_objects or {}),
            compile=False,
            safe_mode=not is_trusted,
        )
        if not isinstance(model, keras.Model):
            raise TypeError(f"it holds a {type(model).__name__}, and no keras.Model.")
    # A damaged archive, configuration or weight file ends in whatever error zipfile, Keras, h5py or
    # TensorFlow happen to run into.
    except Exception as error:
        raise ValueError(_not_loaded(path, error)) from error
    return model


def _check_texts(path: Path) -> None:
    """Checks that the texts in a model's archive, which Keras reads whole, fit in memory."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.filename.endswith(".json") and member.file_size > _LARGEST_TEXT:
                raise ValueError(f"its {member.filename} announces {member.file_size:,} bytes.")


def _not_keras(path: Path) -> str:
    """Returns the message for a path that is no `.keras` file, with the line that makes one."""
    is_none = f"a model is a .keras file, as model.save('model.keras') writes it; '{path}' is none"
    converted = repr(str(path.with_suffix(".keras")))
    if path.suffix in _HDF5 and path.is_file():
        program = (
            f"import keras; keras.models.load_model({str(path)!r}, compile=False).save({converted})"
        )
        return f"{is_none}. This line converts it: python -c {shlex.quote(program)}"
    if (path / _SAVED_MODEL).is_file():
        layer = f"keras.layers.TFSMLayer({str(path.absolute())!r}, call_endpoint='serving_default')"
        program = f"import keras; keras.Sequential([keras.Input(SHAPE), {layer}]).save({converted})"
        return (
            f"{is_none}, but a SavedModel. This line makes one of it, with the shape of one input,"
            f" such as (28, 28, 1), for SHAPE: python -c {shlex.quote(program)}; then add"
            f" {_trusting()}"
        )
    return is_none


def _not_loaded(path: Path, error: Exception) -> str:
    """Returns the message for a file that Keras does not load, with what helps."""
    # Keras nests its messages and appends the whole configuration: the innermost message is the
    # one that a user can act on.
    reason = str(error).rpartition("Exception encountered: ")[2].partition(" Full object config")[0]
    # Keras advises arguments of its own functions, which nobody calls here.
    risk, is_unsafe, _ = reason.partition(" If you trust the source")
    if is_unsafe:
        return f"'{path}' cannot be loaded: {risk} If you trust whoever made it, add {_trusting()}."
    reason = " ".join(reason.split())[:_LONGEST] or type(error).__name__
    given = advise(script="custom_objects=", command="--custom-objects")
    return (
        f"'{path}' cannot be loaded: {reason} Classes and functions of your own are given by"
        f" {given}."
    )


def _trusting() -> str:
    return advise(script="is_trusted=True", command="--unsafe-models")
