"""Chooses what carries the collectives."""

import itertools
import math
import os
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from hvd_xai.ranks.watchdog import Watch

if TYPE_CHECKING:
    pass
from hvd_xai.ranks.over_horovod import OverHorovod
from hvd_xai.ranks.over_mpi import OverMpi
from hvd_xai.ranks.transport import Transport


class Alone:
    """Carries nothing anywhere."""

    def allgather(self, phase: str, message: bytes) -> list[bytes]:
        """Returns the message of each rank. Collective: every rank must call this."""
        return [message]

    def gather(self, phase: str, block: np.ndarray, counts: Sequence[int]) -> np.ndarray | None:
        """Returns the ranks' rows in the order of ranks on the root, None elsewhere.

        Collective: every rank must call this.
        """
        return block

    def exchange(
        self, phase: str, block: np.ndarray, sent: Sequence[int], received: Sequence[int]
    ) -> np.ndarray:
        """Returns the rows that each rank sent to this one, in the order of ranks.

        Collective: every rank must call this.
        """
        return block

    def watch(self, phase: str) -> Watch:
        """Returns what ends the job when a wait for the others takes too long.

        Collective: every rank must call this.
        """
        return Watch(math.inf, itertools.count(), lambda _: None, lambda _: None)

    def abort(self, code: int) -> None:
        """Ends every rank of the job now."""
        os._exit(code)


def alone() -> Transport:
    """Returns what carries nothing, for a world of one rank."""
    return Alone()


def connect(horovod: ModuleType, mpi: ModuleType | None, deadline: float) -> Transport:
    """Returns what carries data between Horovod's ranks; over MPI, where that is given.

    Collective: every rank must call this.
    """
    if horovod.size() == 1:
        return Alone()
    return OverHorovod(horovod, deadline) if mpi is None else OverMpi(mpi, deadline)
