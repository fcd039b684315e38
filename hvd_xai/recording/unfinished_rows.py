"""Keeps the rows of an unfinished explanation on disk, so that a killed job goes on behind them."""

import json
import shutil
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import xxhash

from hvd_xai.checkpoint.integrity import find_damage, read_manifest
from hvd_xai.checkpoint.json_record import plain
from hvd_xai.checkpoint.layout import EPOCHS
from hvd_xai.checkpoint.listing import is_present
from hvd_xai.checkpoint.manifest import MANIFEST, Header, RankRows
from hvd_xai.errors import CheckpointError, advise
from hvd_xai.recording.row_buffer import ROUND_BYTES, RowBuffer, count_rows

# Fields of the header that change no attribution: where the run lies, how training went, how far a
# precision is off, and which rank computes which rows, for that stands in a buffer's name. The
# user's commit seldom changes one; a change of this library shows in `versions`.
_NOT_IN_DIGEST = ("git_commit", "metrics", "precision_error", "ranks", "run", "world_size")


class UnfinishedRows:
    """Keeps a folder of buffers, one for each rank and method.

    A buffer's name is `<method>-<digest>-<start>-<stop>`: the digest tells the weights, probe,
    options and versions that the rows belong to, and the range tells whose rows they are.

    Ranks that do not share a filesystem each have a folder of this name. Where the job before had
    another number of ranks, which shared the rows out otherwise, each rank begins with those of its
    rows that it finds in the earlier buffers.

    Args:
        folder: folder of the buffers, made with the first one.

    Example:
        >>> unfinished = UnfinishedRows(Path("unfinished"))
        >>> unfinished.n_rows()
        0
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._prefix = ""
        self._dtype = np.dtype([])
        self._mine: Path | None = None
        self._earlier: list[Path] = []
        self._ranks: tuple[RankRows, ...] = ()

    def open(self, header: Header, dtype: np.dtype, rank: int) -> RowBuffer:
        """Opens the buffer of a rank's rows, with the rows that an earlier job has left there.

        Args:
            header: what is known of the checkpoint beforehand.
            dtype: dtype of the rows.
            rank: this rank.
        """
        record = {
            name: value for name, value in asdict(header).items() if name not in _NOT_IN_DIGEST
        }
        text = json.dumps(plain({**record, "dtype": str(dtype.descr)}), sort_keys=True)
        self._prefix = f"{header.method}-{xxhash.xxh3_64_hexdigest(text.encode())}"
        self._dtype, self._ranks = dtype, header.ranks
        self._mine, self._earlier = None, []
        mine = header.ranks[rank]
        # several ranks without rows may have the same empty range, and would share one buffer
        if mine.start == mine.stop:
            return RowBuffer(dtype)
        self._mine = self._buffer_path(mine)
        buffer = RowBuffer(dtype, path=self._mine)
        self._take_over(buffer, mine)
        return buffer

    def _take_over(self, buffer: RowBuffer, mine: RankRows) -> None:
        """Appends the rows that a job of other ranks has left, up to the first that lacks.

        A row that does not fit its hash counts as lacking: appended, it would get a new one.
        """
        now = {self._buffer_path(rows) for rows in self._ranks}
        self._earlier = [path for path in self._folder.glob(f"{self._prefix}-*") if path not in now]
        size = max(1, ROUND_BYTES // self._dtype.itemsize)
        # in the order of rows, for a buffer grows at its end alone:
        #
        #     row              0 1 2 3 4 5 6 7 8 9
        #     earlier buffers  x x x . . x x x x .     start 0 with 3 rows, start 5 with 4
        #     mine                     4 ------- 9     takes over none: row 4 lacks
        #     or mine                    5 ----- 9     takes over rows 5 to 8
        for start, path in sorted((int(path.name.split("-")[-2]), path) for path in self._earlier):
            with RowBuffer(self._dtype, path=path) as earlier:
                first, stop = mine.start + len(buffer), min(mine.stop, start + len(earlier))
                for begin in range(first, stop, size) if first >= start else ():
                    end = min(begin + size, stop)
                    rows = earlier.read_intact(begin - start, end - start)
                    rows["rank"] = mine.rank
                    buffer.append(rows)
                    if len(rows) < end - begin:
                        return

    def n_rows(self) -> int:
        """Returns the number of rows that all ranks have computed; an estimate for unseen buffers.

        A rank whose buffer cannot be seen from here counts as being as far as the others.
        """
        sizes = {rows: self._count(rows) for rows in self._ranks}
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
        """Removes this rank's rows and the earlier job's, once they are committed.

        The folder goes with the last of its buffers.
        """
        if self._mine is not None:
            # they are committed: if somebody has removed them meanwhile, that is all right
            shutil.rmtree(self._mine, ignore_errors=True)
            self._mine = None
        for path in self._earlier:
            # the other ranks remove the earlier job's rows as well, at the same time
            shutil.rmtree(path, ignore_errors=True)
        # buffers of other ranks are still in it, or another rank has removed it
        with suppress(OSError):
            self._folder.rmdir()

    def _buffer_path(self, rows: RankRows) -> Path:
        return self._folder / f"{self._prefix}-{rows.start}-{rows.stop}"

    def _count(self, rows: RankRows) -> int | None:
        try:
            return count_rows(self._buffer_path(rows), self._dtype)
        except FileNotFoundError:
            return None


def reuse_rows(buffer: RowBuffer, start: int, sample_ids: np.ndarray) -> np.ndarray | None:
    """Returns the rows of these samples if the buffer holds them intact, else None.

    If the buffer holds other or damaged rows from `start` on, they are dropped, so that the rows
    computed anew can be appended.

    Args:
        buffer: rows that were computed before.
        start: number, in the buffer, of the row of the first sample.
        sample_ids: sample ids of the rows wanted.
    """
    if len(buffer) <= start:
        return None
    if len(buffer) >= start + len(sample_ids):
        rows = buffer.read_intact(start, start + len(sample_ids))
        if np.array_equal(rows["sample_id"], sample_ids):
            return rows
    buffer.truncate(start)
    return None


def is_committed(explanations_dir: Path, header: Header) -> bool:
    """Returns whether this very explanation is committed, and undamaged.

    Args:
        explanations_dir: `<run>/explanations`.
        header: what is known of the explanation beforehand.

    Raises:
        CheckpointError: if an explanation of other weights, method or options stands in its place;
            somebody who goes on with a run does not mean to replace that.
    """
    directory = explanations_dir / EPOCHS / f"{header.epoch:06d}" / header.method
    if not is_present(directory / MANIFEST):
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
            " Give the model and the options that the run was started with, or another"
            f" {advise(script='folder', command='--output')}."
        )
    is_same = all(
        plain(getattr(there, name)) == plain(getattr(header, name))
        for name in ("probe_digest", "n_samples", "versions")
    )
    return is_same and not find_damage(directory, there.files)
