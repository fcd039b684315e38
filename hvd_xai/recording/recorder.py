"""From the rows of all ranks to a committed checkpoint that the sinks have seen, while training
goes on.
"""

import logging
import secrets
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from hvd_xai.checkpoint.manifest import Header
from hvd_xai.checkpoint.run_directory import RunDirectory
from hvd_xai.checkpoint.writer import Writer, Written, write_shards
from hvd_xai.errors import CheckpointError, is_agreed
from hvd_xai.protocols import Sink
from hvd_xai.ranks.transport import ROOT
from hvd_xai.ranks.world import World
from hvd_xai.recording.merge import Merged, merge
from hvd_xai.recording.row_buffer import RowBuffer
from hvd_xai.storage.arrays import shard_rows
from hvd_xai.storage.durable import STAGING, FileEntry

log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 10.0  # for a commit that is under way when an error ends the job

Merge: TypeAlias = Literal["auto", "direct", "root"]
"""Who writes the large arrays: the root, each rank its own Zarr shards directly, or that where the
ranks share the filesystem."""
OnError: TypeAlias = Literal["raise", "warn"]
"""What an explanation that fails does to training: ends it, or leaves a warning."""


@dataclass(frozen=True, slots=True)
class Recording:
    """Says how the ranks' rows are written, and what a loss does to training.

    Attributes:
        merge: who writes the large arrays. "root" writes all of them and receives all rows; with
            "direct" each rank writes its own Zarr shards, for which all ranks must share a
            filesystem; "auto" finds out whether they do, and falls back to "root". The bytes on
            disk are the same.
        overlap: whether files are written and sinks called by a thread while training goes on;
            never so in elastic jobs, whose ranks may be gone by then.
        on_error: what an explanation that fails does to training: "raise" ends it on every rank,
            "warn" loses the explanation and logs that on the root.

    Raises:
        ValueError: if `merge` or `on_error` is none of the values above.

    Example:
        >>> Recording(merge="root", on_error="warn")
        Recording(merge='root', overlap=True, on_error='warn')
    """

    merge: Merge = "auto"
    overlap: bool = True
    on_error: OnError = "raise"

    def __post_init__(self) -> None:
        if self.merge not in ("auto", "direct", "root") or self.on_error not in ("raise", "warn"):
            raise ValueError(
                "merge must be 'auto', 'direct' or 'root', on_error 'raise' or 'warn'; got"
                f" {self.merge!r} and {self.on_error!r}"
            )


@dataclass(slots=True)
class _Unit:
    """A checkpoint on its way: what this rank writes of it, and where; on the root the writer that
    commits it.
    """

    header: Header
    merged: Merged
    staged: Path
    writer: Writer | None
    writing: "Future[Written]"
    is_gathered: bool = False  # the root knows what all ranks wrote; the same on every rank
    committing: "Future[None] | None" = None  # on the root, once it knows


