"""Carries the collectives over Horovod's own, where the ranks are no MPI processes."""

import importlib
import itertools
import os
import struct
from collections.abc import Sequence
from functools import partial
from types import ModuleType

import numpy as np

from hvd_xai.errors import HorovodMissingError
from hvd_xai.ranks.launcher import Store
from hvd_xai.ranks.transport import (
    EXIT_STUCK,
    ROOT,
    as_bytes,
    describe_stuck_wait,
    end_job,
    name_missing_ranks,
    row_bytes,
)
from hvd_xai.ranks.watchdog import Watch

# key in the launcher's store, followed by a rank: number of the newest wait that has taken the rank
# more than half of the deadline
_WAITS = "waits-"


class OverHorovod:
    """Carries the collectives over Horovod's, where the ranks are no MPI processes.

    Horovod itself notices a rank that dies or exits. A rank that is stuck is found by elimination:
    every other rank writes to the launcher's store, when half of the deadline is over, that it
    waits.

    Args:
        horovod: Horovod's TensorFlow module, initialised.
        deadline: seconds that a wait for other ranks may take.
    """

    def __init__(self, horovod: ModuleType, deadline: float) -> None:
        self._horovod = horovod
        self._deadline = deadline
        self._rank, self._size = horovod.rank(), horovod.size()
        self._store = Store.from_environment(os.environ)
        self._wait_numbers = itertools.count(1)

    def allgather(self, phase: str, message: bytes) -> list[bytes]:
        """Returns every rank's message, in the order of ranks.

        Collective: every rank must call this.
        """
        # Horovod concatenates what the ranks send, and does not say where one message ends; so
        # each is preceded by its length
        #
        #     | 3 | a b c | 0 | | 2 | d e |       lengths are little-endian int64
        sent = np.frombuffer(struct.pack("<q", len(message)) + message, np.uint8)
        received = self._allgather_bytes(phase, sent).tobytes()
        messages = []
        at = 0
        while at < len(received):
            (length,) = struct.unpack_from("<q", received, at)
            messages.append(received[at + 8 : at + 8 + length])
            at += 8 + length
        return messages

    def gather(self, phase: str, block: np.ndarray, counts: Sequence[int]) -> np.ndarray | None:
        """Returns all ranks' rows on the root, in the order of ranks; None elsewhere.

        Collective: every rank must call this.
        """
        # Horovod has no gather to one rank; the others throw away what they receive
        received = self._allgather_bytes(phase, as_bytes(block))
        if self._rank != ROOT:
            return None
        return received.view(block.dtype).reshape(sum(counts), *block.shape[1:])

    def exchange(
        self, phase: str, block: np.ndarray, sent: Sequence[int], received: Sequence[int]
    ) -> np.ndarray:
        """Returns the rows that all ranks sent to this one, in the order of ranks.

        Collective: every rank must call this.
        """
        splits = np.array(sent, np.int32) * row_bytes(block)
        with self.watch(phase).once():
            rows, _ = self._horovod.alltoall(as_bytes(block), splits, name="hvd_xai.alltoall")
        return np.asarray(rows).view(block.dtype).reshape(sum(received), *block.shape[1:])

    def watch(self, phase: str) -> Watch:
        """Returns a guard that ends the job when a wait for other ranks outlasts the deadline.

        Collective: every rank must call this.
        """
        tell = partial(self._store.write, f"{_WAITS}{self._rank}")
        return Watch(self._deadline, self._wait_numbers, tell, partial(self._end, phase))

    def abort(self, code: int) -> None:
        """Ends this process at once; Horovod and its launcher end the others."""
        os._exit(code)

    def _allgather_bytes(self, phase: str, block: np.ndarray) -> np.ndarray:
        # one name for all: Horovod pairs the ranks' collectives by name, and keeps what it has
        # negotiated under it; the main thread alone calls this, so no two are under way at once
        with self.watch(phase).once():
            return np.asarray(self._horovod.allgather(block, name="hvd_xai.allgather"))

    def _end(self, phase: str, number: int) -> None:
        reason = f"{describe_stuck_wait(phase, self._deadline)} {self._name_missing(number)}"
        end_job(self, self._rank, reason, EXIT_STUCK)

    def _name_missing(self, number: int) -> str:
        """Returns the sentence that names the ranks which have not reached a wait.

        It is empty if the launcher's store cannot be reached.
        """
        # this rank has written there before: nothing found means that there is no store
        if self._store.read(f"{_WAITS}{self._rank}") is None:
            return ""
        told = [self._store.read(f"{_WAITS}{rank}") for rank in range(self._size)]
        return name_missing_ranks(
            [
                rank
                for rank, newest in enumerate(told)
                if not isinstance(newest, int) or newest < number
            ]
        )


def start_horovod(deadline: float) -> ModuleType:
    """Returns Horovod's TensorFlow module, initialised. Collective: every rank must call this.

    Args:
        deadline: seconds that a wait for other ranks may take.

    Raises:
        HorovodMissingError: if Horovod is not installed, or does not load.
    """
    # a rank that explains keeps the others waiting in their next allreduce; without this, Horovod
    # reports that as a stall
    os.environ.setdefault("HOROVOD_STALL_CHECK_TIME_SECONDS", str(int(deadline)))
    try:
        horovod = importlib.import_module("horovod.tensorflow")
    except ImportError as error:
        raise HorovodMissingError(
            f"Horovod is not installed or does not load ({error}). Build it with: hvd-xai"
            " install-horovod"
        ) from error
    horovod.init()
    return horovod
