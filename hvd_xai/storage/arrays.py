"""Streams Zarr v3 arrays of one layout along their first axis, without a library for Zarr.

This module writes metadata and Zarr shards (`hvd_xai.storage.shards`) itself, as the specification
says, so that a checkpoint's bytes do not change with a library's version: `sharding_indexed`, inner
chunks of one row or 16 KiB, blosc (lz4, bitshuffle) and crc32c. It reads such arrays, on this disk
or elsewhere, and no others: whoever forges a checkpoint must not choose what decodes it.
`hvd_xai.storage.foreign_arrays` reads the arrays of others.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from hvd_xai.errors import CheckpointError
from hvd_xai.protocols import Json
from hvd_xai.storage.durable import FileEntry, digest_file
from hvd_xai.storage.paths import Place, size_of_file
from hvd_xai.storage.shards import ShardFile, read_shard

METADATA = "zarr.json"
CHUNK_BYTES = 16 * 2**10
SHARD_BYTES = 32 * 2**20
SHARD_ROWS = 2**17
"""Largest number of rows in a Zarr shard. It bounds the buffer of an array with one number a row to
1 MiB."""

MAX_CHUNK_BYTES = 4 * 2**20
"""Largest size of a chunk of several rows that is read. Ours are smaller by far; a forged one could
be as large as the array."""

_MAX_METADATA_BYTES = 2**20

DAMAGE = (
    ValueError,
    RuntimeError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    MemoryError,
    OSError,
)
"""Errors as which a damaged Zarr shard surfaces: of the checksum, the index or the decompressor."""


def layout(n_rows: int, row_bytes: int) -> tuple[int, int]:
    """Returns the number of rows in an inner chunk and in a Zarr shard.

    Both follow from the size of the array alone, so that no batch size shows on disk. A chunk has
    16 KiB at most, or one row; a shard has 16 to 32 MiB, or 131,072 rows. Both numbers are powers
    of two where the array has enough rows.
    """
    chunk = min(n_rows, _power_of_two(CHUNK_BYTES // row_bytes))
    shard = min(SHARD_ROWS, _power_of_two(SHARD_BYTES // row_bytes))
    return chunk, min(shard, math.ceil(n_rows / chunk) * chunk)


def shard_rows(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Returns the number of rows in a Zarr shard of an array of this shape and dtype."""
    return layout(shape[0], _row_bytes(shape, dtype))[1]


def _row_bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    return dtype.itemsize * math.prod(shape[1:])


def _power_of_two(limit: int) -> int:
    """Returns the largest power of two up to `limit`, at least 1."""
    return 1 << (max(1, limit).bit_length() - 1)


def group_metadata(attributes: Mapping[str, Json]) -> bytes:
    """Returns the content of a Zarr group's `zarr.json`."""
    return _as_text({"zarr_format": 3, "node_type": "group", "attributes": attributes})


def shard_key(name: str, index: int, ndim: int) -> str:
    """Returns the path of an array's Zarr shard, relative to the array's parent folder."""
    return "/".join([name, "c", str(index), *["0"] * (ndim - 1)])


def create_array(
    directory: Path,
    shape: tuple[int, ...],
    dtype: np.dtype,
    dimension_names: tuple[str, ...],
    attributes: Mapping[str, Json] | None = None,
) -> FileEntry:
    """Creates an array without values: its folder and its metadata.

    Args:
        directory: folder to make for the array; its name becomes the array's name.
        shape: shape of the whole array; its first axis is rows, of which there is at least one.
        dtype: dtype of the values.
        dimension_names: names of the axes.
        attributes: attributes that readers of the array see.

    Returns:
        The metadata file, with a name relative to the array's parent folder.
    """
    chunk, shard = layout(shape[0], _row_bytes(shape, dtype))
    directory.mkdir()
    (directory / METADATA).write_bytes(
        _as_text(_metadata(shape, dtype, chunk, shard, dimension_names, attributes or {}))
    )
    return FileEntry(f"{directory.name}/{METADATA}", *digest_file(directory / METADATA))


