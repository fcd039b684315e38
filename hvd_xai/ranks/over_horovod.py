"""Carries the collectives over Horovod's own, where the ranks are no MPI processes."""

import itertools
import os
import struct
from collections.abc import Sequence
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from hvd_xai.ranks.launcher import Store
from hvd_xai.ranks.watchdog import Watch

if TYPE_CHECKING:
    pass
from hvd_xai.ranks.transport import EXIT_STUCK, ROOT, as_bytes, die, missing_ranks, stuck_message

# in the launcher's store, with a rank behind: the newest wait that it has long been in
_WAITS = "waits-"


class OverHorovod:
    """Carries the collectives over Horovod's, where the ranks are no MPI processes.

    Horovod itself notices a rank that dies or exits. One that is stuck is known by what the others
    say, who leave word with the launcher when half of the deadline is over.
    """

    def __init__(self, horovod: ModuleType, deadline: float) -> None:
        self._horovod = horovod
        self._deadline = deadline
        self._rank, self._size = horovod.rank(), horovod.size()
        self._store = Store.of(os.environ)
        self._waits = itertools.count(1)

    def allgather(self, phase: str, message: bytes) -> list[bytes]:
        """Returns the message of each rank. Collective: every rank must call this."""
        # each message goes with its length in front: an allgather concatenates, and only that tells
        # where one ends
        received = self._all(
            phase, np.frombuffer(struct.pack("<q", len(message)) + message, np.uint8)
        ).tobytes()
        messages = []
        at = 0
        while at < len(received):
            (length,) = struct.unpack_from("<q", received, at)
            messages.append(received[at + 8 : at + 8 + length])
            at += 8 + length
        return messages

    def gather(self, phase: str, block: np.ndarray, counts: Sequence[int]) -> np.ndarray | None:
        """Returns the ranks' rows in the order of ranks on the root, None elsewhere.

        Collective: every rank must call this.
        """
        received = self._all(phase, as_bytes(block))
        if self._rank != ROOT:
            return None
        return received.view(block.dtype).reshape(sum(counts), *block.shape[1:])

    def exchange(
        self, phase: str, block: np.ndarray, sent: Sequence[int], received: Sequence[int]
    ) -> np.ndarray:
        """Returns the rows that each rank sent to this one, in the order of ranks.

        Collective: every rank must call this.
        """
        size = block.dtype.itemsize * int(np.prod(block.shape[1:]))
        splits = np.array(sent, np.int32) * size
        with self.watch(phase).once():
            rows, _ = self._horovod.alltoall(as_bytes(block), splits, name="hvd_xai.alltoall")
        return np.asarray(rows).view(block.dtype).reshape(sum(received), *block.shape[1:])

    def watch(self, phase: str) -> Watch:
        """Returns what ends the job when a wait for the others takes too long.

        Collective: every rank must call this.
        """
        tell = partial(self._store.write, f"{_WAITS}{self._rank}")
        return Watch(self._deadline, self._waits, tell, partial(self._end, phase))

    def abort(self, code: int) -> None:
        """Ends every rank of the job now."""
        os._exit(code)

    def _all(self, phase: str, block: np.ndarray) -> np.ndarray:
        with self.watch(phase).once():
            return np.asarray(self._horovod.allgather(block, name="hvd_xai.allgather"))

    def _end(self, phase: str, number: int) -> None:
        die(
            self,
            self._rank,
            f"{stuck_message(phase, self._deadline)} {self._missing(number)}",
            EXIT_STUCK,
        )

    def _missing(self, number: int) -> str:
        """Says which ranks are not in the wait that this one is in, as far as they have left word
        where the launcher keeps it.
        """
        if self._store.read(f"{_WAITS}{self._rank}") is None:
            return ""  # the launcher cannot be reached
        told = [self._store.read(f"{_WAITS}{rank}") for rank in range(self._size)]
        return missing_ranks(
            [
                rank
                for rank, known in enumerate(told)
                if not isinstance(known, int) or known < number
            ]
        )
