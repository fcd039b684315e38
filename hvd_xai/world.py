"""The ranks of one job: who they are, how they agree, and how rows come together at the root.

mpi4py carries the data where the ranks are MPI processes; Horovod's own collectives carry it where there is no MPI, as under
`horovodrun --gloo`. Everything above this module sees one `World` and never asks which of the two it is.

Ranks fail together. Work that can fail is done inside `World.together`, which ends in an agreement: either every rank goes on, or every
rank raises. A rank that dies outside such a block takes the job with it: an uncaught error aborts it, a rank that exits early is noticed
by those that wait for it, and no wait is longer than the deadline.

In an elastic job the ranks come and go. The `World` stays the same object: `World.reconnect` gives it the ranks that there are now. What is
cut by rank is cut anew after that; nothing else needs to know. A host that is lost is let go, but a rank that ends with an error of its own
tells the others so by way of the launcher, and they end as well.
"""

import atexit
import importlib
import itertools
import json
import logging
import os
import secrets
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from hvd_xai.errors import HorovodMissingError, PeerError, WorldError
from hvd_xai.store import Store
from hvd_xai.types import Json

if TYPE_CHECKING:
    from mpi4py import MPI

log = logging.getLogger(__name__)

ROOT = 0
DEADLINE_SECONDS = 1800.0
EXIT_STUCK = 75  # EX_TEMPFAIL: the job was ended because a rank was waited for in vain

_EXIT_TAG, _WAIT_TAG = 7, 8
_PATIENCE_SECONDS = 1.0  # after which a rank tells the root that it waits
_FAILURE = "failure"  # under which a rank of an elastic job leaves why it ended
_LAUNCHER_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "HOROVOD_SIZE", "SLURM_STEP_NUM_TASKS")


