"""The ranks of one job: who they are, how they agree, and how rows come together at the root.

Everything above this module sees one `World`, and never asks what carries the data.

Ranks fail together. Work that can fail is done inside `World.together`, which ends in an agreement:
either every rank goes on, or every rank raises. A rank that dies outside such a block takes the job
with it: an uncaught error aborts it, a rank that exits early is noticed by those that wait for it,
and no wait is longer than the deadline.

In an elastic job the ranks come and go. The `World` stays the same object: `World.reconnect` gives
it the ranks that there are now. What is cut by rank is cut anew after that; nothing else needs to
know. A host that is lost is let go, but a rank that ends with an error of its own tells the others
so by way of the launcher, and they end as well.
"""

import importlib
import json
import logging
import os
import pickle
import secrets
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import ModuleType, TracebackType
from typing import TypeVar

import numpy as np

from hvd_xai.errors import HorovodMissingError, PeerError, WorldError
from hvd_xai.protocols import Json
from hvd_xai.ranks.connect import alone, connect
from hvd_xai.ranks.launcher import Store, is_elastic, is_gloo, launched_size
from hvd_xai.ranks.over_mpi import import_mpi
from hvd_xai.ranks.transport import EXIT_STUCK, FAILURE, ROOT, Transport, die
from hvd_xai.ranks.watchdog import Watch

log = logging.getLogger(__name__)

DEADLINE_SECONDS = 1800.0
Value = TypeVar("Value", bound=Json)
# unbound: with a bound that is recursive, as `Json`, mypy does not take None out of `Sent | None`
Sent = TypeVar("Sent")


