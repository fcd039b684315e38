"""The ranks of one job: who they are, how they agree, and how rows come together at the root.

Everything above this module sees one `World`, and never asks what carries the data.

Ranks fail together. Work that can fail is done inside `World.together`, which ends in an agreement:
either every rank goes on, or every rank raises. A rank that dies outside such a block takes the job
with it: an uncaught error aborts the job, the ranks that wait notice one that exits early, and no
wait is longer than the deadline.

In an elastic job ranks leave and join. The `World` stays the same object: `World.reconnect` gives
it the ranks that there are now. Whatever is shared out by rank must be shared out again after that;
nothing else needs to know. The job goes on without a host that is lost. A rank that ends with an
error of its own tells the others so by way of the launcher, and they end as well.
"""

import importlib
import json
import logging
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

import numpy as np

from hvd_xai.errors import PeerError, WorldError, is_agreed, mark_agreed
from hvd_xai.protocols import Json
from hvd_xai.ranks import messages
from hvd_xai.ranks.connect import Alone, connect
from hvd_xai.ranks.launcher import (
    FAILURE,
    Store,
    check_sizes,
    is_elastic,
    is_gloo,
    launched_size,
)
from hvd_xai.ranks.over_horovod import start_horovod
from hvd_xai.ranks.over_mpi import import_mpi
from hvd_xai.ranks.transport import EXIT_STUCK, ROOT, Transport, end_job
from hvd_xai.ranks.uncaught_errors import end_job_on_uncaught_error
from hvd_xai.ranks.watchdog import Watch, read_deadline

log = logging.getLogger(__name__)

Value = TypeVar("Value", bound=Json)
# unbound: with a bound that is recursive, as `Json`, mypy does not take None out of `Sent | None`
Sent = TypeVar("Sent")