@runtime_checkable
class Transport(Protocol):
    """The collectives that everything else is made of."""

    def allgather(self, phase: str, message: bytes) -> list[bytes]:
        """Collective: every rank must call this. Returns the message of each rank."""

    def gather(self, phase: str, block: np.ndarray, counts: Sequence[int]) -> np.ndarray | None:
        """Collective: every rank must call this. Returns the ranks' rows in the order of ranks on the root, None elsewhere."""

    def exchange(self, phase: str, block: np.ndarray, sent: Sequence[int], received: Sequence[int]) -> np.ndarray:
        """Collective: every rank must call this. Returns the rows that each rank sent to this one, in the order of ranks."""

    def abort(self, code: int) -> None:
        """Ends every rank of the job now."""


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
        under_way: what an error that ends the job must not break off: called by `finish`, with whether all ranks call it together.
    """

    def __init__(self, rank: int, size: int, local_rank: int, local_size: int, transport: Transport) -> None:
        self.host = socket.gethostname()
        self.job = ""
        self.resets = 0
        self.under_way: list[Callable[[bool], None]] = []
        self._meet(rank, size, local_rank, local_size, transport)

    def _meet(self, rank: int, size: int, local_rank: int, local_size: int, transport: Transport) -> None:
        """Takes these ranks for the world's. Collective: every rank must call this."""
        self.rank, self.size, self.local_rank, self.local_size = rank, size, local_rank, local_size
        self._transport = transport
        met = self.allgather("naming the hosts", [self.host, self.job, secrets.token_hex(8), self.resets])
        known = [entry for entry in met if isinstance(entry, list)]
        self.hosts = [str(entry[0]) for entry in known]
        # a rank that has just joined has no name of the job yet; where none has, the root's proposal is taken
        self.job = next((str(entry[1]) for entry in known if entry[1]), str(known[ROOT][2]))
        self.resets = max(int(str(entry[3])) for entry in known)

    @classmethod
    def alone(cls) -> "World":
        """Returns a world of this process only; it needs neither MPI nor Horovod."""
        return cls(0, 1, 0, 1, _Alone())

    @classmethod
    def connect(cls) -> "World":
        """Brings the launched ranks together. Collective: every rank must call this.

        mpi4py is imported before Horovod starts, so that both use one MPI, with threads allowed. An uncaught error on any rank ends the
        job from here on.

        Raises:
            HorovodMissingError: if Horovod is not installed.
            WorldError: if the launcher, Horovod and MPI count different numbers of ranks.
        """
        deadline = _deadline()
        mpi = None if _is_gloo(os.environ) else _import_mpi()
        horovod = _start_horovod(deadline)
        rank, size = horovod.rank(), horovod.size()
        mpi_size = None if mpi is None else mpi.COMM_WORLD.Get_size()
        if not is_elastic(os.environ):  # there the launcher's number is of when it started this process
            check_sizes(_launched_size(os.environ), size, mpi_size, gloo=_is_gloo(os.environ))
        world = cls(rank, size, horovod.local_rank(), horovod.local_size(), _transport(horovod, mpi, deadline))
        if size > 1 or is_elastic(os.environ):
            _end_job_on_uncaught_error(world)
        return world

    def reconnect(self) -> None:
        """Takes the ranks that an elastic job has now. Collective: every rank that is left, and every new one by `connect`, must call this.

        Raises:
            PeerError: on all ranks that are left, if another one ended with an error; only lost hosts are let go.
            WorldError: if this process is no rank of the job any more, or the others could not be reached.
        """
        failure = Store.of(os.environ).read(_FAILURE)
        if isinstance(failure, list):
            rank, host, reason = failure
            raise agreed(PeerError("training", [(int(str(rank)), str(host), str(reason))]))
        horovod = importlib.import_module("horovod.tensorflow")
        horovod.shutdown()
        try:
            horovod.init()
        except ValueError as error:
            # this rank is out; the others go on without it, and are not told to end
            raise agreed(WorldError(f"rank {self.rank} on {self.host} is not among the job's ranks after a reset: {error}")) from error
        self.resets += 1
        transport = _transport(horovod, None, _deadline())
        self._meet(horovod.rank(), horovod.size(), horovod.local_rank(), horovod.local_size(), transport)

    @property
    def is_root(self) -> bool:
        """Whether this rank is the one that commits."""
        return self.rank == ROOT

    def allgather(self, phase: str, value: Json) -> list[Json]:
        """Returns the small value of every rank, in the order of ranks. Collective: every rank must call this."""
        return [json.loads(message) for message in self._transport.allgather(phase, json.dumps(value).encode())]

    def gather_rows(self, phase: str, rows: np.ndarray, counts: Sequence[int]) -> np.ndarray | None:
        """Brings one round of rows to the root. Collective: every rank must call this.

        Args:
            phase: what is going on, for messages.
            rows: `[counts[rank], ...]` of this rank; the dtype, which may be structured, and the trailing shape are the same on all ranks.
            counts: rows of each rank. Keep a round below 64 MiB: larger messages are slower, and single counts above 2^31 fail in MPI.

        Returns:
            On the root `[sum(counts), ...]`, in the order of ranks; None elsewhere.
        """
        return self._transport.gather(phase, rows, counts)

    def exchange_rows(self, phase: str, rows: np.ndarray, sent: Sequence[int], received: Sequence[int]) -> np.ndarray:
        """Sends rows from every rank to every other. Collective: every rank must call this.

        Args:
            phase: what is going on, for messages.
            rows: `[sum(sent), ...]` in the order of the ranks that they go to; dtype and trailing shape as in `gather_rows`.
            sent: rows that go to each rank.
            received: rows that come from each rank; what that rank says it sends to this one.

        Returns:
            `[sum(received), ...]` in the order of the ranks that they come from.
        """
        return self._transport.exchange(phase, rows, sent, received)

    def agree(self, phase: str, error: BaseException | None = None) -> None:
        """Goes on on all ranks, or raises on all of them. Collective: every rank must call this.

        Raises:
            PeerError: on every rank, if any gave an error. Where all ranks met an error of one type, each raises its own instead.
        """
        message = None if error is None else f"{type(error).__name__}: {error}"
        answers = self.allgather(phase, None if error is None else [self.host, message])
        failures = [(rank, str(answer[0]), str(answer[1])) for rank, answer in enumerate(answers) if isinstance(answer, list)]
        if not failures:
            return
        everywhere = len(failures) == self.size and len({text.partition(":")[0] for _, _, text in failures}) == 1
        if everywhere and error is not None:
            raise agreed(error)
        raise agreed(PeerError(phase, failures)) from error

    @contextmanager
    def together(self, phase: str) -> Iterator[None]:
        """Does local work that can fail, then agrees. Collective: every rank must enter and leave this block.

        Raises:
            PeerError: as `agree`.
        """
        error: Exception | None = None
        try:
            yield
        except Exception as caught:  # noqa: BLE001 - it is raised again, on every rank, by the agreement
            error = caught
        self.agree(phase, error)

    def finish(self, error: BaseException) -> None:
        """Finishes what is under way, each once, before an error ends the job. Collective where all ranks raise that error.

        What fails meanwhile is logged: the error that ends the job is the one to be seen.
        """
        together = is_agreed(error) and not is_elastic(os.environ)  # there the others that raise it may not be all that there were
        while self.under_way:
            try:
                self.under_way.pop(0)(together)
            except Exception as failure:  # noqa: BLE001 - as above
                log.warning("not all that was under way could be finished: %s", failure)

    def abort(self, reason: str, code: int = EXIT_STUCK) -> None:
        """Ends every rank of the job now, with `reason` on standard error."""
        _die(self._transport, self.rank, reason, code)


