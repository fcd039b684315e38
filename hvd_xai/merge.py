"""Brings the rows of all ranks together at the root, in order, in bounded memory.

Each rank spools the rows of its shard while it computes them. Once all ranks have agreed that theirs are there, the rows travel in rounds:
a round is a fixed range of the merged rows, of some megabytes, so that the root holds one round however many ranks and rows there are.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

from hvd_xai.world import World

ROUND_BYTES = 16 * 2**20
SPOOL_BYTES = 64 * 2**20


class Spool:
    """Rows of this rank that wait to be merged: in memory while they are few, in a temporary file beyond `memory_bytes`.

    It is a context manager; leaving it frees the memory or the file.

    Args:
        dtype: of a row.
        memory_bytes: how much is held in memory.
        path: a file that keeps the rows when the block ends, and whose rows, if it exists, are those that the spool begins with.
    """

    def __init__(self, dtype: np.dtype, memory_bytes: int = SPOOL_BYTES, path: Path | None = None) -> None:
        self.dtype = dtype
        self._n_rows = 0
        self._file: IO[bytes] | tempfile.SpooledTemporaryFile[bytes]
        if path is None:
            self._file = tempfile.SpooledTemporaryFile(max_size=memory_bytes, prefix="hvd_xai-")  # noqa: SIM115 - closed when the block ends
        else:
            path.touch()
            self._file = path.open("r+b", buffering=0)
            self._n_rows = path.stat().st_size // dtype.itemsize

    def __len__(self) -> int:
        return self._n_rows

    def append(self, rows: np.ndarray) -> None:
        """Adds rows at the end.

        Raises:
            TypeError: if they are of another dtype.
            OSError: if the disk of the temporary folder is full.
        """
        if rows.dtype != self.dtype:
            raise TypeError(f"the spool holds rows of {self.dtype}; got {rows.dtype}")
        self._file.seek(self._n_rows * self.dtype.itemsize)
        self._file.write(rows.tobytes())
        self._n_rows += len(rows)

    def truncate(self, n_rows: int) -> None:
        """Drops the rows after the first `n_rows`."""
        self._file.truncate(n_rows * self.dtype.itemsize)
        self._n_rows = n_rows

    def read(self, start: int, stop: int) -> np.ndarray:
        """Returns rows `start` to `stop`."""
        self._file.seek(start * self.dtype.itemsize)
        return np.frombuffer(self._file.read((stop - start) * self.dtype.itemsize), self.dtype)

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()


def merge(world: World, spool: Spool, write: Callable[[np.ndarray], None], *, round_bytes: int = ROUND_BYTES) -> None:
    """Hands the rows of all ranks, in the order of ranks, to `write` on the root. Collective: every rank must call this.

    Args:
        world: the ranks.
        spool: this rank's rows, which may be none; all ranks' are of one dtype.
        write: called on the root only, once a round, with at most `round_bytes` of rows.
        round_bytes: how much the root receives at a time.

    Raises:
        PeerError: on every rank, if `write` or a spool failed, or the ranks' rows differ in dtype. Nothing hangs: the rounds go on without
            effect to their end.
    """
    phase = "merging rows"
    theirs = world.allgather(phase, [len(spool), str(spool.dtype.descr)])
    kinds = [str(entry[1]) for entry in theirs if isinstance(entry, list)]
    counts = [int(str(entry[0])) for entry in theirs if isinstance(entry, list)]
    odd = next((rank for rank, kind in enumerate(kinds) if kind != kinds[0]), None)
    differ = None if odd is None else TypeError(f"the ranks' rows differ: rank 0 has {kinds[0]}, rank {odd} has {kinds[odd]}")
    world.agree(phase, differ)

    starts = np.concatenate([[0], np.cumsum(counts)])
    per_round = max(1, round_bytes // spool.dtype.itemsize)
    error: Exception | None = None
    for first in range(0, int(starts[-1]), per_round):
        # rows first to last of all, cut at where each rank's begin and end
        edges = np.clip(starts, first, first + per_round)
        begin, end = (int(edge - starts[world.rank]) for edge in edges[world.rank : world.rank + 2])
        rows = np.zeros(end - begin, spool.dtype)
        try:
            if error is None and end > begin:
                rows = spool.read(begin, end)
        except Exception as caught:  # noqa: BLE001 - the round goes on, with zeros, and the agreement below raises it everywhere
            error = caught
        merged = world.gather_rows(phase, rows, np.diff(edges).tolist())
        try:
            if error is None and merged is not None:
                write(merged)
        except Exception as caught:  # noqa: BLE001 - as above
            error = caught
    world.agree(phase, error)
