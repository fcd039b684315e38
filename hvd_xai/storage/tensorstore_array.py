"""Reads arrays with TensorStore under Python 3.10, for which there is no zarr 3.

The array reads as zarr's does in the places where we use it.
"""

from pathlib import Path

import numpy as np
import tensorstore  # type: ignore[import-not-found,unused-ignore]  # only where there is no zarr 3
from jaxtyping import Shaped


class TensorStoreArray:
    """A Zarr v3 array on this disk whose metadata is written already.

    Args:
        directory: the array's folder.

    Raises:
        ValueError: if there is no array, or its metadata is damaged.
    """

    def __init__(self, directory: Path) -> None:
        spec = {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": f"{directory.resolve()}/"},
        }
        self._store = tensorstore.open(spec, open=True, read=True, write=False).result()
        self.shape: tuple[int, ...] = tuple(self._store.shape)
        self.dtype: np.dtype = self._store.dtype.numpy_dtype
        self.shards: tuple[int, ...] | None = tuple(self._store.chunk_layout.write_chunk.shape)
        self.chunks: tuple[int, ...] = tuple(self._store.chunk_layout.read_chunk.shape)

    def __getitem__(self, rows: slice) -> Shaped[np.ndarray, "n ..."]:
        values: np.ndarray = self._store[rows].read().result()
        return values