def is_elastic(environment: Mapping[str, str]) -> bool:
    """Returns whether the ranks of this job may come and go."""
    return environment.get("HOROVOD_ELASTIC") == "1"


def agreed(error: BaseException) -> BaseException:
    """Marks an error as one that every rank raises."""
    error.agreed = True  # type: ignore[attr-defined]  # a mark on whatever error it is
    return error


def is_agreed(error: BaseException) -> bool:
    """Returns whether every rank raises this error, so that one report of it is enough."""
    return getattr(error, "agreed", False) is True


def check_sizes(launched: int | None, horovod_size: int, mpi_size: int | None, *, gloo: bool) -> None:
    """Refuses a job whose launcher, Horovod and MPI count different numbers of ranks: each rank would train alone and overwrite the others.

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
            f"the launcher started {launched} ranks but Horovod sees {horovod_size}. The launcher and Horovod use different MPIs: start the"
            " job with the mpirun that belongs to the MPI Horovod was built with (under Slurm: srun --mpi=pmix), or with horovodrun."
            " `hvd-xai doctor` shows which MPI each of them uses."
        )
    if not gloo and mpi_size is not None and mpi_size != horovod_size:
        raise WorldError(
            f"Horovod sees {horovod_size} ranks but mpi4py sees {mpi_size}: they are linked with different MPIs. Rebuild Horovod with"
            " `hvd-xai install-horovod --force`, then look at `hvd-xai doctor`."
        )
    if not gloo and mpi_size is None and horovod_size > 1:
        raise WorldError(
            "mpi4py is not installed, and the ranks were started over MPI: pip install 'hvd_xai[train]', or use horovodrun --gloo."
        )


class _Alone:
    """Carries nothing anywhere."""

    def allgather(self, phase: str, message: bytes) -> list[bytes]:  # noqa: ARG002
        return [message]

    def gather(self, phase: str, block: np.ndarray, counts: Sequence[int]) -> np.ndarray | None:  # noqa: ARG002
        return block

    def exchange(self, phase: str, block: np.ndarray, sent: Sequence[int], received: Sequence[int]) -> np.ndarray:  # noqa: ARG002
        return block

    def abort(self, code: int) -> None:
        os._exit(code)


class _Mpi:
    """Carries the collectives over a communicator of our own.

    Every collective is started without blocking and then polled: so an idle rank does not burn the core that another one computes on, a
    deadline can end the wait, and a rank that has left the job is noticed.
    """

    def __init__(self, mpi: ModuleType, deadline: float) -> None:
        self._mpi = mpi
        self._deadline = deadline
        self._communicator = mpi.COMM_WORLD.Dup()
        self._words = mpi.COMM_WORLD.Dup()  # what ranks tell each other beside the collectives
        self._rank, self._size = self._communicator.Get_rank(), self._communicator.Get_size()
        self._collectives = 0
        self._left: dict[int, int] = {}  # by rank, how many collectives it took part in before it exited
        self._waiting: dict[int, int] = {}  # on the root: by rank, the newest collective that it said it waits in
        atexit.register(self._say_exit)

    def allgather(self, phase: str, message: bytes) -> list[bytes]:
        lengths = np.empty(self._size, np.int64)
        self._wait(phase, self._communicator.Iallgather(np.array([len(message)], np.int64), lengths))
        received = np.empty(int(lengths.sum()), np.uint8)
        ends = np.cumsum(lengths)
        sent = np.frombuffer(message, np.uint8)
        self._wait(phase, self._communicator.Iallgatherv(sent, [received, lengths.tolist(), (ends - lengths).tolist(), self._mpi.BYTE]))
        return [received[end - length : end].tobytes() for end, length in zip(ends, lengths, strict=True)]

    def gather(self, phase: str, block: np.ndarray, counts: Sequence[int]) -> np.ndarray | None:
        with self._row(block) as row:
            if self._rank != ROOT:
                self._wait(phase, self._communicator.Igatherv([_as_bytes(block), len(block), row], None, root=ROOT))
                return None
            received = np.empty((sum(counts), *block.shape[1:]), block.dtype)
            into = [_as_bytes(received), list(counts), _starts(counts), row]
            self._wait(phase, self._communicator.Igatherv([_as_bytes(block), len(block), row], into, root=ROOT))
            return received

    def exchange(self, phase: str, block: np.ndarray, sent: Sequence[int], received: Sequence[int]) -> np.ndarray:
        rows = np.empty((sum(received), *block.shape[1:]), block.dtype)
        with self._row(block) as row:
            outgoing = [_as_bytes(block), list(sent), _starts(sent), row]
            incoming = [_as_bytes(rows), list(received), _starts(received), row]
            self._wait(phase, self._communicator.Ialltoallv(outgoing, incoming))
        return rows

    def abort(self, code: int) -> None:
        self._mpi.COMM_WORLD.Abort(code)

    @contextmanager
    def _row(self, block: np.ndarray) -> "Iterator[MPI.Datatype]":
        """Makes the type of one row: counted in rows, no message comes near the 2^31 that MPI counts to."""
        row = self._mpi.BYTE.Create_contiguous(max(1, block.dtype.itemsize * int(np.prod(block.shape[1:])))).Commit()
        try:
            yield row
        finally:
            row.Free()

    def _wait(self, phase: str, request: "MPI.Request") -> None:
        """Polls a collective until it is complete; ends the job when the deadline passes or a rank that it needs has exited.

        A rank that waits long tells the root, so that the root can name those that do not: they are stuck elsewhere. The others give the
        root some time to do so.
        """
        self._collectives += 1
        started = time.monotonic()
        pause = 0.0
        patience = min(_PATIENCE_SECONDS, self._deadline / 4)
        deadline = self._deadline + (0 if self._rank == ROOT else 2 * patience)
        is_known = self._rank == ROOT
        while not request.Test():
            waited = time.monotonic() - started
            if waited > patience and not is_known:
                self._tell(ROOT, _WAIT_TAG)
                is_known = True
            self._hear(_EXIT_TAG, self._left)
            self._hear(_WAIT_TAG, self._waiting)
            gone = [rank for rank, collectives in self._left.items() if collectives < self._collectives]
            if gone:
                _die(self, self._rank, f"rank {gone[0]} exited while rank {self._rank} waits for it in '{phase}'", 1)
            if waited > deadline:
                _die(self, self._rank, f"{_stuck(phase, self._deadline)} {self._missing()}", EXIT_STUCK)
            # spin for a millisecond, for latency; then sleep up to another, for the cores
            pause = 0.0 if waited < 1e-3 else min(1e-3, pause + 5e-5)
            time.sleep(pause)

    def _missing(self) -> str:
        """Says which ranks are not in the collective that this one waits in, as far as it knows."""
        if self._rank != ROOT:
            return "Rank 0, which would have said which ranks are missing, is one of them."
        missing = [rank for rank in range(1, self._size) if self._waiting.get(rank, 0) < self._collectives]
        some = ", ".join(map(str, missing[:10])) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
        return f"Missing: rank {some}." if missing else "No rank is missing: the network is stuck."

    def _hear(self, tag: int, into: dict[int, int]) -> None:
        """Takes in what other ranks told this one with a tag."""
        status = self._mpi.Status()
        while self._words.Iprobe(source=self._mpi.ANY_SOURCE, tag=tag, status=status):
            collectives = np.empty(1, np.int64)
            self._words.Recv(collectives, source=status.Get_source(), tag=tag)
            into[status.Get_source()] = int(collectives[0])

    def _tell(self, listener: int, tag: int) -> None:
        """Tells another rank how many collectives this one has begun, whether that listens or not."""
        self._words.Isend(np.array([self._collectives], np.int64), dest=listener, tag=tag).Free()

    def _say_exit(self) -> None:
        """Tells those that may wait for this rank that it leaves: the root, which is in all collectives."""
        if self._mpi.Is_finalized():
            return
        for listener in [ROOT] if self._rank != ROOT else range(1, self._size):
            self._tell(listener, _EXIT_TAG)


class _Horovod:
    """Carries the collectives over Horovod's, where the ranks are no MPI processes. Horovod itself notices a rank that dies or exits."""

    def __init__(self, horovod: ModuleType, deadline: float) -> None:
        self._horovod = horovod
        self._deadline = deadline
        self._rank = horovod.rank()

    def allgather(self, phase: str, message: bytes) -> list[bytes]:
        # each message goes with its length in front: an allgather concatenates, and only that tells where one ends
        received = self._all(phase, np.frombuffer(struct.pack("<q", len(message)) + message, np.uint8)).tobytes()
        messages = []
        at = 0
        while at < len(received):
            (length,) = struct.unpack_from("<q", received, at)
            messages.append(received[at + 8 : at + 8 + length])
            at += 8 + length
        return messages

    def gather(self, phase: str, block: np.ndarray, counts: Sequence[int]) -> np.ndarray | None:
        received = self._all(phase, _as_bytes(block))
        if self._rank != ROOT:
            return None
        return received.view(block.dtype).reshape(sum(counts), *block.shape[1:])

    def exchange(self, phase: str, block: np.ndarray, sent: Sequence[int], received: Sequence[int]) -> np.ndarray:
        size = block.dtype.itemsize * int(np.prod(block.shape[1:]))
        splits = np.array(sent, np.int32) * size
        with self._watched(phase):
            rows, _ = self._horovod.alltoall(_as_bytes(block), splits, name="hvd_xai.alltoall")
        return np.asarray(rows).view(block.dtype).reshape(sum(received), *block.shape[1:])

    def abort(self, code: int) -> None:
        os._exit(code)

    def _all(self, phase: str, block: np.ndarray) -> np.ndarray:
        with self._watched(phase):
            return np.asarray(self._horovod.allgather(block, name="hvd_xai.allgather"))

    @contextmanager
    def _watched(self, phase: str) -> Iterator[None]:
        """Ends the job when the deadline passes before the block is done."""
        watchdog = threading.Timer(self._deadline, _die, (self, self._rank, _stuck(phase, self._deadline), EXIT_STUCK))
        watchdog.daemon = True
        watchdog.start()
        try:
            yield
        finally:
            watchdog.cancel()


