"""Checks sinks when a job begins, and closes them when it ends."""

import inspect
from collections.abc import Iterable
from typing import Any

from hvd_xai.sinks import Sink


def check_sinks(sinks: Iterable[Sink] | Sink) -> tuple[Sink, ...]:
    """Returns the sinks, after a look at whether each can be called with a run and an explanation.

    A job that has trained for hours must not end because its sink was a function of one argument.

    Raises:
        TypeError: if a sink cannot be called so, or a single sink is given in place of a list.

    Example:
        >>> def count(run, explanation):
        ...     print(explanation.n_samples)
        >>> check_sinks([count]) == (count,)
        True
    """
    if not isinstance(sinks, Iterable):
        raise TypeError(f"sinks= is a list of sinks; pass sinks=[{_name(sinks)}]")
    checked: tuple[Sink, ...] = tuple(sinks)
    for sink in checked:
        _check(sink)
    return checked


def close_sinks(sinks: Iterable[Sink]) -> None:
    """Closes the sinks that have something to close."""
    for sink in sinks:
        close = getattr(sink, "close", None)
        if close is not None:
            close()


def _check(sink: Any) -> None:
    name = _name(sink)
    if inspect.isclass(sink):
        raise TypeError(f"a sink is called with a run; make one of the class: pass {name}(...)")
    if not callable(sink):
        raise TypeError(
            f"a sink is a function of (run, explanation), or an object that is called so; got"
            f" {type(sink).__name__}"
        )
    try:
        signature = inspect.signature(sink)
    except ValueError:
        # Functions of extension modules may have none to look at.
        return
    try:
        signature.bind("run", "explanation")
    except TypeError as error:
        raise TypeError(
            f"a sink is called with (run, explanation); '{name}' takes {signature}: {error}. Write"
            f" it as def {name}(run, explanation)."
        ) from error


def _name(sink: object) -> str:
    return str(getattr(sink, "__name__", type(sink).__name__))
