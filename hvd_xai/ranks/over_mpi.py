"""Carries the collectives over mpi4py."""

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

from hvd_xai.ranks.watchdog import Watch

if TYPE_CHECKING:
    from mpi4py import MPI
from hvd_xai.ranks.transport import (
    EXIT_STUCK,
    ROOT,
    as_bytes,
    die,
    missing_ranks,
    row_starts,
    stuck_message,
)

_EXIT_TAG, _WAIT_TAG, _WATCH_TAG = 7, 8, 9
_PATIENCE_SECONDS = 1.0  # after which a rank tells the root that it waits


class OverMpi:
    """Carries the collectives over a communicator of our own.

    Every collective is started without blocking and then polled: so an idle rank does not burn the
    core that another one computes on, a deadline can end the wait, and a rank that has left the job
    is noticed.
    """

    def __init__(self, mpi: ModuleType, deadline: float) -> None:
        self._mpi = mpi
        self._deadline = deadline
        self._communicator = mpi.COMM_WORLD.Dup()
        self._words = mpi.COMM_WORLD.Dup()  # what ranks tell each other beside the collectives
        self._rank, self._size = self._communicator.Get_rank(), self._communicator.Get_size()
        self._patience = min(_PATIENCE_SECONDS, deadline / 4)
        # to the root, which can name who is missing
        self._given = 0.0 if self._rank == ROOT else 2 * self._patience
        self._collectives = 0
        # by rank, how many collectives it took part in before it exited
        self._left: dict[int, int] = {}
        # on the root: by rank, the newest collective that it said it waits in
        self._waiting: dict[int, int] = {}
        # on the root: by rank, the newest watched wait that it said it is in
        self._watching: dict[int, int] = {}
        self._waits = itertools.count(1)
        atexit.register(self._say_exit)

    def allgather(self, phase: str, message: bytes) -> list[bytes]:
        """Returns the message of each rank. Collective: every rank must call this."""
        lengths = np.empty(self._size, np.int64)
        self._wait(
            phase, self._communicator.Iallgather(np.array([len(message)], np.int64), lengths)
        )
        received = np.empty(int(lengths.sum()), np.uint8)
        ends = np.cumsum(lengths)
        sent = np.frombuffer(message, np.uint8)
        self._wait(
            phase,
            self._communicator.Iallgatherv(
                sent, [received, lengths.tolist(), (ends - lengths).tolist(), self._mpi.BYTE]
            ),
        )
        return [
            received[end - length : end].tobytes()
            for end, length in zip(ends, lengths, strict=True)
        ]

    def gather(self, phase: str, block: np.ndarray, counts: Sequence[int]) -> np.ndarray | None:
        """Returns the ranks' rows in the order of ranks on the root, None elsewhere.

        Collective: every rank must call this.
        """
        with self._row(block) as row:
            if self._rank != ROOT:
                self._wait(
                    phase,
                    self._communicator.Igatherv(
                        [as_bytes(block), len(block), row], None, root=ROOT
                    ),
                )
                return None
            received = np.empty((sum(counts), *block.shape[1:]), block.dtype)
            into = [as_bytes(received), list(counts), row_starts(counts), row]
            self._wait(
                phase,
                self._communicator.Igatherv([as_bytes(block), len(block), row], into, root=ROOT),
            )
            return received

    def exchange(
        self, phase: str, block: np.ndarray, sent: Sequence[int], received: Sequence[int]
    ) -> np.ndarray:
        """Returns the rows that each rank sent to this one, in the order of ranks.

        Collective: every rank must call this.
        """
        rows = np.empty((sum(received), *block.shape[1:]), block.dtype)
        with self._row(block) as row:
            outgoing = [as_bytes(block), list(sent), row_starts(sent), row]
            incoming = [as_bytes(rows), list(received), row_starts(received), row]
            self._wait(phase, self._communicator.Ialltoallv(outgoing, incoming))
        return rows

    def watch(self, phase: str) -> Watch:
        """Returns what ends the job when a wait for the others takes too long.

        Collective: every rank must call this.
        """
        # MPI is spoken from the watch's thread, while the main thread is in Horovod or computes:
        # threads are allowed
        return Watch(
            self._deadline + self._given, self._waits, self._tell_root, partial(self._end, phase)
        )

    def abort(self, code: int) -> None:
        """Ends every rank of the job now."""
        self._mpi.COMM_WORLD.Abort(code)

    def _tell_root(self, number: int) -> None:
        if self._rank != ROOT:
            self._tell(ROOT, _WATCH_TAG, number)

    def _end(self, phase: str, number: int) -> None:
        self._hear(_WATCH_TAG, self._watching)
        die(
            self,
            self._rank,
            f"{stuck_message(phase, self._deadline)} {self._missing(self._watching, number)}",
            EXIT_STUCK,
        )

    @contextmanager
    def _row(self, block: np.ndarray) -> "Iterator[MPI.Datatype]":
        """Makes the type of one row: counted in rows, no message comes near the 2^31 that MPI
        counts to.
        """
        row = self._mpi.BYTE.Create_contiguous(
            max(1, block.dtype.itemsize * int(np.prod(block.shape[1:])))
        ).Commit()
        try:
            yield row
        finally:
            row.Free()

    def _wait(self, phase: str, request: "MPI.Request") -> None:
        """Polls a collective until it is complete; ends the job when the deadline passes or a rank
        that it needs has exited.

        A rank that waits long tells the root, so that the root can name those that do not: they are
        stuck elsewhere. The others give the root some time to do so.
        """
        self._collectives += 1
        started = time.monotonic()
        pause = 0.0
        deadline = self._deadline + self._given
        is_known = self._rank == ROOT
        while not request.Test():
            waited = time.monotonic() - started
            if waited > self._patience and not is_known:
                self._tell(ROOT, _WAIT_TAG, self._collectives)
                is_known = True
            self._hear(_EXIT_TAG, self._left)
            self._hear(_WAIT_TAG, self._waiting)
            gone = [
                rank for rank, collectives in self._left.items() if collectives < self._collectives
            ]
            if gone:
                die(
                    self,
                    self._rank,
                    f"rank {gone[0]} exited while rank {self._rank} waits for it in '{phase}'",
                    1,
                )
            if waited > deadline:
                die(
                    self,
                    self._rank,
                    f"{stuck_message(phase, self._deadline)}"
                    f" {self._missing(self._waiting, self._collectives)}",
                    EXIT_STUCK,
                )
            # spin for a millisecond, for latency; then sleep up to another, for the cores
            pause = 0.0 if waited < 1e-3 else min(1e-3, pause + 5e-5)
            time.sleep(pause)

    def _missing(self, waiting: Mapping[int, int], number: int) -> str:
        """Says which ranks are not in the wait of a number that this one is in, as far as it
        knows.
        """
        if self._rank != ROOT:
            return "Rank 0, which would have said which ranks are missing, is one of them."
        return missing_ranks(
            [rank for rank in range(1, self._size) if waiting.get(rank, 0) < number]
        )

    def _hear(self, tag: int, into: dict[int, int]) -> None:
        """Takes in what other ranks told this one with a tag."""
        status = self._mpi.Status()
        while self._words.Iprobe(source=self._mpi.ANY_SOURCE, tag=tag, status=status):
            collectives = np.empty(1, np.int64)
            self._words.Recv(collectives, source=status.Get_source(), tag=tag)
            into[status.Get_source()] = int(collectives[0])

    def _tell(self, listener: int, tag: int, number: int) -> None:
        """Tells another rank how many collectives, or watched waits, this one has begun, whether
        that listens or not.
        """
        self._words.Isend(np.array([number], np.int64), dest=listener, tag=tag).Free()

    def _say_exit(self) -> None:
        """Tells those that may wait for this rank that it leaves: the root, which is in all
        collectives.
        """
        if self._mpi.Is_finalized():
            return
        for listener in [ROOT] if self._rank != ROOT else range(1, self._size):
            self._tell(listener, _EXIT_TAG, self._collectives)


def import_mpi() -> ModuleType | None:
    """Returns mpi4py's MPI; None if it is not installed.

    It must come before Horovod, so that both use one MPI, with threads allowed.
    """
    local_size = os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", "1")
    if local_size.isdigit() and int(local_size) >= (os.cpu_count() or 1):
        # Horovod's thread polls MPI; without this it takes the core from the rank that computes
        os.environ.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")
    try:
        return importlib.import_module("mpi4py.MPI")
    except ImportError:
        return None
