"""Makes the ranks' rows a committed checkpoint that the sinks have seen, while training goes on."""

import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from hvd_xai.checkpoint.manifest import Header
from hvd_xai.checkpoint.run_directory import RunDirectory
from hvd_xai.checkpoint.writer import Writer
from hvd_xai.checkpoint.written_shards import Written
from hvd_xai.errors import CheckpointError, is_agreed, mark_agreed
from hvd_xai.ranks.transport import ROOT
from hvd_xai.ranks.world import World
from hvd_xai.recording.merge import Merged, merge
from hvd_xai.recording.row_buffer import RowBuffer
from hvd_xai.recording.shared_filesystem import find_ranks_apart
from hvd_xai.recording.written_part import from_message, to_message, write_part
from hvd_xai.sinks import Sink
from hvd_xai.storage.arrays import shard_rows

log = logging.getLogger(__name__)

# Wait for a commit that is under way when an error ends the job.
_PATIENCE_SECONDS = 10.0

Merge: TypeAlias = Literal["auto", "direct", "root"]
"""Who writes the large arrays, as `Recording` says."""
OnError: TypeAlias = Literal["raise", "warn"]
"""What an explanation that fails does to training, as `Recording` says."""


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
class _Pending:
    """A checkpoint that is not committed yet, as this rank sees it.

    Attributes:
        header: what is known of the checkpoint beforehand.
        merged: rows that this rank writes.
        staged: folder that the files are written to.
        writer: on the root, the writer that commits the checkpoint; None elsewhere.
        writing: the thread's task of writing this rank's files.
        is_gathered: whether the root knows what all ranks wrote; the same on every rank.
        committing: on the root, once it knows that, the thread's task of committing.
    """

    header: Header
    merged: Merged
    staged: Path
    writer: Writer | None
    writing: "Future[Written]"
    is_gathered: bool = False
    committing: "Future[None] | None" = None


