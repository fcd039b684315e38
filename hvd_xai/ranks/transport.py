"""What carries the collectives from rank to rank: mpi4py where they are MPI processes, Horovod
where they are not.

No wait is longer than the deadline: what it ends, it ends for all ranks, with a message that names
those that are missing.
"""

import itertools
import os
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from hvd_xai.ranks.launcher import Store, is_elastic
from hvd_xai.ranks.watchdog import Watch

if TYPE_CHECKING:
    pass

ROOT = 0
EXIT_STUCK = 75  # EX_TEMPFAIL: the job was ended because a rank was waited for in vain
FAILURE = "failure"  # in the launcher's store: why a rank of an elastic job ended


@runtime_checkable
class Transport(Protocol):
    """The collectives that everything else is made of."""

    def allgather(self, phase: str, message: bytes) -> list[bytes]:
        """Collective: every rank must call this. Returns the message of each rank."""

    def gather(self, phase: str, block: np.ndarray, counts: Sequence[int]) -> np.ndarray | None:
        """Collective: every rank must call this.

        Returns the ranks' rows in the order of ranks on the root, None elsewhere.
        """

    def exchange(
        self, phase: str, block: np.ndarray, sent: Sequence[int], received: Sequence[int]
    ) -> np.ndarray:
        """Collective: every rank must call this.

        Returns the rows that each rank sent to this one, in the order of ranks.
        """

    def watch(self, phase: str) -> Watch:
        """Collective: every rank must call this.

        Returns what ends the job when a wait for the others takes too long.
        """

    def abort(self, code: int) -> None:
        """Ends every rank of the job now."""


def row_starts(counts: Sequence[int]) -> list[int]:
    """Returns where each rank's rows begin among those of all."""
    return [0, *itertools.accumulate(counts)][:-1]


def as_bytes(rows: np.ndarray) -> np.ndarray:
    """Returns the rows' memory as bytes; also of zero rows, which memoryview.cast refuses."""
    return (
        np.ascontiguousarray(rows).reshape(-1).view(np.uint8)
        if rows.size
        else np.empty(0, np.uint8)
    )


def missing_ranks(missing: Sequence[int]) -> str:
    """Returns the sentence that names the ranks which others wait for."""
    some = ", ".join(map(str, missing[:10])) + (
        f" and {len(missing) - 10} more" if len(missing) > 10 else ""
    )
    return (
        f"Missing: rank {some}."
        if missing
        else "No rank is missing: all of them wait, for the network or for data."
    )


def stuck_message(phase: str, deadline: float) -> str:
    """Returns what a rank says when it has waited for longer than the deadline."""
    return (
        f"waited {deadline:.0f} s for the other ranks in '{phase}'. One of them is stuck or much"
        " slower; if it is only slower, set HVD_XAI_DEADLINE to more seconds."
    )


def die(transport: Transport, rank: int, reason: str, code: int) -> None:
    """Ends every rank of the job now, with `reason` on standard error."""
    sys.stderr.write(f"hvd-xai: rank {rank} on {socket.gethostname()} ends the job: {reason}\n")
    sys.stderr.flush()
    if is_elastic(os.environ):
        Store.of(os.environ).write(FAILURE, [rank, socket.gethostname(), reason])
    transport.abort(code)