class ArrayWriter:
    """Streams rows into an array that `create_array` made, and holds back less than a chunk.

    Several writers, in one process or in many, may fill one array if each fills its own Zarr
    shards.

    Args:
        directory: folder of the array.
        shape: shape of the whole array.
        dtype: dtype of the values.
        first: index of the first row to be appended; a Zarr shard must begin there.

    Appending and closing raise `OSError` if the array's folder, or a file in it, is gone.
    """

    def __init__(
        self, directory: Path, shape: tuple[int, ...], dtype: np.dtype, *, first: int = 0
    ) -> None:
        self._directory, self._shape, self._dtype = directory, shape, dtype
        self._chunk_rows, self._shard_rows = layout(shape[0], _row_bytes(shape, dtype))
        self._files: list[FileEntry] = []
        self._next = first // self._shard_rows
        self._shard: ShardFile | None = None
        self._rest = np.empty((0, *shape[1:]), dtype)

    def append(self, values: Shaped[np.ndarray, "n ..."]) -> None:
        """Appends rows, and writes every chunk that they complete."""
        # | rest | missing |  whole chunks  | new rest |
        #         <---------- values ---------------->
        missing = -len(self._rest) % self._chunk_rows
        self._rest = np.concatenate([self._rest, values[:missing]])
        if len(self._rest) == self._chunk_rows:
            self._write(self._rest)
            self._rest = self._rest[:0]
        if len(self._rest) == 0:
            values = values[missing:]
            n_whole = len(values) // self._chunk_rows * self._chunk_rows
            self._write(values[:n_whole])
            self._rest = values[n_whole:].copy()

    def close(self) -> list[FileEntry]:
        """Writes the rows that were held back, and returns the files of the Zarr shards.

        The files have names relative to the array's parent folder.
        """
        if len(self._rest):
            # Zarr stores whole chunks only; the rows past the array's end are fill values.
            chunk = np.full(
                (self._chunk_rows, *self._shape[1:]), _fill_value(self._dtype), self._dtype
            )
            chunk[: len(self._rest)] = self._rest
            self._write(chunk)
        if self._shard is not None:
            self._end_shard(self._shard)
        return self._files

    def _write(self, values: Shaped[np.ndarray, "n ..."]) -> None:
        while len(values):
            if self._shard is None:
                self._shard = ShardFile(
                    self._make_place(), self._chunk_rows, self._shard_rows // self._chunk_rows
                )
            taken = values[: self._shard_rows - self._shard.n_rows]
            self._shard.append(taken)
            values = values[len(taken) :]
            if self._shard.n_rows == self._shard_rows:
                self._end_shard(self._shard)

    def _end_shard(self, shard: ShardFile) -> None:
        self._files.append(FileEntry(self._key(), *shard.close()))
        self._next += 1
        self._shard = None

    def _make_place(self) -> Path:
        """Makes the folders of the next Zarr shard within the array's; returns the shard's path."""
        path = self._directory.parent / self._key()
        # Never the array's own folder, nor one above it: where those are gone, so is the rest of
        # the checkpoint, and a new folder would hide it.
        within = len(path.parent.relative_to(self._directory).parts)
        for folder in [path.parent, *path.parent.parents][:within][::-1]:
            folder.mkdir(exist_ok=True)
        return path

    def _key(self) -> str:
        return shard_key(self._directory.name, self._next, len(self._shape))


