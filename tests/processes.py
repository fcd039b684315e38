"""Runs processes for as long as they make progress.

A clock says little of a process on a busy machine: it runs on while others have the cores. So the
limits here are of CPU time, and of idleness: time in which a process and all that it started
neither compute, nor queue for a core, nor wait for a disk, nor say anything.
"""

import os
import select
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

import psutil

_MARK = "HVD_XAI_TEST_FAMILY"  # a variable that a process and all that it started have
_POLL_SECONDS = 0.05
_LOOK_SECONDS = 2.0  # between two looks at /proc, which cost 10 ms and more
# Share of one core below which a job is idle. Ranks that wait for each other for ever still wake a
# thousand times a second, for 0.05 of a core each; a job that gets on wants one core at least.
_IDLE_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Limits:
    """When a process is given up.

    Args:
        cpu: CPU seconds that the process and all that it started may use together.
        idle: seconds for which they may be idle.
        wall: seconds that it may take, whatever the others on the machine do; the last resort.
    """

    cpu: float = 480
    idle: float = 120
    wall: float = 1800


_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that ended by itself; `output` is all it wrote to both streams, in order."""

    code: int
    output: str
    stdout: str
    stderr: str
    seconds: float


class GivenUpError(AssertionError):
    """Says that a process went over a limit, and was killed."""


class Family:
    """A process and all that it started, orphans included.

    Args:
        pid: number of the process.
        mark: value of the variable `_MARK` in its environment, and so in that of all it started.
    """

    def __init__(self, pid: int, mark: str) -> None:
        self._mark = mark
        self._known = {pid: psutil.Process(pid)}
        self._cpu: dict[int, float] = {}
        self._queued: dict[tuple[int, int], float] = {}
        self.waits_for_disk = False

    def look(self) -> None:
        """Notes which processes there are, and what they have used so far."""
        self.waits_for_disk = False
        for process in list(self._known.values()):
            with suppress(psutil.Error):
                for child in process.children(recursive=True):
                    self._known.setdefault(child.pid, child)
        for pid, process in list(self._known.items()):
            with suppress(psutil.Error, OSError):
                used = process.cpu_times()
                self._cpu[pid] = used.user + used.system
                self.waits_for_disk |= process.status() == psutil.STATUS_DISK_SLEEP
                for thread in Path(f"/proc/{pid}/task").iterdir():
                    # nanoseconds on a core, and nanoseconds in the queue for one
                    _, queued, _ = (thread / "schedstat").read_text().split()
                    self._queued[pid, int(thread.name)] = int(queued) / 1e9

    @property
    def cpu(self) -> float:
        """Returns the CPU seconds used so far, those of processes that have ended included."""
        return sum(self._cpu.values())

    @property
    def wanted(self) -> float:
        """Returns the CPU seconds used, and the seconds queued for more."""
        return self.cpu + sum(self._queued.values())

    def kill(self) -> None:
        """Kills all of them."""
        self.look()
        # whose parent had ended before anybody looked
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(_MARK) == self._mark:
                    self._known.setdefault(process.pid, process)
        for process in self._known.values():
            with suppress(psutil.Error):
                process.kill()


class Running:
    """A process in a session of its own, whose output is read as it comes; all that is left of it
    and of what it started is killed at the end of the block.

    Args:
        words: the command.
        env: all of its environment; ours by default.
        cwd: its working directory.
        limits: when it is given up.
    """

    def __init__(
        self,
        words: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        limits: Limits = _LIMITS,
    ) -> None:
        self._limits = limits
        self._began = time.monotonic()
        mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            words,
            env={**(os.environ if env is None else env), _MARK: mark},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.family = Family(self.process.pid, mark)
        self._said: list[tuple[str, bytes]] = []
        self._is_over = threading.Event()
        self._readers = []
        for name in ("stdout", "stderr"):
            pipe = getattr(self.process, name)
            reader = threading.Thread(target=self._read, args=(name, pipe), daemon=True)
            reader.start()
            self._readers.append(reader)
        self._looked = self._began
        # when and at what state it was last seen to get on
        self._on = (self._began, 0.0, 0)

    def __enter__(self) -> "Running":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None or any(reader.is_alive() for reader in self._readers):
            self.family.kill()
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        # a pipe ends when all who hold it have ended, and somebody may have got away
        self._is_over.set()
        for reader in self._readers:
            reader.join()

    @property
    def output(self) -> str:
        """Returns what it has written so far, to both streams."""
        return self._text("stdout", "stderr")

    def until(self, is_so: Callable[[], bool]) -> bool:
        """Waits until a condition holds, or the process has ended; returns whether the condition
        holds."""
        self._wait(lambda: is_so() or self._has_ended())
        return is_so()

    def end(self) -> Ended:
        """Waits until the process has ended.

        Raises:
            GivenUpError: with its output, if it went over a limit.
        """
        self._wait(self._has_ended)
        seconds = time.monotonic() - self._began
        stdout, stderr = self._text("stdout"), self._text("stderr")
        return Ended(self.process.returncode, self.output, stdout, stderr, seconds)

    def _has_ended(self) -> bool:
        # what it started may still hold its output open
        return self.process.poll() is not None and not any(
            reader.is_alive() for reader in self._readers
        )

    def _wait(self, is_over: Callable[[], bool]) -> None:
        while not is_over():
            time.sleep(_POLL_SECONDS)
            now = time.monotonic()
            if now - self._looked > min(_LOOK_SECONDS, self._limits.idle / 8):
                self._looked = now
                self._check(now)

    def _check(self, now: float) -> None:
        self.family.look()
        since, wanted, n_said = self._on
        is_on = (
            len(self._said) > n_said
            or self.family.waits_for_disk
            or self.family.wanted - wanted > _IDLE_SHARE * (now - since)
        )
        # over spans of this length, so that a burst of a second does not count for minutes
        if is_on and now - since > self._limits.idle / 4:
            self._on = since, wanted, n_said = now, self.family.wanted, len(self._said)
        for used, limit, of in (
            (self.family.cpu, self._limits.cpu, "CPU"),
            (now - since, self._limits.idle, "idle"),
            (now - self._began, self._limits.wall, "wall"),
        ):
            if used > limit:
                self.__exit__(None, None, None)
                raise GivenUpError(
                    f"it was given up after {used:.0f} {of} seconds of at most {limit:.0f}:\n"
                    f"{self.output[-4000:]}"
                )

    def _read(self, name: str, pipe: IO[bytes]) -> None:
        with pipe:
            while not self._is_over.is_set() or select.select([pipe], [], [], 0)[0]:
                if select.select([pipe], [], [], _POLL_SECONDS)[0]:
                    block = os.read(pipe.fileno(), 65536)
                    if not block:
                        return
                    self._said.append((name, block))

    def _text(self, *names: str) -> str:
        blocks = [block for name, block in list(self._said) if name in names]
        return b"".join(blocks).decode("utf-8", "replace")


def run(
    words: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    limits: Limits = _LIMITS,
) -> Ended:
    """Runs a command to its end, within limits."""
    with Running(words, env=env, cwd=cwd, limits=limits) as running:
        return running.end()