def _transport(horovod: ModuleType, mpi: ModuleType | None, deadline: float) -> Transport:
    if horovod.size() == 1:
        return _Alone()
    return _Horovod(horovod, deadline) if mpi is None else _Mpi(mpi, deadline)


def _starts(counts: Sequence[int]) -> list[int]:
    """Returns where each rank's rows begin among those of all."""
    return [0, *itertools.accumulate(counts)][:-1]


def _as_bytes(rows: np.ndarray) -> np.ndarray:
    """Returns the rows' memory as bytes; also of zero rows, which memoryview.cast refuses."""
    return np.ascontiguousarray(rows).reshape(-1).view(np.uint8) if rows.size else np.empty(0, np.uint8)


def _stuck(phase: str, deadline: float) -> str:
    return (
        f"waited {deadline:.0f} s for the other ranks in '{phase}'. One of them is stuck or much slower; if it is only slower, set"
        " HVD_XAI_DEADLINE to more seconds."
    )


def _die(transport: Transport, rank: int, reason: str, code: int) -> None:
    sys.stderr.write(f"hvd-xai: rank {rank} on {socket.gethostname()} ends the job: {reason}\n")
    sys.stderr.flush()
    if is_elastic(os.environ):
        Store.of(os.environ).write(_FAILURE, [rank, socket.gethostname(), reason])
    transport.abort(code)


