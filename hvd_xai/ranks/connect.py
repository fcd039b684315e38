"""Chooses what carries the collectives: mpi4py, Horovod, or nothing where a rank is alone."""

import itertools
import math
import os
from collections.abc import Sequence
from types import ModuleType

import numpy as np

from hvd_xai.ranks.over_horovod import OverHorovod
from hvd_xai.ranks.over_mpi import OverMpi
from hvd_xai.ranks.transport import Transport
from hvd_xai.ranks.watchdog import Watch


class Alone:
    """Carries a single rank's collectives: whatever it sends comes straight back.

    Example:
        >>> Alone().allgather("greeting", b"hello")
        [b'hello']
    """

    def allgather(self, phase: str, message: bytes) -> list[bytes]:
        """Returns the message. Collective: every rank must call this."""
        return [message]

    def gather(self, phase: str, block: np.ndarray, counts: Sequence[int]) -> np.ndarray | None:
        """Returns the rows. Collective: every rank must call this."""
        return block

    def exchange(
        self, phase: str, block: np.ndarray, sent: Sequence[int], received: Sequence[int]
    ) -> np.ndarray:
        """Returns the rows. Collective: every rank must call this."""
        return block

    def watch(self, phase: str) -> Watch:
        """Returns a guard that never ends the job. Collective: every rank must call this."""
        return Watch(math.inf, itertools.count(), lambda _: None, lambda _: None)

    def abort(self, code: int) -> None:
        """Ends this process at once, with this exit code."""
        os._exit(code)


def connect(horovod: ModuleType, mpi: ModuleType | None, deadline: float) -> Transport:
    """Returns the carrier that suits the launched ranks.

    Collective: every rank must call this.

    Args:
        horovod: Horovod's TensorFlow module, initialised.
        mpi: mpi4py's `MPI`; None where the ranks are no MPI processes.
        deadline: seconds that a wait for other ranks may take.
    """
    if horovod.size() == 1:
        return Alone()
    return OverHorovod(horovod, deadline) if mpi is None else OverMpi(mpi, deadline)
