"""Writes a Zarr shard chunk by chunk: the codec `sharding_indexed` with its index at the end, and in it blosc and crc32c.

It is ours because it runs beside training. zarr-python holds a shard of 32 MiB several times over while it encodes it, and keeps the
interpreter busy for most of that time, from which the training thread suffers; here nothing larger than what is appended is held, and
nearly all time goes to blosc, which lets other threads run. benchmarks/checkpoint.py measures both. The bytes are the same.
"""

import struct
from pathlib import Path

import google_crc32c
import numpy as np
import xxhash
from jaxtyping import Shaped
from numcodecs.blosc import BITSHUFFLE, Blosc  # type: ignore[import-untyped]  # numcodecs ships no types

_ABSENT = np.iinfo(np.uint64).max  # as offset and size in the index: there is no such chunk, it reads as the fill value

_blosc = Blosc(cname="lz4", clevel=5, shuffle=BITSHUFFLE, blocksize=0)


class ShardFile:
    """A Zarr shard that is being written; between two calls no file is open.

    Args:
        path: of the file, which must be new; its folders are made.
        chunk_rows: rows of an inner chunk.
        n_chunks: how many chunks there can be; those that are never appended read as the fill value.
    """

    def __init__(self, path: Path, chunk_rows: int, n_chunks: int) -> None:
        self._path, self._chunk_rows = path, chunk_rows
        self._index = np.full((n_chunks, 2), _ABSENT, "<u8")  # offset and size of each chunk
        self._n_chunks, self._size = 0, 0
        self._digest = xxhash.xxh3_128()
        path.parent.mkdir(parents=True, exist_ok=True)

    @property
    def n_rows(self) -> int:
        """How many rows are written."""
        return self._n_chunks * self._chunk_rows

    def append(self, values: Shaped[np.ndarray, "n ..."]) -> None:
        """Writes whole chunks after those before.

        Raises:
            OSError: if the disk is full.
        """
        with self._path.open("ab") as file:
            for start in range(0, len(values), self._chunk_rows):
                encoded = _with_crc32c(_blosc.encode(np.ascontiguousarray(values[start : start + self._chunk_rows])))
                file.write(encoded)
                self._digest.update(encoded)
                self._index[self._n_chunks] = self._size, len(encoded)
                self._n_chunks += 1
                self._size += len(encoded)

    def close(self) -> tuple[int, str]:
        """Ends the shard with its index, and returns the file's size in bytes and its xxh3-128.

        Raises:
            OSError: if the disk is full.
        """
        index = _with_crc32c(self._index.tobytes())
        with self._path.open("ab") as file:
            file.write(index)
        self._digest.update(index)
        return self._size + len(index), self._digest.hexdigest()


def _with_crc32c(content: bytes) -> bytes:
    return content + struct.pack("<I", google_crc32c.value(content))
