"""Keeps rows that wait to be merged or written, in memory or in files."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
import xxhash
from jaxtyping import Shaped, UInt64

from hvd_xai.storage.durable import writing

# Bytes of rows that are sent, or read and written, at a time.
ROUND_BYTES = 4 * 2**20
# Bytes of rows that one buffer holds in memory.
BUFFER_BYTES = 4 * 2**20
_HASH = np.dtype("<u8")
# The file with a hash of each whole row, beside the fields' files of a folder that keeps rows. No
# field can have this name.
_HASHES = ".hashes"


class RowBuffer:
    """Keeps rows in memory while they are few, and in temporary files beyond that.

    Each field has a file of its own, so that one can be read without the others. The buffer is a
    context manager, which closes the files.

    Args:
        dtype: dtype of a row, with named fields.
        memory_bytes: most bytes held in memory.
        path: folder whose files keep the rows even if the job is killed, with a hash of each row;
            the buffer then begins with the rows that the folder holds, of which `read_intact` tells
            the undamaged. None keeps nothing.

    Raises:
        CheckpointError: if the folder cannot be written.

    Example:
        >>> dtype = np.dtype([("sample_id", "<i8"), ("attributions", "<f4", (2,))])
        >>> with RowBuffer(dtype) as buffer:
        ...     buffer.append(np.zeros(3, dtype))
        ...     print(len(buffer), buffer.column("attributions", 1, 3).shape)
        3 (2, 2)
    """

    def __init__(
        self, dtype: np.dtype, memory_bytes: int = BUFFER_BYTES, path: Path | None = None
    ) -> None:
        self.dtype = dtype
        self._n_rows = 0
        self._place = path or Path(tempfile.gettempdir())
        self._files: dict[str, IO[bytes] | tempfile.SpooledTemporaryFile[bytes]] = {}
        self._hashes: IO[bytes] | None = None
        if path is None:
            # every field's file leaves memory at the same row; a file of size 0 would never leave
            rows_in_memory = memory_bytes // dtype.itemsize
            for name in dtype.names or ():
                n_bytes = max(1, rows_in_memory * dtype[name].itemsize)
                self._files[name] = tempfile.SpooledTemporaryFile(  # noqa: SIM115
                    max_size=n_bytes, prefix="hvd_xai-"
                )
        else:
            with writing(path):
                path.mkdir(parents=True, exist_ok=True)
                for name in dtype.names or ():
                    (path / name).touch()
                    self._files[name] = (path / name).open("r+b")
                (path / _HASHES).touch()
                self._hashes = (path / _HASHES).open("r+b")
            self.truncate(count_rows(path, dtype))

    def __len__(self) -> int:
        return self._n_rows

    def append(self, rows: np.ndarray) -> None:
        """Appends rows.

        Raises:
            TypeError: if the rows have another dtype.
            CheckpointError: if they cannot be written, as on a full disk; none is added then.
        """
        if rows.dtype != self.dtype:
            raise TypeError(f"the buffer holds rows of {self.dtype}; got {rows.dtype}")
        with writing(self._place):
            for name, file in self._files.items():
                # by number, not where the file stands: reading moves that, and a write that failed
                # leaves part of a row
                file.seek(self._n_rows * self.dtype[name].itemsize)
                file.write(np.ascontiguousarray(rows[name]).data)
                file.flush()
            if self._hashes is not None:
                # Last of all: a row without a hash does not count.
                self._hashes.seek(self._n_rows * _HASH.itemsize)
                self._hashes.write(_record_hashes(rows).tobytes())
                self._hashes.flush()
        self._n_rows += len(rows)

    def truncate(self, n_rows: int) -> None:
        """Drops all rows but the first `n_rows`."""
        with writing(self._place):
            for name, file in self._files.items():
                file.truncate(n_rows * self.dtype[name].itemsize)
            if self._hashes is not None:
                self._hashes.truncate(n_rows * _HASH.itemsize)
        self._n_rows = n_rows

    def read(self, start: int, stop: int, names: Sequence[str] | None = None) -> np.ndarray:
        """Returns the rows from `start` up to `stop`, with some of their fields.

        Args:
            start: number of the first row.
            stop: number of the row behind the last.
            names: names of the fields, in the order wanted; None for all.
        """
        dtype = self.dtype if names is None else select_fields(self.dtype, names)
        rows = np.empty(stop - start, dtype)
        for name in rows.dtype.names or ():
            rows[name] = self.column(name, start, stop)
        return rows

    def read_intact(self, start: int, stop: int) -> np.ndarray:
        """Returns the rows from `start` up to `stop`, or up to the first that misfits its hash.

        A machine that crashed may have kept some fields of a row and lost others.
        """
        rows = self.read(start, stop)
        if self._hashes is None:
            return rows
        self._hashes.seek(start * _HASH.itemsize)
        hashes = np.frombuffer(self._hashes.read(len(rows) * _HASH.itemsize), _HASH)
        damaged = np.flatnonzero(hashes != _record_hashes(rows))
        return rows[: damaged[0]] if len(damaged) else rows

    def column(self, name: str, start: int, stop: int) -> Shaped[np.ndarray, "n ..."]:
        """Returns one field of the rows from `start` up to `stop`."""
        field, file = self.dtype[name], self._files[name]
        # an empty range may lie anywhere, also before the first row, where no file can be read
        if start == stop:
            return np.empty((0, *field.shape), field.base)
        file.seek(start * field.itemsize)
        return np.frombuffer(file.read((stop - start) * field.itemsize), field.base).reshape(
            stop - start, *field.shape
        )

    def blocks(self, n_bytes: int = ROUND_BYTES) -> Iterator[np.ndarray]:
        """Yields all rows in order, in blocks of at most `n_bytes`, or of one row."""
        size = max(1, n_bytes // self.dtype.itemsize)
        for start in range(0, len(self), size):
            yield self.read(start, min(len(self), start + size))

    def close(self) -> None:
        """Frees memory and files. Safe to call twice."""
        for file in (*self._files.values(), *([] if self._hashes is None else [self._hashes])):
            # closing writes again what a full disk has refused; `append` has raised that already
            with suppress(OSError):
                file.close()

    def __enter__(self) -> "RowBuffer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def count_rows(path: Path, dtype: np.dtype) -> int:
    """Returns the number of rows that a buffer's folder holds whole, with every field.

    Args:
        path: folder of a `RowBuffer`.
        dtype: dtype of a row.

    Raises:
        FileNotFoundError: if there is no such buffer.
    """
    # a job that was killed may have written some fields of its last rows, and not the others
    sizes = {name: dtype[name].itemsize for name in dtype.names or ()} | {_HASHES: _HASH.itemsize}
    return min((path / name).stat().st_size // size for name, size in sizes.items())


def _record_hashes(rows: np.ndarray) -> UInt64[np.ndarray, "n"]:
    """Returns the xxh3-64 of each whole row."""
    # without the gaps between fields that a dtype may have, for nobody sets those bytes
    packed = rows.astype(select_fields(rows.dtype, rows.dtype.names or ()))
    content, size = packed.tobytes(), packed.dtype.itemsize
    hashes = (
        xxhash.xxh3_64_intdigest(content[start : start + size])
        for start in range(0, len(content), size)
    )
    return np.fromiter(hashes, _HASH, len(rows))


def select_fields(dtype: np.dtype, names: Sequence[str]) -> np.dtype:
    """Returns a dtype with some fields of another, packed, in the order of the names.

    Example:
        >>> select_fields(np.dtype([("a", "<i8"), ("b", "<f4"), ("c", "<f4")]), ["c", "a"])
        dtype([('c', '<f4'), ('a', '<i8')])
    """
    # not dtype[names], which keeps the offsets, and with them gaps in the bytes that travel
    return np.dtype([(name, dtype[name]) for name in names])