class World:
    """The ranks of this job. Collective: every rank must make one.

    Args:
        rank: of this process, 0 to size - 1; the root is 0.
        size: how many ranks there are.
        local_rank: of this process on its host.
        local_size: how many ranks its host has.
        transport: what carries the collectives.

    Attributes:
        host: this rank's host name.
        hosts: each rank's.
        job: a name that no other job has, the same on every rank and after every reset.
        resets: how often the ranks of this job came and went; above 0 in elastic jobs only.
        under_way: what an error that ends the job must not break off: called by `finish`, with
            whether all ranks call it together.
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
        """Takes these ranks for the world's. Collective: every rank must call this."""
        self.rank, self.size, self.local_rank, self.local_size = rank, size, local_rank, local_size
        self._transport = transport
        met = self.allgather(
            "naming the hosts", (self.host, self.job, secrets.token_hex(8), self.resets)
        )
        hosts, jobs, proposals, resets = zip(*met, strict=True)
        self.hosts = list(hosts)
        # a rank that has just joined an elastic job does not know its name yet; at the start no
        # rank does, and the root's proposal is taken
        self.job = next(filter(None, jobs), proposals[ROOT])
        self.resets = max(resets)

    @classmethod
    def alone(cls) -> "World":
        """Returns a world of this process only; it needs neither MPI nor Horovod."""
        return cls(0, 1, 0, 1, alone())

    @classmethod
    def connect(cls) -> "World":
        """Brings the launched ranks together. Collective: every rank must call this.

        mpi4py is imported before Horovod starts, so that both use one MPI, with threads allowed. An
        uncaught error on any rank ends the job from here on.

        Raises:
            HorovodMissingError: if Horovod is not installed.
            WorldError: if the launcher, Horovod and MPI count different numbers of ranks.
        """
        deadline = _deadline()
        mpi = None if is_gloo(os.environ) else import_mpi()
        horovod = _start_horovod(deadline)
        rank, size = horovod.rank(), horovod.size()
        mpi_size = None if mpi is None else mpi.COMM_WORLD.Get_size()
        # there the launcher's number is of when it started this process
        if not is_elastic(os.environ):
            check_sizes(launched_size(os.environ), size, mpi_size, gloo=is_gloo(os.environ))
        world = cls(
            rank, size, horovod.local_rank(), horovod.local_size(), connect(horovod, mpi, deadline)
        )
        _end_job_on_uncaught_error(world)
        return world

    def reconnect(self) -> None:
        """Takes the ranks that an elastic job has now.

        Collective: every rank that is left, and every new one by `connect`, must call this.

        Raises:
            PeerError: on all ranks that are left, if another one ended with an error; only lost
                hosts are let go.
            WorldError: if this process is no rank of the job any more, or the others could not be
                reached.
        """
        failure = Store.of(os.environ).read(FAILURE)
        if isinstance(failure, list):
            rank, host, reason = failure
            raise agreed(PeerError("training", [(int(str(rank)), str(host), str(reason))]))
        horovod = importlib.import_module("horovod.tensorflow")
        horovod.shutdown()
        try:
            horovod.init()
        except ValueError as error:
            # this rank is out; the others go on without it, and are not told to end
            raise agreed(
                WorldError(
                    f"rank {self.rank} on {self.host} is not among the job's ranks after a reset:"
                    f" {error}"
                )
            ) from error
        self.resets += 1
        transport = connect(horovod, None, _deadline())
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
        return self._allgather_pickled(phase, value)

    def _allgather_pickled(self, phase: str, value: Sent) -> list[Sent]:
        # pickled, not JSON, so that tuples keep their type; every message comes from a rank of
        # this very job, which runs the same code
        messages = self._transport.allgather(phase, pickle.dumps(value))
        return [pickle.loads(message) for message in messages]

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
        sent = self._allgather_pickled(phase, value)[ROOT]
        if sent is None:
            raise agreed(TypeError(f"{phase}: rank 0 must send a value; got None"))
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
                raise agreed(ValueError(f"rank {rank} differs from rank 0: {complaint}"))

    def gather_rows(self, phase: str, rows: np.ndarray, counts: Sequence[int]) -> np.ndarray | None:
        """Brings one round of rows to the root. Collective: every rank must call this.

        Args:
            phase: what is going on, for messages.
            rows: `[counts[rank], ...]` of this rank; the dtype, which may be structured, and the
                trailing shape are the same on all ranks.
            counts: rows of each rank. Keep a round below 64 MiB: larger messages are slower, and
                single counts above 2^31 fail in MPI.

        Returns:
            On the root `[sum(counts), ...]`, in the order of ranks; None elsewhere.
        """
        return self._transport.gather(phase, rows, counts)

    def exchange_rows(
        self, phase: str, rows: np.ndarray, sent: Sequence[int], received: Sequence[int]
    ) -> np.ndarray:
        """Sends rows from every rank to every other. Collective: every rank must call this.

        Args:
            phase: what is going on, for messages.
            rows: `[sum(sent), ...]` in the order of the ranks that they go to; dtype and trailing
                shape as in `gather_rows`.
            sent: rows that go to each rank.
            received: rows that come from each rank; what that rank says it sends to this one.

        Returns:
            `[sum(received), ...]` in the order of the ranks that they come from.
        """
        return self._transport.exchange(phase, rows, sent, received)

    def watch(self, phase: str) -> Watch:
        """Returns what ends the job when a wait for the other ranks takes longer than the deadline;
        for waits that are not the world's own.

        Collective: every rank must call this, and have the same waits.
        """
        return self._transport.watch(phase)

    def waiting(self, phase: str) -> AbstractContextManager[None]:
        """Guards one such wait. Collective: every rank must enter and leave this block."""
        return self.watch(phase).once()

    def agree(self, phase: str, error: BaseException | None = None) -> None:
        """Goes on on all ranks, or raises on all of them. Collective: every rank must call this.

        Raises:
            PeerError: on every rank, if any gave an error. Where all ranks met an error of one
                type, each raises its own instead.
        """
        message = None if error is None else f"{type(error).__name__}: {error}"
        messages = self.allgather(phase, message)
        failures = [
            (rank, self.hosts[rank], text) for rank, text in enumerate(messages) if text is not None
        ]
        if not failures:
            return
        everywhere = (
            len(failures) == self.size
            and len({text.partition(":")[0] for _, _, text in failures}) == 1
        )
        if everywhere and error is not None:
            raise agreed(error)
        raise agreed(PeerError(phase, failures)) from error

    @contextmanager
    def together(self, phase: str) -> Iterator[None]:
        """Does local work that can fail, then agrees.

        Collective: every rank must enter and leave this block.

        Raises:
            PeerError: as `agree`.
        """
        error: Exception | None = None
        try:
            yield
        except Exception as caught:  # noqa: BLE001
            error = caught
        self.agree(phase, error)

    def finish(self, error: BaseException) -> None:
        """Finishes what is under way, each once, before an error ends the job.

        Collective where all ranks raise that error.

        What fails meanwhile is logged: the error that ends the job is the one to be seen.
        """
        # in an elastic job the ranks that raise it may not be all that there were
        together = (is_agreed(error) or self.size == 1) and not is_elastic(os.environ)
        while self.under_way:
            try:
                self.under_way.pop(0)(together)
            except Exception as failure:  # noqa: BLE001
                log.warning("not all that was under way could be finished: %s", failure)

    def abort(self, reason: str, code: int = EXIT_STUCK) -> None:
        """Ends every rank of the job now, with `reason` on standard error."""
        die(self._transport, self.rank, reason, code)


