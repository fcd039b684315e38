"""TensorStore where there is no zarr 3 for the Python that runs, which is 3.10: an array that behaves as zarr's does where we use it."""

import os
import re
from pathlib import Path

import numpy as np
import tensorstore  # type: ignore[import-not-found,unused-ignore]  # only where there is no zarr 3
from jaxtyping import Shaped


class TensorStoreArray:
    """A Zarr v3 array on this disk whose metadata is written already.

    Args:
        directory: the array's folder.
        writable: whether rows can be assigned.

    Raises:
        ValueError: if there is no array, or its metadata is damaged.
    """

    def __init__(self, directory: Path, *, writable: bool) -> None:
        spec = {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": f"{directory.resolve()}/", "file_io_sync": False},  # the commit does it, for all at once
            "store_data_equal_to_fill_value": True,
        }
        self._store = tensorstore.open(spec, open=True, read=True, write=writable).result()
        self.shape: tuple[int, ...] = tuple(self._store.shape)
        self.dtype: np.dtype = self._store.dtype.numpy_dtype
        self.shards: tuple[int, ...] | None = tuple(self._store.chunk_layout.write_chunk.shape)
        self.chunks: tuple[int, ...] = tuple(self._store.chunk_layout.read_chunk.shape)

    def __getitem__(self, rows: slice) -> Shaped[np.ndarray, "n ..."]:
        values: np.ndarray = self._store[rows].read().result()
        return values

    def __setitem__(self, rows: slice, values: Shaped[np.ndarray, "n ..."]) -> None:
        try:
            self._store[rows].write(values).result()
        except ValueError as error:
            # The system's error is in the text alone: "[OS error 28: ENOSPC No space left on device]".
            code = re.search(r"OS error (\d+)", str(error))
            if code is None:
                raise
            raise OSError(int(code[1]), os.strerror(int(code[1]))) from error