class ArrayReader:
    """Reads rows of an array that `create_array` laid out, chunk by chunk; refuses all others.

    Args:
        directory: folder of the array.
        shape: shape that the array must have.
        dtype: dtype that the array must have.

    Attributes:
        shard_rows: number of rows in a Zarr shard.

    Raises:
        CheckpointError: if the folder holds no such array.
    """

    def __init__(self, directory: Place, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._directory, self._shape, self._dtype = directory, shape, dtype
        self._chunk_rows, self.shard_rows = _read_layout(directory, shape, dtype)

    def read(self, start: int, stop: int) -> Shaped[np.ndarray, "n ..."]:
        """Returns rows `start` to `stop`, which the array must have.

        Raises:
            CheckpointError: if a checksum does not fit, or the bytes do not decode.
        """
        try:
            return self._read(start, stop)
        except DAMAGE as error:
            raise CheckpointError(
                f"rows {start} to {stop} of {self._directory} are damaged: {error}"
            ) from error

    def _read(self, start: int, stop: int) -> Shaped[np.ndarray, "n ..."]:
        values = np.empty((stop - start, *self._shape[1:]), self._dtype)
        n_chunks = self.shard_rows // self._chunk_rows
        # Shard `index` holds the rows from `first` on, of which `begin` to `end` are wanted. All of
        # them count from the start of the array: minus `first` they count from the start of the
        # shard, and minus `start` from the start of `values`.
        for index in range(start // self.shard_rows, -(-stop // self.shard_rows)):
            first = index * self.shard_rows
            begin, end = max(start, first), min(stop, first + self.shard_rows)
            path = self._directory.parent / shard_key(self._directory.name, index, len(self._shape))
            read_shard(
                path, self._chunk_rows, n_chunks, begin - first, values[begin - start : end - start]
            )
        return values


def _read_layout(directory: Place, shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, int]:
    """Returns the number of rows in a chunk and in a Zarr shard, as an array's metadata say.

    These may be those of another version. All else must be as `create_array` writes it: codecs,
    names of files, dtype and fill value; names of axes and attributes may differ.

    Raises:
        CheckpointError: if the folder holds no such array.
    """
    found = _read_metadata(directory / METADATA)
    if (found.get("shape"), found.get("data_type")) != ([*shape], dtype.name):
        got = f"{found.get('shape')!r:.80} and {found.get('data_type')!r:.80}"
        raise CheckpointError(
            f"{directory} must have shape {shape} and dtype {dtype.name}; got {got}"
        )
    chunk, shard = (_rows_of(found, path) for path in _CHUNK_SHAPES)
    row_bytes = _row_bytes(shape, dtype)
    # The last Zarr shard may reach behind the last row, but holds no chunk without a row.
    is_sane = (
        1 <= chunk <= min(shape[0], max(1, MAX_CHUNK_BYTES // row_bytes))
        and shard % chunk == 0
        and chunk <= shard < shape[0] + chunk
    )
    ours = json.loads(_as_text(_metadata(shape, dtype, chunk, shard, (), {})))
    free = {"dimension_names", "attributes"}
    differing = sorted(
        name for name in {*ours, *found} - free if found.get(name) != ours.get(name)
    ) + ([] if is_sane else ["chunk_grid"])
    if differing:
        raise CheckpointError(
            f"{directory} is laid out otherwise than hvd_xai lays out arrays, in"
            f" {', '.join(map(repr, differing)):.200}. Another program wrote it, or it was changed;"
            " it is not read."
        )
    return chunk, shard


# Where the metadata of an array say the shapes of a chunk and of a Zarr shard.
_CHUNK_SHAPES = (("codecs", 0), ("chunk_grid",))


def _rows_of(metadata: dict[str, Any], path: tuple[str | int, ...]) -> int:
    """Returns the number of rows in a shape of chunks; 0 if the metadata do not say it."""
    try:
        there: Any = metadata
        for key in path:
            there = there[key]
        rows = there["configuration"]["chunk_shape"][0]
    except (KeyError, IndexError, TypeError):
        return 0
    return rows if type(rows) is int else 0


def _read_metadata(path: Place) -> dict[str, Any]:
    """Reads an array's metadata, up to a size that none of ours has.

    Raises:
        CheckpointError: if there are none, or they are no JSON object.
    """
    try:
        # Looked at before it is opened: opening a pipe would wait for a writer.
        if size_of_file(path) is None:
            raise ValueError("it is no plain file")
        with path.open("rb") as file:
            text: bytes = file.read(_MAX_METADATA_BYTES + 1)
        if len(text) > _MAX_METADATA_BYTES:
            raise ValueError(f"it has more than {_MAX_METADATA_BYTES} bytes")
        found = json.loads(text)
        if not isinstance(found, dict) or found.get("node_type") != "array":
            raise ValueError("it is not the metadata of an array")
    except (*DAMAGE, RecursionError) as error:
        raise CheckpointError(f"{path.parent} cannot be opened as a Zarr array: {error}") from error
    return found


def _metadata(
    shape: tuple[int, ...],
    dtype: np.dtype,
    chunk: int,
    shard: int,
    dimension_names: tuple[str, ...],
    attributes: Mapping[str, Json],
) -> dict[str, Json]:
    """Returns an array's metadata in the form of the Zarr v3 specification and of its codecs."""
    little: Json = {"name": "bytes", "configuration": {"endian": "little"}}
    blosc: Json = {
        "name": "blosc",
        "configuration": {
            "cname": "lz4",
            "clevel": 5,
            "shuffle": "bitshuffle",
            "typesize": dtype.itemsize,
            "blocksize": 0,
        },
    }
    sharding: Json = {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": [chunk, *shape[1:]],
            "codecs": [little, blosc, {"name": "crc32c"}],
            "index_codecs": [little, {"name": "crc32c"}],
            "index_location": "end",
        },
    }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [shard, *shape[1:]]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": "NaN" if dtype.kind == "f" else _fill_value(dtype),
        "codecs": [sharding],
        "dimension_names": dimension_names,
        "attributes": attributes,
        "storage_transformers": [],
    }


def _fill_value(dtype: np.dtype) -> float | bool | int:
    """Returns the value that an array has where nothing was written."""
    return np.nan if dtype.kind == "f" else False if dtype.kind == "b" else 0


def _as_text(metadata: Mapping[str, Json]) -> bytes:
    return (json.dumps(metadata, indent=1) + "\n").encode()