def agreed(error: BaseException) -> BaseException:
    """Marks an error as one that every rank raises."""
    error.agreed = True  # type: ignore[attr-defined]  # a mark on whatever error it is
    return error


def is_agreed(error: BaseException) -> bool:
    """Returns whether every rank raises this error, so that one report of it is enough."""
    return getattr(error, "agreed", False) is True


def check_sizes(
    launched: int | None, horovod_size: int, mpi_size: int | None, *, gloo: bool
) -> None:
    """Refuses a job whose launcher, Horovod and MPI count different numbers of ranks: each rank
    would train alone and overwrite the others.

    Args:
        launched: ranks that the launcher says it started; None if no launcher said.
        horovod_size: ranks that Horovod sees.
        mpi_size: ranks that mpi4py sees; None if it was not asked.
        gloo: whether Horovod runs without MPI.

    Raises:
        WorldError: saying which counts differ and what to do.
    """
    if launched is not None and launched != horovod_size:
        raise WorldError(
            f"the launcher started {launched} ranks but Horovod sees {horovod_size}. The launcher"
            " and Horovod use different MPIs: start the job with the mpirun that belongs to the"
            " MPI Horovod was built with (under Slurm: srun --mpi=pmix), or with horovodrun."
            " `hvd-xai doctor` shows which MPI each of them uses."
        )
    if not gloo and mpi_size is not None and mpi_size != horovod_size:
        raise WorldError(
            f"Horovod sees {horovod_size} ranks but mpi4py sees {mpi_size}: they are linked with"
            " different MPIs. Rebuild Horovod with `hvd-xai install-horovod --force`, then look at"
            " `hvd-xai doctor`."
        )
    if not gloo and mpi_size is None and horovod_size > 1:
        raise WorldError(
            "mpi4py is not installed, and the ranks were started over MPI: pip install"
            " 'hvd_xai[train]', or use horovodrun --gloo."
        )


def _end_job_on_uncaught_error(world: World) -> None:
    """Ends the job when this rank dies of an error that the others do not know of; they would wait
    for it for ever.
    """
    show = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        # every rank is on its way out
        if is_agreed(error) or (world.size == 1 and not is_elastic(os.environ)):
            if world.is_root:
                show(kind, error, trace)
            world.finish(error)
            return
        lines = "".join(traceback.format_exception(kind, error, trace))
        sys.stderr.write(f"[rank {world.rank}/{world.size} {world.host}] {lines}")
        world.finish(error)
        world.abort(f"uncaught {kind.__name__}: {error}", 1)

    sys.excepthook = hook


def _deadline() -> float:
    text = os.environ.get("HVD_XAI_DEADLINE", str(DEADLINE_SECONDS))
    try:
        deadline = float(text)
    except ValueError:
        deadline = 0.0
    if not 0 < deadline < threading.TIMEOUT_MAX:
        raise WorldError(
            "HVD_XAI_DEADLINE must be a number of seconds above 0, at most some years; got"
            f" '{text}'"
        )
    return deadline


def _start_horovod(deadline: float) -> ModuleType:
    # a rank that explains keeps the others waiting in the next allreduce; that is no stall
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
