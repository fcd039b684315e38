"""Rows of an explanation that is not finished, on disk, so that a job that was killed goes on
behind them.
"""

import json
import shutil
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import xxhash

from hvd_xai.checkpoint.integrity import find_damage, read_manifest
from hvd_xai.checkpoint.json_record import plain
from hvd_xai.checkpoint.manifest import MANIFEST, Header, RankRows
from hvd_xai.checkpoint.rows import content_hashes
from hvd_xai.checkpoint.writer import EPOCHS
from hvd_xai.errors import CheckpointError
from hvd_xai.recording.row_buffer import ROUND_BYTES, RowBuffer, count_rows

# Who computes which rows stands in a folder's name; where the run lies, on which hosts, and how it
# was trained changes no number, and how far a precision is off is measured, not asked for. A commit
# of the user's seldom does; ours tells the version.
_NOT_IN_DIGEST = ("git_commit", "metrics", "precision_error", "ranks", "run", "world_size")


class RowFiles:
    """A folder with one buffer a rank and method.

    Its name says of which weights, probe, method, options and versions the rows are.

    Ranks that do not share a filesystem each have a folder of this name. Where the job before had
    other ranks, which cut the rows otherwise, each rank begins with what it sees of its own rows in
    their buffers.

    Args:
        folder: made when the first buffer is.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._prefix = ""
        self._dtype = np.dtype([])
        self._own: Path | None = None
        self._left: list[Path] = []
        self._ranks: tuple[RankRows, ...] = ()

    def open(self, header: Header, dtype: np.dtype, rank: int) -> RowBuffer:
        """Opens the buffer of a rank's rows, with those that an earlier job has left in it."""
        record = {
            name: value for name, value in asdict(header).items() if name not in _NOT_IN_DIGEST
        }
        text = json.dumps(plain({**record, "dtype": str(dtype.descr)}), sort_keys=True)
        self._prefix = f"{header.method}-{xxhash.xxh3_64_hexdigest(text.encode())}"
        self._dtype, self._ranks = dtype, header.ranks
        self._own, self._left = None, []
        mine = header.ranks[rank]
        # there is nothing to keep, and several such ranks would have one folder
        if mine.start == mine.stop:
            return RowBuffer(dtype)
        self._own = self._path(mine)
        buffer = RowBuffer(dtype, path=self._own)
        self._take_over(buffer, mine)
        return buffer

    def _take_over(self, buffer: RowBuffer, mine: RankRows) -> None:
        """Adds what a job of other ranks has left, as far as it follows on the rows that are
        there.
        """
        cut_now = {self._path(rows) for rows in self._ranks}
        self._left = [
            path for path in self._folder.glob(f"{self._prefix}-*") if path not in cut_now
        ]
        size = max(1, ROUND_BYTES // self._dtype.itemsize)
        for start, path in sorted((int(path.name.split("-")[-2]), path) for path in self._left):
            with RowBuffer(self._dtype, path=path) as other:
                first, stop = mine.start + len(buffer), min(mine.stop, start + len(other))
                for begin in range(first, stop, size) if first >= start else ():
                    rows = other.read(begin - start, min(begin + size, stop) - start)
                    rows["rank"] = mine.rank
                    buffer.append(rows)

    def n_rows(self) -> int:
        """Returns how many rows all ranks have; of a rank whose buffer cannot be seen from here, as
        large a share as this rank has.
        """
        sizes = {rows: self._size(rows) for rows in self._ranks}
        seen = [
            (size, rows.stop - rows.start)
            for rows, size in sizes.items()
            if size is not None and rows.stop > rows.start
        ]
        share = sum(size for size, _ in seen) / max(1, sum(length for _, length in seen))
        return sum(
            int(share * (rows.stop - rows.start)) if size is None else size
            for rows, size in sizes.items()
        )

    def remove(self) -> None:
        """Removes this rank's rows, and those of the job before, once they are committed; and the
        folder if they were the last.
        """
        if self._own is not None:
            shutil.rmtree(self._own)
            self._own = None
        for path in self._left:
            shutil.rmtree(path, ignore_errors=True)  # other ranks remove them as well
        with suppress(OSError):  # rows of others are in it, or another rank was first
            self._folder.rmdir()

    def _path(self, rows: RankRows) -> Path:
        return self._folder / f"{self._prefix}-{rows.start}-{rows.stop}"

    def _size(self, rows: RankRows) -> int | None:
        try:
            return count_rows(self._path(rows), self._dtype)
        except FileNotFoundError:
            return None


def kept_rows(buffer: RowBuffer, start: int, sample_ids: np.ndarray) -> np.ndarray | None:
    """Returns the rows of these samples if the buffer has them from `start` on, whole; cuts it off
    there if it has them otherwise.
    """
    if len(buffer) <= start:
        return None
    if len(buffer) >= start + len(sample_ids):
        rows = buffer.read(start, start + len(sample_ids))
        if np.array_equal(rows["sample_id"], sample_ids) and np.array_equal(
            rows["content_hash"], content_hashes(rows)
        ):
            return rows
    buffer.truncate(start)
    return None


def is_committed(explanations_dir: Path, header: Header) -> bool:
    """Returns whether this very explanation was committed already, and is whole.

    Raises:
        CheckpointError: if one of other weights, method or options was: whoever goes on with a run
            does not mean to replace that.
    """
    directory = explanations_dir / EPOCHS / f"{header.epoch:06d}" / header.method
    if not (directory / MANIFEST).exists():
        return False
    there = read_manifest(directory)
    differing = (
        ["weights"]
        if (there.weights_digest, there.step) != (header.weights_digest, header.step)
        else []
    )
    if there.function != header.function:
        differing += ["method", "options"]
    elif plain(there.options) != plain(header.options) or there.precision != header.precision:
        differing += ["options"]
    if differing:
        raise CheckpointError(
            f"{directory} was committed with other {' and '.join(differing)}, and is not replaced."
            " Give the model and the options that the run was started with, or another --output."
        )
    is_same = all(
        plain(getattr(there, name)) == plain(getattr(header, name))
        for name in ("probe_digest", "n_samples", "versions")
    )
    return is_same and not find_damage(directory, there.files)
