"""Writes and reads Zarr shards chunk by chunk.

The codec is `sharding_indexed` with its index at the end, and in it blosc and crc32c.

This is ours because it runs beside training, where the committed explanation is read again for
TensorBoard. zarr-python holds a shard of 32 MiB several times over while it encodes it, and keeps
the interpreter busy for most of that time, from which the training thread suffers. Here a chunk is
held where one is written and 4 MiB where they are read, and nearly all time goes to blosc, which
lets other threads run: benchmarks/shards.py measures it. The bytes are those of zarr-python.
"""

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import google_crc32c
import numpy as np
import xxhash
from jaxtyping import Shaped
from numcodecs.blosc import BITSHUFFLE, Blosc  # type: ignore[import-untyped]  # numcodecs ships no types

from hvd_xai.storage.paths import Place, RemotePath

# read at once, of chunks that follow each other: an object store takes as long for a small request
_SPAN_BYTES = 4 * 2**20
# as offset and size in the index: there is no such chunk, it reads as the fill value
_ABSENT = np.iinfo(np.uint64).max

_blosc = Blosc(cname="lz4", clevel=5, shuffle=BITSHUFFLE, blocksize=0)


class ShardFile:
    """A Zarr shard that is being written; between two calls no file is open.

    Args:
        path: of the file, which must be new; its folders are made.
        chunk_rows: rows of an inner chunk.
        n_chunks: how many chunks there can be; those that are never appended read as the fill
            value.
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
                encoded = _with_crc32c(
                    _blosc.encode(np.ascontiguousarray(values[start : start + self._chunk_rows]))
                )
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


def read_shard(
    path: Place, chunk_rows: int, n_chunks: int, start: int, into: Shaped[np.ndarray, "n ..."]
) -> None:
    """Reads rows of a shard, from row `start` of it on, until `into` is full.

    Raises:
        ValueError: if a checksum does not fit, or a chunk is not there.
        RuntimeError: if a chunk does not decompress.
        OSError: if the file cannot be read.
    """
    stop = start + len(into)
    with _reading(path) as read:
        for number, encoded in _chunks(read, n_chunks, start // chunk_rows, -(-stop // chunk_rows)):
            first = number * chunk_rows
            if start <= first and first + chunk_rows <= stop:
                _blosc.decode(encoded, into[first - start : first - start + chunk_rows])
            else:
                chunk = np.empty((chunk_rows, *into.shape[1:]), into.dtype)
                _blosc.decode(encoded, chunk)
                begin, end = max(start, first), min(stop, first + chunk_rows)
                into[begin - start : end - start] = chunk[begin - first : end - first]


def _chunks(
    read: Callable[[int, int], bytes], n_chunks: int, first: int, stop: int
) -> Iterator[tuple[int, bytes]]:
    """Goes through the numbers and encoded contents of chunks `first` to `stop`.

    Several chunks are read at once.
    """
    size = 16 * n_chunks + 4
    index = np.frombuffer(_without_crc32c(read(-size, size)), "<u8").reshape(n_chunks, 2)
    places = [(int(offset), int(size)) for offset, size in index[first:stop]]
    if (_ABSENT, _ABSENT) in places:
        raise ValueError(f"chunk {first + places.index((_ABSENT, _ABSENT))} is not there")
    number = 0
    while number < len(places):
        begin, size = places[number]
        end = number + 1
        while (
            end < len(places)
            and places[end][0] == begin + size
            and size + places[end][1] <= _SPAN_BYTES
        ):
            size += places[end][1]
            end += 1
        span = read(begin, size)
        for offset, length in places[number:end]:
            yield first + number, _without_crc32c(span[offset - begin : offset - begin + length])
            number += 1


@contextmanager
def _reading(path: Place) -> Iterator[Callable[[int, int], bytes]]:
    """Returns a function that reads bytes of a file: `(size, offset)`.

    A negative offset counts from the end of the file.
    """
    if isinstance(path, RemotePath):
        yield _within(path.size() or 0, path.read_range)
        return
    with path.open("rb", buffering=0) as file:
        descriptor = file.fileno()
        yield _within(
            os.fstat(descriptor).st_size, lambda offset, size: os.pread(descriptor, size, offset)
        )


def _within(n_bytes: int, read: Callable[[int, int], bytes]) -> Callable[[int, int], bytes]:
    """Limits a read to the bytes that there are.

    Memory is taken for as many bytes as are asked for, and a damaged index may ask for any number.
    """

    def checked(offset: int, size: int) -> bytes:
        offset += n_bytes if offset < 0 else 0
        if not 0 <= offset <= offset + size <= n_bytes:
            raise ValueError(f"it has no {size} bytes at {offset}")
        return read(offset, size)

    return checked


def _with_crc32c(content: bytes) -> bytes:
    return content + struct.pack("<I", google_crc32c.value(content))


def _without_crc32c(content: bytes) -> bytes:
    if len(content) < 4 or struct.unpack("<I", content[-4:])[0] != google_crc32c.value(
        content[:-4]
    ):
        raise ValueError("the checksum of a chunk, or of the index, does not fit")
    return content[:-4]
