"""Reads Zarr v3 arrays of any layout; only this module knows a library for Zarr.

The library is zarr-python, or TensorStore under Python 3.10, for which there is no zarr 3. Users'
own data sets are read so, and never a committed checkpoint.
"""

from contextlib import suppress
from types import ModuleType
from typing import Protocol, runtime_checkable

import numpy as np

from hvd_xai.errors import CheckpointError
from hvd_xai.storage.arrays import DAMAGE
from hvd_xai.storage.paths import Place, RemotePath

zarr: ModuleType | None = None
with suppress(ImportError):
    import zarr  # type: ignore[no-redef]  # one name for a library that may not be there


def open_array(directory: Place) -> "Array":
    """Opens any Zarr v3 array for reading, whichever program wrote it.

    Raises:
        CheckpointError: if the folder holds no array, or its metadata is damaged.
    """
    try:
        return _open(directory)
    except DAMAGE as error:
        raise CheckpointError(f"{directory} cannot be opened as a Zarr array: {error}") from error


@runtime_checkable
class Array(Protocol):
    """The part of an array that zarr-python and TensorStore have in common."""

    shape: tuple[int, ...]
    dtype: np.dtype
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None

    def __getitem__(self, rows: slice) -> np.ndarray: ...


def _open(directory: Place) -> Array:
    """Opens an array with the Zarr library that is installed."""
    if isinstance(directory, RemotePath):
        raise CheckpointError(
            f"{directory} is an array of another program, and those are read on this disk only;"
            " copy it there"
        )
    if zarr is None:
        try:
            from hvd_xai.storage.tensorstore_array import TensorStoreArray
        except ImportError as error:
            raise ImportError(
                "Zarr arrays of others need zarr 3, or TensorStore under Python 3.10: pip install"
                " tensorstore"
            ) from error
        return TensorStoreArray(directory)
    array: Array = zarr.open_array(directory, mode="r").with_config({"order": "C"})
    return array