class World:
    """The ranks of this job. Collective: every rank must make one.

    Args:
        rank: number of this process among the ranks, 0 to size - 1; the root is 0.
        size: number of ranks.
        local_rank: number of this process among the ranks on its host.
        local_size: number of ranks on this host.
        transport: carrier of the collectives.

    Attributes:
        host: name of this rank's host.
        hosts: name of each rank's host, in the order of ranks.
        job: name that no other job has, the same on every rank and after every reset.
        resets: number of times that the job's ranks changed; above 0 in elastic jobs only.
        under_way: functions that finish what an error must not break off when it ends the job;
            `finish` calls each with whether all ranks call it together.

    Example:
        >>> world = World.alone()
        >>> world.rank, world.size, world.is_root
        (0, 1, True)
        >>> with world.together("reading the probe"):
        ...     rows = [1, 2, 3]  # work that may fail on some rank
        >>> sum(world.allgather("counting the rows", len(rows)))
        3
    """

    def __init__(
        self, rank: int, size: int, local_rank: int, local_size: int, transport: Transport
    ) -> None:
        self.host = socket.gethostname()
        self.job = ""
        self.resets = 0
        self.under_way: list[Callable[[bool], None]] = []
        self._meet(rank, size, local_rank, local_size, transport)

    def _meet(
        self, rank: int, size: int, local_rank: int, local_size: int, transport: Transport
    ) -> None:
        """Learns who the ranks are, at the start or after a reset.

        Collective: every rank must call this.
        """
        self.rank, self.size, self.local_rank, self.local_size = rank, size, local_rank, local_size
        self._transport = transport
        met = self.allgather(
            "naming the hosts", (self.host, self.job, secrets.token_hex(8), self.resets)
        )
        hosts, jobs, proposals, resets = zip(*met, strict=True)
        self.hosts = list(hosts)
        # a rank that has just joined an elastic job does not know its name yet; at the start no
        # rank does, and all take the root's proposal
        self.job = next(filter(None, jobs), proposals[ROOT])
        self.resets = max(resets)

    @classmethod
    def alone(cls) -> "World":
        """Returns a world of this process only, which needs neither MPI nor Horovod.

        Example:
            >>> World.alone().size
            1
        """
        return cls(0, 1, 0, 1, Alone())

    @classmethod
    def connect(cls) -> "World":
        """Brings the launched ranks together. Collective: every rank must call this.

        From here on, an uncaught error on any rank ends the job.

        Raises:
            HorovodMissingError: if Horovod is not installed.
            WorldError: if the launcher, Horovod and MPI count different numbers of ranks.
        """
        deadline = read_deadline(os.environ)
        # mpi4py comes before Horovod starts, so that both use one MPI, with threads allowed
        mpi = None if is_gloo(os.environ) else import_mpi()
        horovod = start_horovod(deadline)
        rank, size = horovod.rank(), horovod.size()
        mpi_size = None if mpi is None else mpi.COMM_WORLD.Get_size()
        # in an elastic job the launcher's number dates from when it started this process
        if not is_elastic(os.environ):
            check_sizes(launched_size(os.environ), size, mpi_size, gloo=is_gloo(os.environ))
        world = cls(
            rank, size, horovod.local_rank(), horovod.local_size(), connect(horovod, mpi, deadline)
        )
        end_job_on_uncaught_error(world)
        return world

    def reconnect(self) -> None:
        """Takes over the ranks that an elastic job has after a reset.

        Collective: every rank that is left must call this, and every new one `connect`.

        Raises:
            PeerError: on all ranks that are left, if another one ended with an error; the job goes
                on only without hosts that are lost.
            WorldError: if this process is no rank of the job any more, or cannot reach the others.
        """
        failure = Store.from_environment(os.environ).read(FAILURE)
        if isinstance(failure, list):
            rank, host, reason = failure
            raise mark_agreed(PeerError("training", [(int(str(rank)), str(host), str(reason))]))
        horovod = importlib.import_module("horovod.tensorflow")
        horovod.shutdown()
        try:
            horovod.init()
        except ValueError as error:
            # marked, so that this process ends alone: the others go on without it
            raise mark_agreed(
                WorldError(
                    f"rank {self.rank} on {self.host} is not among the job's ranks after a reset:"
                    f" {error}"
                )
            ) from error
        self.resets += 1
        # elastic jobs have no MPI
        transport = connect(horovod, None, read_deadline(os.environ))
        self._meet(
            horovod.rank(), horovod.size(), horovod.local_rank(), horovod.local_size(), transport
        )

    @property
    def is_root(self) -> bool:
        """Whether this rank is the one that commits."""
        return self.rank == ROOT

    def allgather(self, phase: str, value: Value) -> list[Value]:
        """Returns every rank's value, in the order of ranks.

        Collective: every rank must call this.

        Args:
            phase: what the ranks are doing, for messages.
            value: small value; a tuple arrives as a tuple.

        Example:
            >>> World.alone().allgather("counting the batches", 12)
            [12]
        """
        return self._allgather_as_text(phase, value)

    def _allgather_as_text(self, phase: str, value: Sent) -> list[Sent]:
        sent = self._transport.allgather(phase, messages.to_bytes(value))
        return [messages.from_bytes(message) for message in sent]

    def from_root(self, phase: str, value: Sent | None) -> Sent:
        """Returns the root's value on every rank.

        Collective: every rank must call this.

        Args:
            phase: what the ranks are doing, for messages.
            value: small value that the root sends; other ranks may pass None.

        Raises:
            TypeError: on every rank, if the root passes None too. Send `[]`, or gather with
                `allgather`, where the root may have nothing to say.

        Example:
            >>> World.alone().from_root("naming the folder", "epochs/000007")
            'epochs/000007'
        """
        sent = self._allgather_as_text(phase, value)[ROOT]
        if sent is None:
            raise mark_agreed(TypeError(f"{phase}: rank 0 must send a value; got None"))
        return sent

    def same(self, phase: str, value: Json, complaint: str) -> None:
        """Raises on every rank unless all ranks hold the same value.

        Collective: every rank must call this.

        Args:
            phase: what the ranks are doing, for messages.
            value: small value to compare; send the digest of a large one.
            complaint: sentence for the user that says what differs, and how to mend it.

        Raises:
            ValueError: on every rank, naming the first rank whose value is not the root's.

        Example:
            >>> World.alone().same("comparing the epochs", 5, "give every rank the same epochs=.")
        """
        # compared as text: NaN equals NaN, and the order of keys does not count
        texts = self.allgather(phase, json.dumps(value, sort_keys=True))
        for rank, text in enumerate(texts):
            if text != texts[ROOT]:
                raise mark_agreed(ValueError(f"rank {rank} differs from rank 0: {complaint}"))

    def gather_rows(self, phase: str, rows: np.ndarray, counts: Sequence[int]) -> np.ndarray | None:
        """Brings one round of rows to the root. Collective: every rank must call this.

        Args:
            phase: what the ranks are doing, for messages.
            rows: rows `[counts[rank], ...]` of this rank; all ranks' have one dtype, which may be
                structured, and one trailing shape.
            counts: number of rows that each rank sends. Keep a round below 64 MiB: larger messages
                are slower, and single counts above 2^31 fail in MPI.

        Returns:
            All rows `[sum(counts), ...]` on the root, in the order of ranks; None elsewhere.

        Example:
            >>> World.alone().gather_rows("merging rows", np.array([0.5, 1.5]), [2])
            array([0.5, 1.5])
        """
        return self._transport.gather(phase, rows, counts)

    def exchange_rows(
        self, phase: str, rows: np.ndarray, sent: Sequence[int], received: Sequence[int]
    ) -> np.ndarray:
        """Sends rows from every rank to every other. Collective: every rank must call this.

        Args:
            phase: what the ranks are doing, for messages.
            rows: rows `[sum(sent), ...]` in the order of the ranks that they go to; all ranks' have
                one dtype and one trailing shape.
            sent: number of rows that go to each rank.
            received: number of rows that come from each rank, which is what that rank says it
                sends to this one.

        Returns:
            Rows `[sum(received), ...]` in the order of the ranks that they come from.

        Example:
            >>> World.alone().exchange_rows("merging rows", np.array([0.5, 1.5]), [2], [2])
            array([0.5, 1.5])
        """
        return self._transport.exchange(phase, rows, sent, received)

    def watch(self, phase: str) -> Watch:
        """Returns a guard that ends the job when a wait for other ranks outlasts the deadline.

        Collective: every rank must call this, and guard the same waits in the same order.

        It is for waits outside of this class, such as those in Horovod's allreduce.

        Example:
            >>> watch = World.alone().watch("a training step")
            >>> with watch:
            ...     pass  # train one step
        """
        return self._transport.watch(phase)

    def waiting(self, phase: str) -> AbstractContextManager[None]:
        """Guards a single wait, as `watch` guards many.

        Collective: every rank must enter and leave this block.
        """
        return self.watch(phase).once()

    def agree(self, phase: str, error: BaseException | None = None) -> None:
        """Returns on all ranks, or raises on all. Collective: every rank must call this.

        Args:
            phase: what the ranks are doing, for messages.
            error: error that this rank met; None if it met none.

        Raises:
            PeerError: on every rank, if any met an error. Where all ranks met an error of one type,
                each raises its own instead.

        Example:
            >>> World.alone().agree("opening the run")
        """
        message = None if error is None else f"{type(error).__name__}: {error}"
        failures = [
            (rank, self.hosts[rank], text)
            for rank, text in enumerate(self.allgather(phase, message))
            if text is not None
        ]
        if not failures:
            return
        types = {text.partition(":")[0] for _, _, text in failures}
        if error is not None and len(failures) == self.size and len(types) == 1:
            raise mark_agreed(error)
        raise mark_agreed(PeerError(phase, failures)) from error

    @contextmanager
    def together(self, phase: str) -> Iterator[None]:
        """Does local work that can fail, then agrees on whether it failed anywhere.

        Collective: every rank must enter and leave this block. Put no other collective inside: a
        rank that has failed would not come to it.

        Raises:
            PeerError: on every rank, if the work failed on any, as `agree` says.

        Example:
            >>> with World.alone().together("opening the run"):
            ...     folder = "runs/script"
        """
        error: Exception | None = None
        try:
            yield
        except Exception as caught:  # noqa: BLE001
            error = caught
        # outside of the except clause: every rank comes here, whether it failed or not
        self.agree(phase, error)

    def finish(self, error: BaseException) -> None:
        """Finishes what is under way before an error ends the job.

        Collective where all ranks raise that error. What fails meanwhile is logged, so that the
        error which ends the job is the one that the user sees.
        """
        # in an elastic job, the ranks that raise the error may not be all that there were
        together = (is_agreed(error) or self.size == 1) and not is_elastic(os.environ)
        while self.under_way:
            try:
                # taken out before it is called, so that a second error does not call it again
                self.under_way.pop(0)(together)
            except Exception as failure:  # noqa: BLE001
                log.warning("not all that was under way could be finished: %s", failure)

    def abort(self, reason: str, code: int = EXIT_STUCK) -> None:
        """Ends every rank of the job at once, with the reason on standard error."""
        end_job(self._transport, self.rank, reason, code)
