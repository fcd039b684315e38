"""What people see on the terminal: a progress bar, and errors as one line."""

import os
import shlex
import shutil
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from hvd_xai.errors import HvdXaiError, is_agreed
from hvd_xai.protocols import Silent

# What launchers tell a process about its rank, before any of MPI or Horovod is loaded.
_RANK_VARIABLES = ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID")
_SECONDS_BETWEEN_LINES = 10.0
# What `pip install hvd_xai` leaves out, and what brings it; where Keras is missing, TensorFlow is
# as well.
_BROUGHT_BY = {
    **dict.fromkeys(("keras", "tensorflow"), "'hvd_xai[cpu]', or 'hvd_xai[gpu]'"),
    "mpi4py": "'hvd_xai[train]'",
    "tensorboard": "'hvd_xai[tensorboard]'",
    "fsspec": "'hvd_xai[remote]'",
    **dict.fromkeys(("h5netcdf", "pyarrow"), "'hvd_xai[export]'"),
    "xarray": "'hvd_xai[xarray]'",
}
_SECONDS_FOR_THE_LAUNCHER = 0.05


def rank() -> int:
    """Returns this process's rank as its launcher says; 0 without a launcher."""
    for variable in _RANK_VARIABLES:
        if os.environ.get(variable, "").isdecimal():
            return int(os.environ[variable])
    return 0


def progress(stream: TextIO | None = None) -> "Bar | Lines | _Quiet":
    """Returns the `Progress` for this process: a bar on a terminal, plain lines elsewhere, nothing
    on ranks that are not the root.

    What a rank writes goes through a pipe to its launcher; the terminal that the launcher was
    started from may still be in reach, and then the bar is drawn there.

    It is a context manager; leaving it clears the bar.

    Args:
        stream: where to show it; standard error if left out, so that standard output stays clean
            for what was asked.
    """
    stream = stream or sys.stderr
    if rank() != 0:
        return _Quiet()
    if stream.isatty():
        return Bar(stream)
    terminal = _terminal_of_launcher()
    return Lines(stream) if terminal is None else Bar(terminal, stream)


def _terminal_of_launcher() -> TextIO | None:
    if not any(variable in os.environ for variable in _RANK_VARIABLES):
        return None  # somebody has sent the output elsewhere on purpose
    try:
        return Path("/dev/tty").open("w", encoding="utf-8")
    except OSError:
        return None


class _Quiet(Silent):
    """Shows nothing, as a context manager."""

    def __enter__(self) -> "_Quiet":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


class Bar:
    """A bar with rate and remaining time.

    Args:
        terminal: where the bar is drawn.
        stream: where lines go; to the terminal if left out.
    """

    def __init__(self, terminal: TextIO, stream: TextIO | None = None) -> None:
        self._terminal, self._stream = terminal, stream
        self._console = Console(file=terminal)
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )

    def __enter__(self) -> "Bar":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        if self._stream is not None:
            self._terminal.close()

    def start(self, task: str, total: int) -> None:
        """Begins a task; the one before it disappears."""
        for old in self._bar.task_ids:
            self._bar.remove_task(old)
        self._bar.add_task(escape(task), total=total)

    def advance(self, steps: int = 1) -> None:
        """Moves the bar."""
        if self._bar.task_ids:
            self._bar.advance(self._bar.task_ids[-1], steps)

    def say(self, line: str) -> None:
        """Shows a line above the bar."""
        if self._stream is None:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
            return
        # the line comes to the terminal by way of the launcher: it must find the bar gone
        self._bar.stop()
        print(line, file=self._stream, flush=True)
        time.sleep(_SECONDS_FOR_THE_LAUNCHER)
        self._bar.start()


class _Rate(ProgressColumn):
    """Steps a second, smoothed; empty until it is known."""

    def render(self, task: Task) -> Text:
        """Returns the rate of a task."""
        rate = task.finished_speed or task.speed
        return Text(f"{rate:,.1f}/s" if rate else "")


class Lines:
    """Plain lines for logs and pipes: one at a task's start, one every 10 s, one at its end if that
    took as long.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._task, self._total, self._done, self._began, self._shown = "", 0, 0, 0.0, 0.0

    def __enter__(self) -> "Lines":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def start(self, task: str, total: int) -> None:
        """Begins a task."""
        self._task, self._total, self._done = task, total, 0
        self._began = self._shown = time.monotonic()

    def advance(self, steps: int = 1) -> None:
        """Counts, and shows a line if the last one is 10 s old."""
        self._done += steps
        now = time.monotonic()
        if now - self._shown >= _SECONDS_BETWEEN_LINES:
            self._shown = now
            rate = self._done / (now - self._began)
            left = f", {max(0, self._total - self._done) / rate:.0f} s left" if rate else ""
            self.say(f"{self._task}: {self._done}/{self._total}, {rate:,.1f}/s{left}")

    def say(self, line: str) -> None:
        """Shows a line."""
        print(line, file=self._stream, flush=True)


def program(name: str) -> str:
    """Returns what to type for a program of this environment: its name where the user's PATH leads
    there, or else where it lies.

    In an environment that is not activated the PATH is nobody's but this process's own, such as
    what `make` set.
    """
    ours = Path(sys.executable).with_name(name)
    is_activated = sys.prefix == sys.base_prefix or os.environ.get("VIRTUAL_ENV") == sys.prefix
    found = shutil.which(name)
    if not ours.exists() or (
        is_activated and found is not None and Path(found).resolve() == ours.resolve()
    ):
        return name
    return shlex.quote(os.path.relpath(ours) if ours.is_relative_to(Path.cwd()) else str(ours))


@contextmanager
def report_errors() -> Iterator[None]:
    """Turns an error into one line on standard error and exit code 1; with HVD_XAI_DEBUG=1 the
    traceback stands above it.

    An error that the ranks agreed on is shown by the root only; what befell one rank alone is shown
    by that rank, with its number. A package that was not asked for when hvd_xai was installed is
    named with the extra that brings it. Anything but this, our own errors, `ValueError` and
    `OSError` is a bug in somebody's code, and keeps its traceback.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        advice = _BROUGHT_BY.get((error.name or "").partition(".")[0])
        if advice is None:
            raise
        advised = HvdXaiError(
            f"'{error.name}' is not installed. Install it with: pip install {advice}"
        )
        advised.__cause__ = error
        _show(advised)
        raise SystemExit(1) from None
    except (HvdXaiError, ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # `hvd-xai show RUN | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None
        if rank() != 0 and is_agreed(error):
            time.sleep(1.0)  # the first rank that ends may end the job: the root's line comes first
        else:
            _show(error)
        raise SystemExit(1) from None


def _show(error: Exception) -> None:
    debugging = os.environ.get("HVD_XAI_DEBUG", "") not in ("", "0")
    if debugging:
        traceback.print_exception(error)
    where = f"rank {rank()}: " if rank() != 0 else ""
    hint = "" if debugging or isinstance(error, HvdXaiError) else " (HVD_XAI_DEBUG=1 shows where)"
    text = str(error) or type(error).__name__
    print(f"hvd-xai: {where}error: {text}{hint}", file=sys.stderr, flush=True)
