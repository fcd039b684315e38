"""Loads saved models that are to be explained, without Horovod."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras


def read_model(path: Path, custom_objects: Mapping[str, Any] | None = None) -> "keras.Model":
    """Loads a saved model without its optimizer, and runs no code that the file carries.

    Args:
        path: `.keras` file of the model.
        custom_objects: your own classes and functions that the model was saved with, by name.

    Raises:
        ValueError: if the path is no `.keras` file, the file needs classes that are not given, or
            it holds a Keras object that is no model.
    """
    if path.suffix != ".keras" or not path.is_file():
        raise ValueError(
            f"a model is a .keras file, as model.save('model.keras') writes it; '{path}' is none"
        )
    try:
        model = keras.saving.load_model(
            path, custom_objects=dict(custom_objects or {}), compile=False, safe_mode=True
        )
        if not isinstance(model, keras.Model):
            raise TypeError(f"it holds a {type(model).__name__}, and no keras.Model.")
    except (ValueError, TypeError, KeyError, OSError, zipfile.BadZipFile) as error:
        # Keras nests its messages and appends the whole configuration: the innermost message is the
        # one that a user can act on.
        reason = (
            str(error).rpartition("Exception encountered: ")[2].partition(" Full object config")[0]
        )
        raise ValueError(
            f"'{path}' cannot be loaded: {reason} Classes and functions of your own are given by"
            " --custom-objects."
        ) from error
    return model
