"""Rows that wait to be merged or written."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
from jaxtyping import Shaped

from hvd_xai.storage.durable import writing

ROUND_BYTES = 4 * 2**20
BUFFER_BYTES = 4 * 2**20


class RowBuffer:
    """Rows that wait to be merged or written: in memory while they are few, in temporary files
    beyond `memory_bytes`.

    Each field has a file of its own, so that one can be read without the others. It is a context
    manager; leaving it closes them.

    Args:
        dtype: of a row, with fields.
        memory_bytes: how much is held in memory.
        path: a folder whose files keep the rows, also those of a job that is killed; the buffer
            begins with the whole rows that are in it.
    """

    def __init__(
        self, dtype: np.dtype, memory_bytes: int = BUFFER_BYTES, path: Path | None = None
    ) -> None:
        self.dtype = dtype
        self._n_rows = 0
        self._place = path or Path(tempfile.gettempdir())
        self._files: dict[str, IO[bytes] | tempfile.SpooledTemporaryFile[bytes]] = {}
        if path is None:
            in_memory = memory_bytes // dtype.itemsize
            for name in dtype.names or ():
                n_bytes = max(1, in_memory * dtype[name].itemsize)
                self._files[name] = tempfile.SpooledTemporaryFile(  # noqa: SIM115
                    max_size=n_bytes, prefix="hvd_xai-"
                )
        else:
            with writing(path):
                path.mkdir(parents=True, exist_ok=True)
                for name in dtype.names or ():
                    (path / name).touch()
                    self._files[name] = (path / name).open("r+b")
            self.truncate(count_rows(path, dtype))

    def __len__(self) -> int:
        return self._n_rows

    def append(self, rows: np.ndarray) -> None:
        """Adds rows at the end.

        Raises:
            TypeError: if they are of another dtype.
            CheckpointError: if the disk is full.
        """
        if rows.dtype != self.dtype:
            raise TypeError(f"the buffer holds rows of {self.dtype}; got {rows.dtype}")
        with writing(self._place):
            for name, file in self._files.items():
                file.seek(self._n_rows * self.dtype[name].itemsize)
                file.write(np.ascontiguousarray(rows[name]).data)
                file.flush()
        self._n_rows += len(rows)

    def truncate(self, n_rows: int) -> None:
        """Drops the rows after the first `n_rows`."""
        for name, file in self._files.items():
            file.truncate(n_rows * self.dtype[name].itemsize)
        self._n_rows = n_rows

    def read(self, start: int, stop: int, names: Sequence[str] | None = None) -> np.ndarray:
        """Returns rows `start` to `stop`, with the fields of these names, or all."""
        rows = np.empty(stop - start, self.dtype if names is None else fields_of(self.dtype, names))
        for name in rows.dtype.names or ():
            rows[name] = self.column(name, start, stop)
        return rows

    def column(self, name: str, start: int, stop: int) -> Shaped[np.ndarray, "n ..."]:
        """Returns one field of rows `start` to `stop`."""
        field, file = self.dtype[name], self._files[name]
        if start == stop:  # none of some other range
            return np.empty((0, *field.shape), field.base)
        file.seek(start * field.itemsize)
        return np.frombuffer(file.read((stop - start) * field.itemsize), field.base).reshape(
            stop - start, *field.shape
        )

    def blocks(self, n_bytes: int = ROUND_BYTES) -> Iterator[np.ndarray]:
        """Goes through all rows in blocks of `n_bytes` at most, or one row."""
        size = max(1, n_bytes // self.dtype.itemsize)
        for start in range(0, len(self), size):
            yield self.read(start, min(len(self), start + size))

    def close(self) -> None:
        """Frees memory and files. Safe to call twice."""
        for file in self._files.values():
            with suppress(OSError):  # of a write that `append` has raised already
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
    """Returns how many whole rows a buffer has in its folder: those of which every field is there.

    Raises:
        FileNotFoundError: if there is no such buffer.
    """
    return min((path / name).stat().st_size // dtype[name].itemsize for name in dtype.names or ())


def fields_of(dtype: np.dtype, names: Sequence[str]) -> np.dtype:
    """Returns a dtype of some of another's fields."""
    return np.dtype([(name, dtype[name]) for name in names])
