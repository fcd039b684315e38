"""Writes and reads Zarr shards chunk by chunk.

The codec is `sharding_indexed` with its index at the end; chunks are encoded by blosc and crc32c.

A library of its own would do, but this code runs beside training. While zarr-python encodes a shard
of 32 MiB, it holds several copies of it and keeps the interpreter busy, which slows the training
thread. This module holds one chunk when it writes and 4 MiB when it reads, and spends nearly all
its time in blosc, which lets other threads run: benchmarks/shards.py measures it. The bytes are the
same as zarr-python's.
"""

import errno
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import numpy as np
import xxhash
from jaxtyping import Shaped
from numcodecs.blosc import BITSHUFFLE, Blosc  # type: ignore[import-untyped]  # numcodecs ships no types

from hvd_xai.storage.paths import Place, RemotePath

# Adjacent chunks are read together, up to this size: an object store answers a small request no
# faster.
_SPAN_BYTES = 4 * 2**20
# The index has this number as offset and size of a chunk that does not exist and reads as the fill
# value.
_ABSENT = np.iinfo(np.uint64).max

_blosc = Blosc(cname="lz4", clevel=5, shuffle=BITSHUFFLE, blocksize=0)


class ShardFile:
    """Writes one Zarr shard; keeps no file open between two calls.

    Args:
        path: path of the file, which must be new, in a folder that exists.
        chunk_rows: number of rows in an inner chunk.
        n_chunks: number of chunks that the shard has room for; chunks that are never appended read
            as the fill value.

    Raises:
        OSError: if the file exists, or cannot be made.
    """

    def __init__(self, path: Path, chunk_rows: int, n_chunks: int) -> None:
        self._path, self._chunk_rows = path, chunk_rows
        # Offset and size of each chunk; one that is never appended stays absent.
        self._index = np.full((n_chunks, 2), _ABSENT, "<u8")
        self._n_chunks, self._size = 0, 0
        self._digest = xxhash.xxh3_128()
        path.open("xb").close()

    @property
    def n_rows(self) -> int:
        """Number of rows that are written."""
        return self._n_chunks * self._chunk_rows

    def append(self, values: Shaped[np.ndarray, "n ..."]) -> None:
        """Appends whole chunks.

        Raises:
            OSError: if the disk is full, or somebody removed or changed the file meanwhile.
        """
        with _appending(self._path, self._size) as file:
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
        """Appends the index, and returns the file's size in bytes and its xxh3-128.

        Raises:
            OSError: if the disk is full, or somebody removed or changed the file meanwhile.
        """
        index = _with_crc32c(self._index.tobytes())
        with _appending(self._path, self._size) as file:
            file.write(index)
        self._digest.update(index)
        return self._size + len(index), self._digest.hexdigest()


@contextmanager
def _appending(path: Path, size: int) -> Iterator[BinaryIO]:
    """Opens a file of this size to write behind its end; never makes one that is gone.

    Raises:
        OSError: if the file is gone, or has another size.
    """
    # "ab" alone would make a new file where the old one was removed, without its first chunks.
    with open(path, "ab", opener=lambda name, flags: os.open(name, flags & ~os.O_CREAT)) as file:
        if file.tell() != size:
            raise OSError(errno.EIO, f"it has {file.tell()} bytes, of which {size} were written")
        yield file


def read_shard(
    path: Place, chunk_rows: int, n_chunks: int, start: int, into: Shaped[np.ndarray, "n ..."]
) -> None:
    """Fills `into` with rows of a shard, from the shard's row `start` on.

    Args:
        path: path of the shard's file.
        chunk_rows: number of rows in an inner chunk.
        n_chunks: number of chunks that the shard has room for.
        start: row of the shard that is read first.
        into: array that receives the rows.

    Raises:
        ValueError: if a checksum does not fit, or a chunk is missing.
        RuntimeError: if a chunk does not decompress.
        OSError: if the file cannot be read.
    """
    stop = start + len(into)
    with _reading(path) as read:
        for number, encoded in _chunks(read, n_chunks, start // chunk_rows, -(-stop // chunk_rows)):
            first = number * chunk_rows
            # A chunk that is wanted whole is decoded in place, and any other through a copy.
            #
            #   rows of the shard   first ... begin ....... end ... first + chunk_rows
            #   rows of `into`                begin - start .. end - start
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
    """Yields the number and encoded content of each chunk from `first` to `stop`.

    Adjacent chunks are read together.
    """
    # The index ends the file: 8 bytes for the offset and 8 for the size of each chunk, then its
    # checksum of 4.
    size = 16 * n_chunks + 4
    index = np.frombuffer(_without_crc32c(read(-size, size)), "<u8").reshape(n_chunks, 2)
    places = [(int(offset), int(size)) for offset, size in index[first:stop]]
    if (_ABSENT, _ABSENT) in places:
        raise ValueError(f"chunk {first + places.index((_ABSENT, _ABSENT))} is not there")
    number = 0
    while number < len(places):
        # Chunks `number` to `end` lie side by side: one read of `size` bytes at `begin` gets them.
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
    """Returns a `read` that refuses bytes outside the file.

    Reading allocates as much memory as is asked for, and a damaged index may ask for any amount.
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
