"""Carries the collectives over mpi4py, where the ranks are MPI processes."""

import atexit
import importlib
import itertools
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from hvd_xai.ranks.transport import (
    EXIT_STUCK,
    ROOT,
    as_bytes,
    describe_stuck_wait,
    end_job,
    name_missing_ranks,
    row_bytes,
    row_starts,
)
from hvd_xai.ranks.watchdog import Watch

if TYPE_CHECKING:
    from mpi4py import MPI

# what a note from one rank to another says: "I exit", "I wait in a collective", "I wait elsewhere"
_EXIT_TAG, _WAIT_TAG, _WATCH_TAG = 7, 8, 9
# Wait after which a rank tells the root that it waits.
_PATIENCE_SECONDS = 1.0
_SPIN_SECONDS, _LONGEST_PAUSE_SECONDS, _PAUSE_STEP_SECONDS = 1e-3, 1e-3, 5e-5


class OverMpi:
    """Carries the collectives over a communicator of our own.

    Every collective is started without blocking, then polled. So an idle rank does not burn the
    core on which another one computes, a deadline can end the wait, and a rank that has left the
    job is noticed.

    Beside the collectives the ranks send each other notes of one number, on a second communicator:

        any rank -> root           "I wait in collective 12", after a second; the root can then name
                                   the ranks that do not
        any rank -> root           "I exit after collective 11"
        root     -> every rank     "I exit after collective 11"

    Args:
        mpi: mpi4py's `MPI`.
        deadline: seconds that a wait for other ranks may take.
    """

    def __init__(self, mpi: ModuleType, deadline: float) -> None:
        self._mpi = mpi
        self._deadline = deadline
        # duplicates, so that nobody else's messages can match ours
        self._communicator = mpi.COMM_WORLD.Dup()
        self._notes = mpi.COMM_WORLD.Dup()
        self._rank, self._size = self._communicator.Get_rank(), self._communicator.Get_size()
        self._patience = min(_PATIENCE_SECONDS, deadline / 4)
        # the root's deadline comes first: only the root can name the ranks that are missing
        self._grace = 0.0 if self._rank == ROOT else 2 * self._patience
        # Number of collectives that this rank has begun. All ranks begin the same ones in the same
        # order, so that the number names one on all of them.
        self._n_collectives = 0
        self._wait_numbers = itertools.count(1)
        # by rank, the number of collectives that it had begun when it exited
        self._exited: dict[int, int] = {}
        # on the root, by rank, the newest collective, or watched wait, that the rank waits in
        self._waiting: dict[int, int] = {}
        self._watching: dict[int, int] = {}
        atexit.register(self._note_exit)

    def allgather(self, phase: str, message: bytes) -> list[bytes]:
        """Returns every rank's message, in the order of ranks.

        Collective: every rank must call this.
        """
        lengths = np.empty(self._size, np.int64)
        self._wait(
            phase, self._communicator.Iallgather(np.array([len(message)], np.int64), lengths)
        )
        received = np.empty(int(lengths.sum()), np.uint8)
        starts = row_starts(lengths.tolist())
        into = [received, lengths.tolist(), starts, self._mpi.BYTE]
        self._wait(phase, self._communicator.Iallgatherv(np.frombuffer(message, np.uint8), into))
        return [
            received[start : start + length].tobytes()
            for start, length in zip(starts, lengths, strict=True)
        ]

    def gather(self, phase: str, block: np.ndarray, counts: Sequence[int]) -> np.ndarray | None:
        """Returns all ranks' rows on the root, in the order of ranks; None elsewhere.

        Collective: every rank must call this.
        """
        with self._row_type(block) as row:
            outgoing = [as_bytes(block), len(block), row]
            if self._rank != ROOT:
                self._wait(phase, self._communicator.Igatherv(outgoing, None, root=ROOT))
                return None
            rows = np.empty((sum(counts), *block.shape[1:]), block.dtype)
            incoming = [as_bytes(rows), list(counts), row_starts(counts), row]
            self._wait(phase, self._communicator.Igatherv(outgoing, incoming, root=ROOT))
            return rows

    def exchange(
        self, phase: str, block: np.ndarray, sent: Sequence[int], received: Sequence[int]
    ) -> np.ndarray:
        """Returns the rows that all ranks sent to this one, in the order of ranks.

        Collective: every rank must call this.
        """
        rows = np.empty((sum(received), *block.shape[1:]), block.dtype)
        with self._row_type(block) as row:
            outgoing = [as_bytes(block), list(sent), row_starts(sent), row]
            incoming = [as_bytes(rows), list(received), row_starts(received), row]
            self._wait(phase, self._communicator.Ialltoallv(outgoing, incoming))
        return rows

    def watch(self, phase: str) -> Watch:
        """Returns a guard that ends the job when a wait for other ranks outlasts the deadline.

        Collective: every rank must call this.
        """
        # the watch's thread speaks MPI while the main thread is in Horovod or computes: MPI was
        # initialised for that, with MPI_THREAD_MULTIPLE
        return Watch(
            self._deadline + self._grace,
            self._wait_numbers,
            self._note_watched_wait,
            partial(self._end_watched_wait, phase),
        )

    def abort(self, code: int) -> None:
        """Ends every rank of the job at once, with this exit code."""
        self._mpi.COMM_WORLD.Abort(code)

    @contextmanager
    def _row_type(self, block: np.ndarray) -> "Iterator[MPI.Datatype]":
        """Makes MPI's type of one row, and frees it after the block."""
        # counted in rows, no message comes near the 2^31 elements that MPI counts to; a row of no
        # bytes still needs a type
        row = self._mpi.BYTE.Create_contiguous(max(1, row_bytes(block))).Commit()
        try:
            yield row
        finally:
            row.Free()

    def _wait(self, phase: str, request: "MPI.Request") -> None:
        """Polls a collective until it is complete.

        Ends the job when the deadline passes, or when a rank that takes part in the collective has
        exited.
        """
        self._n_collectives += 1
        started = time.monotonic()
        pause = 0.0
        has_told = self._rank == ROOT
        while not request.Test():
            waited = time.monotonic() - started
            if waited > self._patience and not has_told:
                self._send_note(ROOT, _WAIT_TAG, self._n_collectives)
                has_told = True
            self._end_if_hopeless(phase, waited)
            # spin for a millisecond, for latency; then sleep up to another, for the other ranks'
            # use of the core
            pause = (
                0.0
                if waited < _SPIN_SECONDS
                else min(_LONGEST_PAUSE_SECONDS, pause + _PAUSE_STEP_SECONDS)
            )
            time.sleep(pause)

    def _end_if_hopeless(self, phase: str, waited: float) -> None:
        self._receive_notes(_EXIT_TAG, self._exited)
        self._receive_notes(_WAIT_TAG, self._waiting)
        # a rank that exited after this collective has done its part, though this rank still waits
        gone = [rank for rank, number in self._exited.items() if number < self._n_collectives]
        if gone:
            reason = f"rank {gone[0]} exited while rank {self._rank} waits for it in '{phase}'"
            end_job(self, self._rank, reason, 1)
        if waited > self._deadline + self._grace:
            self._end_stuck_wait(phase, self._waiting, self._n_collectives)

    def _note_watched_wait(self, number: int) -> None:
        if self._rank != ROOT:
            self._send_note(ROOT, _WATCH_TAG, number)

    def _end_watched_wait(self, phase: str, number: int) -> None:
        self._receive_notes(_WATCH_TAG, self._watching)
        self._end_stuck_wait(phase, self._watching, number)

    def _end_stuck_wait(self, phase: str, waits: Mapping[int, int], number: int) -> None:
        """Ends the job, naming the ranks whose newest wait comes before the one of this number."""
        if self._rank != ROOT:
            missing = "Rank 0, which would have said which ranks are missing, is one of them."
        else:
            missing = name_missing_ranks(
                [rank for rank in range(1, self._size) if waits.get(rank, 0) < number]
            )
        reason = f"{describe_stuck_wait(phase, self._deadline)} {missing}"
        end_job(self, self._rank, reason, EXIT_STUCK)

    def _receive_notes(self, tag: int, numbers: dict[int, int]) -> None:
        """Puts the number of every note of one tag that has arrived under its sender."""
        status = self._mpi.Status()
        # the probe's source is named in the receive: another note may have arrived in between
        while self._notes.Iprobe(source=self._mpi.ANY_SOURCE, tag=tag, status=status):
            number = np.empty(1, np.int64)
            self._notes.Recv(number, source=status.Get_source(), tag=tag)
            numbers[status.Get_source()] = int(number[0])

    def _send_note(self, listener: int, tag: int, number: int) -> None:
        """Sends a number to another rank, whether that rank ever receives it or not."""
        # eight bytes leave eagerly: MPI has copied them by now, so nothing waits for the receiver
        self._notes.Isend(np.array([number], np.int64), dest=listener, tag=tag).Free()

    def _note_exit(self) -> None:
        """Tells the ranks that may wait for this one that it exits."""
        if self._mpi.Is_finalized():
            return
        # the root takes part in all collectives; it ends the job when it waits for this rank, so
        # the others need no note
        for listener in [ROOT] if self._rank != ROOT else range(1, self._size):
            self._send_note(listener, _EXIT_TAG, self._n_collectives)


def import_mpi() -> ModuleType | None:
    """Returns mpi4py's `MPI`; None if mpi4py is not installed.

    Call it before Horovod starts, so that both use one MPI, with threads allowed.
    """
    local_size = os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", "1")
    if local_size.isdigit() and int(local_size) >= (os.cpu_count() or 1):
        # Horovod's thread polls MPI; without this it takes the core from the rank that computes
        os.environ.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")
    try:
        return importlib.import_module("mpi4py.MPI")
    except ImportError:
        return None
