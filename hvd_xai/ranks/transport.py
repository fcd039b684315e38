"""Defines the collectives that everything else is made of, and what all carriers of them share.

A carrier is mpi4py where the ranks are MPI processes (`over_mpi`), and Horovod where they are not
(`over_horovod`). No wait takes longer than the deadline: then the rank that waits ends the whole
job, with a message that names the ranks which are missing.
"""

import itertools
import os
import socket
import sys
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from hvd_xai.log import printable
from hvd_xai.ranks.launcher import FAILURE, Store, is_elastic
from hvd_xai.ranks.watchdog import Watch

ROOT = 0
# Exit code of a job in which a rank was waited for in vain: EX_TEMPFAIL of sysexits.h.
EXIT_STUCK = 75
# Number of missing ranks that a message names; it counts the others.
_N_NAMED = 10


@runtime_checkable
class Transport(Protocol):
    """Carries bytes and rows from rank to rank. Every method but `abort` is a collective."""

    def allgather(self, phase: str, message: bytes) -> list[bytes]:
        """Returns every rank's message, in the order of ranks.

        Collective: every rank must call this.
        """

    def gather(self, phase: str, block: np.ndarray, counts: Sequence[int]) -> np.ndarray | None:
        """Returns all ranks' rows on the root, in the order of ranks; None elsewhere.

        Collective: every rank must call this.

        Args:
            phase: what the ranks are doing, for messages.
            block: rows that this rank sends, `counts[rank]` of them.
            counts: number of rows that each rank sends.
        """

    def exchange(
        self, phase: str, block: np.ndarray, sent: Sequence[int], received: Sequence[int]
    ) -> np.ndarray:
        """Returns the rows that all ranks sent to this one, in the order of ranks.

        Collective: every rank must call this.

        Args:
            phase: what the ranks are doing, for messages.
            block: rows that this rank sends, in the order of the ranks that they go to.
            sent: number of rows that go to each rank.
            received: number of rows that come from each rank.
        """

    def watch(self, phase: str) -> Watch:
        """Returns a guard that ends the job when a wait for other ranks outlasts the deadline.

        Collective: every rank must call this.
        """

    def abort(self, code: int) -> None:
        """Ends every rank of the job at once, with this exit code."""


def row_starts(counts: Sequence[int]) -> list[int]:
    """Returns the row at which each rank's rows begin, counted through all ranks."""
    # counts  2  3  1
    # rows    0 1 | 2 3 4 | 5
    # starts  0     2       5
    return [0, *itertools.accumulate(counts)][:-1]


def as_bytes(rows: np.ndarray) -> np.ndarray:
    """Returns the memory of contiguous rows as bytes, without a copy."""
    # a view of zero rows has no last axis to be divided into bytes
    if not rows.size:
        return np.empty(0, np.uint8)
    return np.ascontiguousarray(rows).reshape(-1).view(np.uint8)


def row_bytes(block: np.ndarray) -> int:
    """Returns the number of bytes in one row of a block."""
    return block.dtype.itemsize * int(np.prod(block.shape[1:]))


def name_missing_ranks(missing: Sequence[int]) -> str:
    """Returns the sentence that names the ranks which the others wait for."""
    if not missing:
        return "No rank is missing: all of them wait, for the network or for data."
    named = ", ".join(map(str, missing[:_N_NAMED]))
    n_more = len(missing) - _N_NAMED
    return f"Missing: rank {named}{f' and {n_more} more' if n_more > 0 else ''}."


def describe_stuck_wait(phase: str, deadline: float) -> str:
    """Returns what a rank reports when it has waited for longer than the deadline."""
    return (
        f"waited {deadline:.0f} s for the other ranks in '{phase}'. One of them is stuck or much"
        " slower; if it is only slower, set HVD_XAI_DEADLINE to more seconds."
    )


def end_job(transport: Transport, rank: int, reason: str, code: int) -> None:
    """Ends every rank of the job at once, with the reason on standard error."""
    said = printable(f"rank {rank} on {socket.gethostname()} ends the job: {reason}")
    sys.stderr.write(f"hvd-xai: {said}\n")
    sys.stderr.flush()
    # in an elastic job the other ranks survive this one; they read there why it ended
    if is_elastic(os.environ):
        Store.from_environment(os.environ).write(FAILURE, [rank, socket.gethostname(), reason])
    transport.abort(code)