class Recorder:
    """Merges the ranks' rows, then has them written, committed and shown to the sinks.

    Collective: every rank must make one.

    A thread works on files, so that training can go on meanwhile; the ranks talk to each other in
    the caller's thread alone. `merge` hands rows over, `advance` commits what is written by then,
    and `settle` waits until all is committed. Only one epoch is on its way at a time: call `settle`
    before the next one's first `merge`. When an error ends the job, `World.finish` commits whatever
    still can be.

    Args:
        world: the ranks.
        run: the run that explanations are committed to; the root has opened it.
        sinks: what the root calls with the run and each committed explanation.
        recording: how rows are written, and what a loss does to training.

    Raises:
        CheckpointError: on all ranks, if merging is "direct" and some rank cannot write where the
            root does.
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
        self._ranks_write_themselves = recording.merge != "root" and self._share_filesystem()
        # a single thread, which does its tasks in the order in which they are handed over: the
        # root's own files are written before their checkpoint is committed, and checkpoints are
        # committed in the order of methods. It never calls a collective: those must come in one
        # order on all ranks, and only the caller's thread knows it.
        self._thread = ThreadPoolExecutor(1, "hvd_xai-writing")
        self._pending: list[_Pending] = []
        self._lost: list[tuple[Header, Exception]] = []
        self._first_failed: int | None = None
        world.under_way.append(self._finish)

    def _share_filesystem(self) -> bool:
        """Returns whether every rank can write where the root does.

        Collective: every rank must call this.
        """
        world, folder = self._world, self._run.explanations_dir
        apart = find_ranks_apart(world, folder)
        if apart and self._recording.merge == "direct":
            # every rank has the same answer, so that all raise here without another collective
            raise mark_agreed(
                CheckpointError(
                    f"rank {apart[0]} on {world.hosts[apart[0]]} cannot write to {folder} of rank 0"
                    f" on {world.hosts[ROOT]}. Give a folder that all hosts share, or merge='root'."
                )
            )
        return not apart

    def has_settled(self, epoch: int) -> bool:
        """Returns whether everything up to an epoch is committed, or given up.

        Only the root knows. An epoch counts as settled as soon as the root's thread is done with
        it; nobody has to call `settle` before.
        """
        # an epoch that failed says nothing of those before it, whose model must be published
        if self._first_failed is not None and self._first_failed <= epoch:
            return False
        earlier = [pending for pending in self._pending if pending.header.epoch <= epoch]
        return all(
            pending.committing is not None and self._is_over(pending.committing)
            for pending in earlier
        )

    def _is_over(self, committing: "Future[None]") -> bool:
        return committing.done() and (
            self._recording.on_error == "warn" or committing.exception() is None
        )

    def merge(self, header: Header, buffer: RowBuffer) -> None:
        """Brings all ranks' rows to the ranks that write them, which begin to write.

        Collective: every rank must call this.

        Args:
            header: what is known of the checkpoint beforehand.
            buffer: this rank's rows; closed once they are written.

        Raises:
            PeerError: on all ranks, if any rank failed.
        """
        world, dtype = self._world, buffer.dtype
        # attributions and thumbnails are large: they have a shape; the others are scalars
        large = [name for name in dtype.names or () if dtype[name].shape]
        large = large if self._ranks_write_themselves else []
        shards = {
            name: shard_rows((header.n_samples, *dtype[name].shape), dtype[name].base)
            for name in large
        }
        with world.together("beginning an explanation checkpoint"):
            writer = self._run.begin(header, dtype, elsewhere=large) if world.is_root else None
        try:
            # told relative to the explanations: ranks may stand in different working directories
            folder = self._run.explanations_dir
            name = None if writer is None else str(writer.staged.relative_to(folder))
            staged = folder / world.from_root("naming the staging folder", name)
            merged = merge(world, buffer, shards)
        except BaseException:
            if writer is not None:
                self._run.discard(writer.destination)
            raise
        writing = self._thread.submit(write_part, header, merged, staged, writer)
        self._pending.append(_Pending(header, merged, staged, writer, writing))

    def advance(self) -> None:
        """Commits every checkpoint that all ranks have finished writing; does not block.

        Collective: every rank must call this.

        Raises:
            PeerError: on all ranks, if any rank could not write; with "warn", `settle` logs it.
        """
        # whether there is anything to ask about is the same on all ranks, unlike what the threads
        # are done with: only the answers to that decide whether all go on
        waiting = [pending for pending in self._pending if not pending.is_gathered]
        if not waiting:
            return
        mine = all(pending.writing.done() for pending in waiting)
        if all(self._world.allgather("asking what is written", mine)):
            self._gather_written()

    def settle(self) -> None:
        """Waits until everything that was merged is committed and shown, or lost.

        Collective: every rank must call this.

        Raises:
            PeerError: on all ranks, if any rank could not write, or the root could not commit; with
                "warn", the root logs what is lost instead.
        """
        self._gather_written()
        for pending in list(self._pending):
            try:
                with self._world.together("committing an explanation checkpoint"):
                    if pending.committing is not None:
                        pending.committing.result()
            except Exception as error:  # noqa: BLE001
                self._drop(pending)
                self.lose(pending.header, error)
        self._pending.clear()
        if self._lost and self._world.is_root:
            what = "; ".join(f"{header.method}: {error}" for header, error in self._lost)
            log.warning(
                "epoch %d has not all its explanations, and training goes on without them: %s",
                self._lost[0][0].epoch,
                what,
            )
            self._note_lost()
        self._lost.clear()

    def _note_lost(self) -> None:
        """Notes in the run what is lost, on the root; what lost it may forbid that too."""
        gaps: dict[str, list[int]] = {}
        for header, _ in self._lost:
            gaps.setdefault(header.method, []).append(header.epoch)
        try:
            self._run.add_gaps(gaps)
        except CheckpointError as error:
            log.warning("the run does not say that it has a gap: %s", error)

    def _gather_written(self) -> None:
        """Waits until all ranks have written, tells the root what, and has the root commit it.

        Collective: every rank must call this.
        """
        for pending in [pending for pending in self._pending if not pending.is_gathered]:
            try:
                with self._world.together("writing an explanation checkpoint"):
                    mine = to_message(pending.writing.result())
            except Exception as error:  # noqa: BLE001
                # every rank comes here, for they have agreed: all drop the same checkpoint, and the
                # loop is of the same length everywhere
                self._drop(pending)
                self.lose(pending.header, error)
                continue
            theirs = self._world.allgather("gathering what was written", mine)
            pending.is_gathered = True
            if pending.writer is not None:
                written = [from_message(part) for part in theirs]
                pending.committing = self._thread.submit(
                    self._commit, pending.writer, written, self._committed_before_last()
                )

    def _committed_before_last(self) -> "Sequence[Future[None]] | None":
        """Returns the root's other commits, if the epoch's last is about to join them; else None.

        It is None too where the epoch has lost an explanation.
        """
        others = [pending.committing for pending in self._pending if pending.committing is not None]
        return others if len(others) == len(self._pending) - 1 and not self._lost else None

    def _commit(
        self, writer: Writer, written: Sequence[Written], others: "Sequence[Future[None]] | None"
    ) -> None:
        """Commits a checkpoint and calls the sinks; runs on the root, in the thread.

        Args:
            writer: writer of the checkpoint.
            written: what each rank wrote of it.
            others: the epoch's earlier commits, if this one is its last: when all of them have
                succeeded, older epochs are removed. None if nothing may be removed.
        """
        committed = self._run.commit(writer, written)
        for sink in self._sinks:
            sink(self._run, committed)
        # the single thread has finished the others by now, so that `exception` does not wait
        if others is not None and all(other.exception() is None for other in others):
            self._run.retain()

    def lose(self, header: Header, error: Exception) -> None:
        """Raises an error that costs a checkpoint; with "warn", remembers it for `settle` to log.

        Every rank must call this, with the error that it met.

        Args:
            header: header of the checkpoint that is lost.
            error: error that was met.

        Raises:
            Exception: `error`, unless `on_error` is "warn" and all ranks raise this error.
        """
        if self._recording.on_error == "raise" or not is_agreed(error):
            if self._first_failed is None or header.epoch < self._first_failed:
                self._first_failed = header.epoch
            raise error
        self._lost.append((header, error))

    def _finish(self, together: bool) -> None:
        """Commits what it can before an error ends the job.

        Args:
            together: whether all ranks call this; then everything that was merged is committed.
                A rank that calls it alone cannot ask what the others wrote: it gives the root time
                to commit what the root was told of.
        """
        if together:
            # `settle` raises at the first loss under "raise", and drops it: so once for each
            for _ in list(self._pending):
                try:
                    self.settle()
                except Exception as error:  # noqa: BLE001
                    if self._world.is_root:
                        log.warning("an explanation is lost: %s", error)
            return
        gathered = [pending for pending in self._pending if pending.is_gathered]
        commits = [pending.committing for pending in gathered if pending.committing is not None]
        wait(commits, _PATIENCE_SECONDS)
        # elsewhere than on the root, a staging folder that is gone tells that the root has
        # committed; a rank without the root's filesystem sees none, and does not wait
        until = time.monotonic() + _PATIENCE_SECONDS
        while (
            not self._world.is_root
            and any(pending.staged.exists() for pending in gathered)
            and time.monotonic() < until
        ):
            time.sleep(0.01)

    def close(self) -> None:
        """Discards what was not committed, once the thread is done with it; safe to call twice.

        It is no collective: each rank may call it by itself.
        """
        if self._finish in self._world.under_way:
            self._world.under_way.remove(self._finish)
        # waits for the task that is running: it may still write to what is discarded next
        self._thread.shutdown(cancel_futures=True)
        for pending in list(self._pending):
            self._drop(pending)

    def _drop(self, pending: _Pending) -> None:
        self._pending.remove(pending)
        pending.merged.close()
        if pending.writer is not None:
            self._run.discard(pending.writer.destination)
