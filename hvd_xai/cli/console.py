"""Shows people lines, a progress bar, and errors as one line; nothing else of the library prints.

Folders, methods and classes are named by whoever made the files: every text is made printable here,
where it is shown, so that no name can steer the terminal or pass for a line of ours.
"""

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
from typing import IO, TextIO

from rich.console import Console
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
from hvd_xai.log import printable, printable_lines
from hvd_xai.protocols import Silent
from hvd_xai.ranks.launcher import launched_rank

_SECONDS_BETWEEN_LINES = 10.0
# Packages that `pip install hvd_xai` leaves out -> the extra that brings them. Where Keras is
# missing, TensorFlow is missing too.
_BROUGHT_BY = {
    **dict.fromkeys(("keras", "tensorflow"), "'hvd_xai[cpu]', or 'hvd_xai[gpu]'"),
    "mpi4py": "'hvd_xai[train]'",
    "tensorboard": "'hvd_xai[tensorboard]'",
    "fsspec": "'hvd_xai[remote]'",
    **dict.fromkeys(("h5netcdf", "pyarrow"), "'hvd_xai[export]'"),
    "xarray": "'hvd_xai[xarray]'",
}
# The time in which a line goes through the launcher's pipe to the terminal.
_SECONDS_FOR_THE_LAUNCHER = 0.05


def say(*lines: str) -> None:
    r"""Prints lines on standard output; a line break within one is shown as `\\n`.

    Example:
        >>> say("runs/demo: everything committed is whole")
        runs/demo: everything committed is whole
    """
    for line in lines:
        print(printable(line))


def make_console(*, file: IO[str] | None = None, width: int | None = None) -> Console:
    """Returns a console that shows every text as it stands: no markup, no emoji, no guesses.

    Args:
        file: where it writes; standard output if None.
        width: number of columns; as many as the terminal has if None.
    """
    return Console(file=file, width=width, markup=False, emoji=False, highlight=False)


def rank() -> int:
    """Returns the rank that the launcher gave this process; 0 if there is no launcher."""
    return launched_rank(os.environ) or 0


def progress(stream: TextIO | None = None) -> "Bar | Lines | _Quiet":
    """Returns this process's progress: a bar on a terminal, lines elsewhere, nothing off the root.

    It is a context manager, and leaving it clears the bar. Under a launcher, standard error is a
    pipe. The bar is then drawn on the terminal that the launcher was started from, if there is one.

    Args:
        stream: where to show it; standard error if None, so that standard output holds the
            command's answer alone.
    """
    stream = stream or sys.stderr
    if rank() != 0:
        return _Quiet()
    if stream.isatty():
        return Bar(stream)
    terminal = _terminal_of_launcher()
    return Lines(stream) if terminal is None else Bar(terminal, stream)


def _terminal_of_launcher() -> TextIO | None:
    if launched_rank(os.environ) is None:
        # The user has sent the output elsewhere on purpose.
        return None
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
    """Shows progress as a bar, with the rate and the remaining time.

    Args:
        terminal: terminal that the bar is drawn on.
        stream: stream that lines are printed to; the terminal if None.
    """

    def __init__(self, terminal: TextIO, stream: TextIO | None = None) -> None:
        self._terminal, self._stream = terminal, stream
        self._console = make_console(file=terminal)
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
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
        """Begins a task, and removes the bar of the task before."""
        for old in self._bar.task_ids:
            self._bar.remove_task(old)
        self._bar.add_task(printable(task), total=total)

    def advance(self, steps: int = 1) -> None:
        """Moves the bar."""
        if self._bar.task_ids:
            self._bar.advance(self._bar.task_ids[-1], steps)

    def say(self, line: str) -> None:
        """Shows a line above the bar."""
        if self._stream is None:
            self._console.print(printable(line), soft_wrap=True)
            return
        # The line reaches the terminal through the launcher, and must not run into the bar.
        self._bar.stop()
        print(printable(line), file=self._stream, flush=True)
        time.sleep(_SECONDS_FOR_THE_LAUNCHER)
        self._bar.start()


class _Rate(ProgressColumn):
    """Shows steps per second, smoothed; nothing until they are known."""

    def render(self, task: Task) -> Text:
        """Returns the rate of a task."""
        rate = task.finished_speed or task.speed
        return Text(f"{rate:,.1f}/s" if rate else "")


class Lines:
    """Shows progress as plain lines, for logs and pipes: one every 10 s, and none for short tasks.

    Args:
        stream: stream that lines are printed to.
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
        """Counts steps, and shows a line if the last one is 10 s old."""
        self._done += steps
        now = time.monotonic()
        if now - self._shown >= _SECONDS_BETWEEN_LINES:
            self._shown = now
            rate = self._done / (now - self._began)
            left = f", {max(0, self._total - self._done) / rate:.0f} s left" if rate else ""
            self.say(f"{self._task}: {self._done}/{self._total}, {rate:,.1f}/s{left}")

    def say(self, line: str) -> None:
        """Shows a line."""
        print(printable(line), file=self._stream, flush=True)


def program(name: str) -> str:
    """Returns what users type to start a program of this environment: its name, or else its path.

    Args:
        name: file name of the program.
    """
    ours = Path(sys.executable).with_name(name)
    # Unless the environment is activated, the PATH may be this process's alone, as `make` sets it:
    # the user's shell would not find the program by its name.
    is_activated = sys.prefix == sys.base_prefix or os.environ.get("VIRTUAL_ENV") == sys.prefix
    found = shutil.which(name)
    if not ours.exists() or (
        is_activated and found is not None and Path(found).resolve() == ours.resolve()
    ):
        return name
    return shlex.quote(os.path.relpath(ours) if ours.is_relative_to(Path.cwd()) else str(ours))


@contextmanager
def report_errors() -> Iterator[None]:
    """Turns an error into one line on standard error, and ends the process with exit code 1.

    With HVD_XAI_DEBUG=1 the traceback stands above the line. An error that the ranks agreed on is
    shown by the root only; an error of one rank is shown by that rank, with its number. A missing
    package is named with the extra that brings it. Errors other than these, ours, `ValueError` and
    `OSError` are bugs in somebody's code, and keep their traceback.
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
        # `hvd-xai show RUN | head`: Python flushes standard output at its end, and would complain.
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None
        if rank() != 0 and is_agreed(error):
            # The first rank that ends may end the job: the root's line must come first.
            time.sleep(1.0)
        else:
            _show(error)
        raise SystemExit(1) from None


def _show(error: Exception) -> None:
    debugging = os.environ.get("HVD_XAI_DEBUG", "") not in ("", "0")
    if debugging:
        lines = "".join(traceback.format_exception(error))
        print(printable_lines(lines), file=sys.stderr, end="")
    where = f"rank {rank()}: " if rank() != 0 else ""
    hint = "" if debugging or isinstance(error, HvdXaiError) else " (HVD_XAI_DEBUG=1 shows where)"
    text = printable(str(error)) or type(error).__name__
    print(f"hvd-xai: {where}error: {text}{hint}", file=sys.stderr, flush=True)
