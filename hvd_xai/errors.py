"""Defines the errors that this project raises, and the mark of an error that all ranks raise.

Mistakes of the caller are `ValueError` and `TypeError`. The errors here are for what goes wrong
around the caller: among the ranks, in recipes, in files.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

Error = TypeVar("Error", bound=BaseException)


# The blocks in which this process runs a command of ours. They are the process's, not a thread's:
# threads that write files raise errors, too.
_commands: list[object] = []


@contextmanager
def advising_command_line() -> Iterator[None]:
    """Lets errors of this block advise options of the command line, not arguments of functions."""
    _commands.append(object())
    try:
        yield
    finally:
        _commands.pop()


def advise(*, script: str, command: str) -> str:
    """Returns how to mend an error, in words that whoever meets it can act on.

    Args:
        script: what to change in a script.
        command: what to change on the command line.

    Example:
        >>> advise(script="pass mode='resume'", command="add --resume")
        "pass mode='resume'"
    """
    return command if _commands else script


class HvdXaiError(Exception):
    """Base of all errors below, so that a caller can catch every one.

    Example:
        >>> try:
        ...     raise RunExistsError("runs/script holds a run already")
        ... except HvdXaiError as error:
        ...     print(error)
        runs/script holds a run already
    """


class WorldError(HvdXaiError):
    """The ranks cannot meet: the launcher, Horovod and MPI disagree, or one of them is missing."""


class PeerError(HvdXaiError):
    """Raised on all ranks when at least one of them failed.

    Args:
        phase: what the ranks were doing.
        failures: `(rank, host, message)` of each rank that failed, lowest rank first.

    Example:
        >>> print(PeerError("opening the run", [(2, "node-7", "OSError: the disk is full")]))
        opening the run: rank 2 on node-7 failed: OSError: the disk is full
    """

    def __init__(self, phase: str, failures: list[tuple[int, str, str]]) -> None:
        self.phase = phase
        self.failures = failures
        rank, host, message = failures[0]
        also = f" ({len(failures) - 1} more ranks failed too)" if len(failures) > 1 else ""
        super().__init__(f"{phase}: rank {rank} on {host} failed{also}: {message}")


class RecipeError(HvdXaiError):
    """A recipe, callback or method cannot be found or loaded, or does not define what it must."""


class CheckpointError(HvdXaiError):
    """A checkpoint is missing, damaged, or of a schema that this version does not read."""


class RunExistsError(HvdXaiError):
    """The run directory already holds a run, and the caller said neither resume nor overwrite."""


class HorovodMissingError(HvdXaiError, ImportError):
    """Horovod is not installed, or cannot be loaded."""


class BuildError(HvdXaiError):
    """Horovod could not be built."""


def mark_agreed(error: Error) -> Error:
    """Returns the error, marked as one that every rank raises.

    Example:
        >>> is_agreed(mark_agreed(ValueError("the ranks hold different weights")))
        True
    """
    error.agreed = True  # type: ignore[attr-defined]  # a mark on whatever error it is
    return error


def is_agreed(error: BaseException) -> bool:
    """Returns whether every rank raises this error, so that one rank's report is enough.

    Example:
        >>> is_agreed(OSError("the disk is full"))
        False
    """
    return getattr(error, "agreed", False) is True
