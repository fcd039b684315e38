"""Writes and reads Zarr shards chunk by chunk.

The codec is `sharding_indexed` with its index at the end; chunks are encoded by blosc and crc32c.

A library of its own would do, but this code runs beside training. While zarr-python encodes a shard
of 32 MiB, it holds several copies of it and keeps the interpreter busy, which slows the training
thread. This module holds one chunk when it writes and 4 MiB when it reads, and spends nearly all
its time in blosc, which lets other threads run: benchmarks/shards.py measures it. The bytes are the
same as zarr-python's.
"""

import errno
import math
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

# Of the header of a chunk that we wrote: the format, and lz4 and bitshuffle among the flags. The
# other two flags say that lz4 gained nothing, or that a block is not cut.
_FORMAT = (2, 1)
_FLAGS, _FREE_FLAGS = 0x24, 0x12
# Bytes that blosc and the checksum add to a chunk at most.
_MAX_OVERHEAD = 16 + 4

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
        most = chunk_rows * math.prod(into.shape[1:]) * into.itemsize + _MAX_OVERHEAD
        wanted = range(start // chunk_rows, -(-stop // chunk_rows))
        for number, encoded in _chunks(read, n_chunks, wanted, most):
            first = number * chunk_rows
            # A chunk that is wanted whole is decoded in place, and any other through a copy.
            #
            #   rows of the shard   first ... begin ....... end ... first + chunk_rows
            #   rows of `into`                begin - start .. end - start
            if start <= first and first + chunk_rows <= stop:
                _decode(encoded, into[first - start : first - start + chunk_rows])
            else:
                chunk = np.empty((chunk_rows, *into.shape[1:]), into.dtype)
                _decode(encoded, chunk)
                begin, end = max(start, first), min(stop, first + chunk_rows)
                into[begin - start : end - start] = chunk[begin - first : end - first]


def _decode(encoded: bytes, into: Shaped[np.ndarray, "n ..."]) -> None:
    """Decodes a chunk into rows, once its header fits both.

    Raises:
        ValueError: if the header is none that we wrote for these rows and so many bytes.
        RuntimeError: if the chunk does not decompress.
    """
    # blosc takes the header at its word: it would read as many bytes as that says, also behind the
    # end of the chunk, and a forged one ends the process with SIGSEGV.
    if len(encoded) < 16:
        raise ValueError("a chunk is shorter than its header")
    version, lz4_version, flags, typesize, n_bytes, block, size = struct.unpack_from(
        "<4B3I", encoded
    )
    fits = (
        (version, lz4_version) == _FORMAT
        and flags & ~_FREE_FLAGS == _FLAGS
        and typesize == into.itemsize
        and n_bytes == into.nbytes
        and 0 < block <= n_bytes
        and size == len(encoded)
    )
    if not fits:
        raise ValueError("the header of a chunk does not fit the chunk")
    _blosc.decode(encoded, into)


def _chunks(
    read: Callable[[int, int], bytes], n_chunks: int, wanted: range, most: int
) -> Iterator[tuple[int, bytes]]:
    """Yields the number and encoded content of each chunk that is wanted.

    Adjacent chunks are read together. A chunk of more than `most` bytes is refused unread.
    """
    first, stop = wanted.start, wanted.stop
    # The index ends the file: 8 bytes for the offset and 8 for the size of each chunk, then its
    # checksum of 4.
    size = 16 * n_chunks + 4
    index = np.frombuffer(_without_crc32c(read(-size, size)), "<u8").reshape(n_chunks, 2)
    places = [(int(offset), int(size)) for offset, size in index[first:stop]]
    if (_ABSENT, _ABSENT) in places:
        raise ValueError(f"chunk {first + places.index((_ABSENT, _ABSENT))} is not there")
    if any(size > most for _, size in places):
        raise ValueError(f"a chunk claims more than the {most} bytes that it can have")
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
