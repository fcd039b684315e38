"""Defines the errors that this project raises, and the mark of an error that all ranks raise.

Mistakes of the caller are `ValueError` and `TypeError`. The errors here are for what goes wrong
around the caller: among the ranks, in recipes, in files.
"""

from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import TypeVar

Error = TypeVar("Error", bound=BaseException)


# Most items of a list, ranges of numbers, and characters of any other value, that an error prints.
_MOST, _MOST_RANGES, _LONGEST = 5, 8, 80

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


def shorten(value: object) -> str:
    """Returns a value as errors print it: short, whatever was given.

    An array is its shape and dtype, a function its name with the options bound to it, a long list
    its first items, and any other text is cut.

    Args:
        value: anything that a caller has given.

    Example:
        >>> shorten(inputs)
        'an array of shape (4, 8, 8, 1) and dtype float32'
        >>> shorten(partial(print, sep=", ")), shorten(list(range(1000)))
        ("print(sep=', ')", '[0, 1, 2, 3, 4, ...]')
    """
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and dtype is not None:
        return f"an array of shape {tuple(shape)} and dtype {getattr(dtype, 'name', dtype)}"
    if isinstance(value, partial):
        options = [f"{name}={shorten(bound)}" for name, bound in value.keywords.items()]
        return f"{shorten(value.func)}({', '.join([*map(shorten, value.args), *options])})"
    if isinstance(value, Mapping):
        pairs = [f"{shorten(key)}: {shorten(one)}" for key, one in islice(value.items(), _MOST)]
        return f"{{{', '.join(pairs + _rest(value))}}}"
    if isinstance(value, list | tuple):
        items = ", ".join([shorten(item) for item in value[:_MOST]] + _rest(value))
        return f"[{items}]" if isinstance(value, list) else f"({items})"
    return str(getattr(value, "__name__", "")) or _cut(repr(value))


def write_ranges(numbers: Sequence[int]) -> str:
    """Writes ascending numbers as people do, cut off after a few ranges.

    Example:
        >>> write_ranges([0, 1, 2, 7, 9, 10])
        '0-2, 7, 9-10'
    """
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    parts = [str(first) if first == last else f"{first}-{last}" for first, last in ranges]
    rest = [f"... {numbers[-1]}"] if len(parts) > _MOST_RANGES else []
    return ", ".join(parts[:_MOST_RANGES] + rest)


def write_epochs(epochs_by_method: Mapping[str, Sequence[int]]) -> str:
    """Writes which epochs each method has.

    Example:
        >>> write_epochs({"saliency": [0, 1, 2], "grad_cam": [2]})
        'saliency of epochs 0-2; grad_cam of epochs 2'
    """
    said = [f"{name} of epochs {write_ranges(epochs)}" for name, epochs in epochs_by_method.items()]
    return "; ".join(said) or "none yet"


def _rest(values: Sized) -> list[str]:
    return ["..."] if len(values) > _MOST else []


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


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
