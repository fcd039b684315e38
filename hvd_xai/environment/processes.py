"""Runs programs of this machine with a time limit, and ends their children with them."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_SECONDS_AFTER_KILL = 2.0
"""Time in which a pipe ends when all who hold it were killed."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended, and what it printed.

    Args:
        code: exit code; None if the program was killed at its time limit, 127 if it could not be
            started.
        stdout: text that it wrote to standard output.
        stderr: text that it wrote to standard error, or why it could not be started.
    """

    code: int | None
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """Everything that the program printed, standard error last."""
        return self.stdout + self.stderr

    @property
    def last_line(self) -> str:
        r"""The last line that the program printed, which is where most say why they failed.

        Example:
            >>> Ended(1, "begun", "Traceback ...\nValueError: too small\n").last_line
            'ValueError: too small'
        """
        lines = [line.strip() for text in (self.stdout, self.stderr) for line in text.splitlines()]
        return next((line for line in reversed(lines) if line), "it said nothing")


def run(
    command: Sequence[str],
    *,
    limit: float = 60.0,
    environment: Mapping[str, str] | None = None,
    text: str = "",
) -> Ended:
    r"""Runs a program to its end, or kills it and its children at a time limit; never raises.

    Args:
        command: the program and its arguments.
        limit: seconds after which the program is killed.
        environment: variables of the program; this process's own if None.
        text: standard input of the program.

    Example:
        >>> run(["sh", "-c", "echo begun; exit 3"])
        Ended(code=3, stdout='begun\n', stderr='')
    """
    try:
        # A session of its own, so that the program's children can be killed with it, as one group.
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        return Ended(127, "", str(error))
    try:
        stdout, stderr = process.communicate(text, timeout=limit)
    except subprocess.TimeoutExpired:
        # Children hold the pipes too: unless the whole group dies, communicate() waits for them.
        code = process.poll()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        try:
            stdout, stderr = process.communicate(timeout=_SECONDS_AFTER_KILL)
        except subprocess.TimeoutExpired as error:
            # A child in a session of its own has got away, and holds the pipes.
            stdout, stderr = _decode(error.stdout), _decode(error.stderr)
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()
        return Ended(code, stdout, stderr)
    return Ended(process.returncode, stdout, stderr)


def _decode(said: str | bytes | None) -> str:
    """Returns what a program said before its time was over, which comes undecoded."""
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else said or ""


@contextmanager
def started(
    command: Sequence[str], environment: Mapping[str, str]
) -> "Iterator[subprocess.Popen[str]]":
    """Starts a program whose lines are read while it runs, and waits for its end on leaving.

    Standard error comes with standard output, in the order of writing.

    Args:
        command: the program and its arguments.
        environment: variables of the program.
    """
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            yield process
            process.wait()
        finally:
            # In a session of its own the program gets no Ctrl-C from the terminal. If we leave with
            # an error, the group is ended, and so are make's compilers.
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)


def find_program(name: str) -> Path | None:
    """Finds a program on the PATH, or else beside this Python, None if it is in neither place.

    An environment that is not activated has its programs beside its Python and not on the PATH.

    Args:
        name: file name of the program.
    """
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    return Path(found) if found else None


def count_cores() -> int:
    """Returns the number of cores that this process may use."""
    # macOS has no affinity.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