class Recorder:
    """Merges the ranks' rows, and has them written, committed and shown to the sinks.

    Collective: every rank must make one.

    Files are written by a thread, so that training can go on meanwhile; the ranks talk to each
    other in the caller's thread alone. `merge` hands rows over, `advance` looks in now and then,
    and `settle` waits until all is committed. Between a `settle` and the next lies one epoch: more
    is never on its way. Where an error ends the job, `World.finish` has committed what still can
    be.

    Args:
        world: the ranks.
        run: the run that explanations are committed to; the root has opened it.
        sinks: called on the root with the run and each committed explanation.
        recording: how rows are written, and what a loss does to training.

    Raises:
        CheckpointError: on all ranks, if `merge` is "direct" and some cannot write where the root
            does.
    """

    def __init__(
        self,
        world: World,
        run: RunDirectory,
        sinks: Sequence[Sink] = (),
        recording: Recording = Recording(),
    ) -> None:
        self._world, self._run, self._sinks = world, run, tuple(sinks)
        self._recording = recording
        self._is_direct = recording.merge != "root" and self._share_files(
            required=recording.merge == "direct"
        )
        self._thread = ThreadPoolExecutor(1, "hvd_xai-writing")
        self._units: list[_Unit] = []
        self._lost: list[tuple[Header, Exception]] = []
        self._has_failed = False
        world.under_way.append(self._finish)

    def _share_files(self, *, required: bool) -> bool:
        """Returns whether every rank can write where the root does.

        Collective: every rank must call this.
        """
        world, folder = self._world, self._run.explanations_dir
        phase = "finding out who shares the filesystem"
        # nobody else's, and never looked up before
        name = world.from_root(phase, f"{STAGING}{secrets.token_hex(8)}")
        with world.together(phase):
            if world.is_root:
                (folder / name).mkdir()
        can_write = True
        try:
            (folder / name / str(world.rank)).touch()
        except OSError:
            can_write = False
        answers = world.allgather(phase, can_write)
        with world.together(phase):
            if world.is_root:
                shutil.rmtree(folder / name)
        apart = [rank for rank, answer in enumerate(answers) if not answer]
        if apart and required:
            where = (
                f"rank {apart[0]} on {world.hosts[apart[0]]} cannot write to {folder} of rank 0 on"
                f" {world.hosts[ROOT]}"
            )
            world.agree(
                phase,
                CheckpointError(f"{where}. Give a folder that all hosts share, or merge='root'."),
            )
        return not apart

    def has_settled(self, epoch: int) -> bool:
        """Returns whether all of epochs up to this one is committed, or given up; known on the
        root, as soon as it is so.
        """
        units = [unit for unit in self._units if unit.header.epoch <= epoch]
        return not self._has_failed and all(
            unit.committing is not None and self._is_over(unit.committing) for unit in units
        )

    def _is_over(self, committing: "Future[None]") -> bool:
        return committing.done() and (
            self._recording.on_error == "warn" or committing.exception() is None
        )

    def merge(self, header: Header, buffer: RowBuffer) -> None:
        """Brings all ranks' rows to those that write them, and begins to write.

        Collective: every rank must call this.

        Args:
            header: of the checkpoint.
            buffer: this rank's rows; closed when they are written.

        Raises:
            PeerError: on all ranks, if any rank failed.
        """
        world, dtype = self._world, buffer.dtype
        large = [name for name in dtype.names or () if dtype[name].shape] if self._is_direct else []
        shards = {
            name: shard_rows((header.n_samples, *dtype[name].shape), dtype[name].base)
            for name in large
        }
        with world.together("beginning an explanation checkpoint"):
            writer = self._run.begin(header, dtype, elsewhere=large) if world.is_root else None
        try:
            # a name that means the same folder on every rank, wherever each of them stands
            folder = self._run.explanations_dir
            name = None if writer is None else str(writer.staged.relative_to(folder))
            staged = folder / world.from_root("naming the staging folder", name)
            merged = merge(world, buffer, shards)
        except BaseException:
            if writer is not None:
                self._run.discard(writer.destination)
            raise
        self._units.append(
            _Unit(
                header,
                merged,
                staged,
                writer,
                self._thread.submit(_write, header, merged, staged, writer),
            )
        )

    def advance(self) -> None:
        """Has committed what all ranks have written by now; waits for nothing.

        Collective: every rank must call this.

        Raises:
            PeerError: on all ranks, if any rank could not write; under "warn" it is remembered.
        """
        waiting = [unit for unit in self._units if not unit.is_gathered]
        if waiting and all(
            self._world.allgather(
                "asking what is written", all(unit.writing.done() for unit in waiting)
            )
        ):
            self._gather()

    def settle(self) -> None:
        """Waits until all that was merged is committed and shown, or lost.

        Collective: every rank must call this.

        Raises:
            PeerError: on all ranks, if any rank could not write, or the root not commit; under
                "warn" the root logs what was lost.
        """
        self._gather()
        for unit in list(self._units):
            try:
                with self._world.together("committing an explanation checkpoint"):
                    if unit.committing is not None:
                        unit.committing.result()
            except Exception as error:  # noqa: BLE001
                self._drop(unit)
                self.lose(unit.header, error)
        self._units.clear()
        if self._lost and self._world.is_root:
            what = "; ".join(f"{header.method}: {error}" for header, error in self._lost)
            log.warning(
                "epoch %d has not all its explanations, and training goes on without them: %s",
                self._lost[0][0].epoch,
                what,
            )
        self._lost.clear()

    def _gather(self) -> None:
        """Waits for what the ranks write, tells the root, and has it commit.

        Collective: every rank must call this.
        """
        for unit in [unit for unit in self._units if not unit.is_gathered]:
            try:
                with self._world.together("writing an explanation checkpoint"):
                    mine = _to_tuple(unit.writing.result())
            except Exception as error:  # noqa: BLE001
                self._drop(unit)
                self.lose(unit.header, error)
                continue
            written = [
                _from_tuple(part)
                for part in self._world.allgather("gathering what was written", mine)
            ]
            unit.is_gathered = True
            if unit.writer is not None:
                others = [other.committing for other in self._units if other.committing is not None]
                is_last = len(others) == len(self._units) - 1 and not self._lost
                unit.committing = self._thread.submit(
                    self._commit, unit.writer, written, others if is_last else None
                )

    def _commit(
        self, writer: Writer, written: Sequence[Written], others: "Sequence[Future[None]] | None"
    ) -> None:
        """Commits, and shows the sinks; on the root, in the thread.

        Args:
            writer: of the checkpoint.
            written: by each rank.
            others: that are committed before; None if this is not the last of its epoch, or another
                was lost: then nothing is removed.
        """
        committed = self._run.commit(writer, written)
        manifest = committed.manifest
        if manifest.nonfinite > 0:
            log.warning(
                "epoch %d: %d values of %s are not finite. If the weights are, the model has no"
                " value for something it is shown, as the mean of a text whose words are all taken"
                " away: bind another baseline= to the method",
                manifest.epoch,
                manifest.nonfinite,
                manifest.method,
            )
        for sink in self._sinks:
            sink(self._run, committed)
        if others is not None and all(other.exception() is None for other in others):
            self._run.retain()

    def lose(self, header: Header, error: Exception) -> None:
        """Raises an error, or remembers under "warn" that it has cost a checkpoint; every rank must
        do so.

        Raises:
            Exception: `error`, where losses are not borne, or where other ranks may not have met
                it.
        """
        if self._recording.on_error == "raise" or not is_agreed(error):
            self._has_failed = True
            raise error
        self._lost.append((header, error))

    def _finish(self, together: bool) -> None:
        """Commits what it can before an error ends the job.

        Where all ranks are `together`, that is all that was merged. A rank that is alone cannot ask
        what the others wrote: it gives the root time to commit what it was told of, and sees that
        by the staging folder, where it has the root's filesystem.
        """
        if together:
            for _ in list(self._units):
                try:
                    self.settle()
                except Exception as error:  # noqa: BLE001
                    if self._world.is_root:
                        log.warning("an explanation is lost: %s", error)
            return
        gathered = [unit for unit in self._units if unit.is_gathered]
        wait(
            [unit.committing for unit in gathered if unit.committing is not None], _PATIENCE_SECONDS
        )
        until = time.monotonic() + _PATIENCE_SECONDS
        while (
            not self._world.is_root
            and any(unit.staged.exists() for unit in gathered)
            and time.monotonic() < until
        ):
            time.sleep(0.01)

    def close(self) -> None:
        """Discards what was not committed, once the thread is done with it; each rank may do it by
        itself. Safe to call twice.
        """
        if self._finish in self._world.under_way:
            self._world.under_way.remove(self._finish)
        self._thread.shutdown(cancel_futures=True)
        for unit in list(self._units):
            self._drop(unit)

    def _drop(self, unit: _Unit) -> None:
        self._units.remove(unit)
        unit.merged.close()
        if unit.writer is not None:
            self._run.discard(unit.writer.destination)


def _write(header: Header, merged: Merged, staged: Path, writer: Writer | None) -> Written:
    """Writes this rank's part of a checkpoint; it touches files only."""
    if writer is not None:
        for rows in merged.rows.blocks():
            writer.append(rows)
    parts = []
    for part in merged.parts:
        shape = (header.n_samples, *merged.mine.dtype[part.name].shape)
        parts.append(write_shards(staged, part.name, shape, part.first, part.blocks()))
    merged.close()
    files = tuple(file for part in parts for file in part.files)
    return Written(
        files, sum(part.nonfinite for part in parts), sum(part.negative for part in parts)
    )


# what `World.allgather` carries: non-finite values, negative values, and each file's key, size, hash
_WrittenTuple: TypeAlias = tuple[int, int, tuple[tuple[str, int, str], ...]]


def _to_tuple(written: Written) -> _WrittenTuple:
    files = tuple((file.key, file.size, file.xxh3_128) for file in written.files)
    return (written.nonfinite, written.negative, files)


def _from_tuple(message: _WrittenTuple) -> Written:
    nonfinite, negative, files = message
    return Written(tuple(FileEntry(*file) for file in files), nonfinite, negative)