def _end_job_on_uncaught_error(world: World) -> None:
    """Ends the job when this rank dies of an error that the others do not know of; they would wait for it for ever."""
    show = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if is_agreed(error):  # every rank is on its way out
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
        raise WorldError(f"HVD_XAI_DEADLINE must be a number of seconds above 0, at most some years; got '{text}'")
    return deadline


def _is_gloo(environment: Mapping[str, str]) -> bool:
    return environment.get("HOROVOD_CONTROLLER") == "gloo" or "HOROVOD_GLOO_RENDEZVOUS_ADDR" in environment


def _launched_size(environment: Mapping[str, str]) -> int | None:
    sizes = [int(environment[name]) for name in _LAUNCHER_SIZES if environment.get(name, "").isdigit()]
    return sizes[0] if sizes else None


def _import_mpi() -> ModuleType | None:
    local_size = os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", "1")
    if local_size.isdigit() and int(local_size) >= (os.cpu_count() or 1):
        # Horovod's thread polls MPI; without this it takes the core from the rank that computes
        os.environ.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")
    try:
        return importlib.import_module("mpi4py.MPI")
    except ImportError:
        return None


def _start_horovod(deadline: float) -> ModuleType:
    # a rank that explains keeps the others waiting in the next allreduce; that is no stall
    os.environ.setdefault("HOROVOD_STALL_CHECK_TIME_SECONDS", str(int(deadline)))
    try:
        horovod = importlib.import_module("horovod.tensorflow")
    except ImportError as error:
        raise HorovodMissingError(f"Horovod is not installed or does not load ({error}). Build it with: hvd-xai install-horovod") from error
    horovod.init()
    return horovod
