"""Restores a method from the name and the options that a manifest records."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from hvd_xai import baselines, scores
from hvd_xai.errors import CheckpointError, advise, shorten
from hvd_xai.lookup.methods import load_method, shipped_methods
from hvd_xai.protocols import Attribution, Json

# Keys of an array among the options, as `describe` records it.
_ARRAY_KEYS = ("shape", "dtype", "digest")


def restore(
    name: str, options: Mapping[str, Json], function: Callable[..., Any] | None = None
) -> Attribution:
    """Restores a method: the function of a name, with the options that `describe` recorded.

    Args:
        name: name of the method's function.
        options: options in the form in which `describe` records them.
        function: function to bind the options to; the method of that name if None.

    Returns:
        The method with its options bound.

    Raises:
        CheckpointError: if no method has that name, or an option is recorded by digest or name
            alone.

    Example:
        >>> restore("saliency", {"score": "logit"}).keywords
        {'score': 'logit'}
    """
    if function is None:
        if name not in shipped_methods():
            raise CheckpointError(
                f"{name!r} is no method of hvd_xai; give the file or the module it is in by"
                f" {advise(script='method=', command='--method')}"
            )
        function = load_method(name)
    method: Attribution = partial(
        function,
        **{option: _restore_value(name, option, value) for option, value in options.items()},
    )
    return method


def _restore_value(method: str, option: str, value: Json) -> object:
    if isinstance(value, Mapping):
        if all(key in value for key in _ARRAY_KEYS):
            raise CheckpointError(
                f"option '{option}' of '{method}' was an array, of which a digest is recorded; it"
                " cannot be computed again"
            )
        # A function with bound options is recorded as {name: options}.
        inner, options = next(iter(value.items()), ("", None))
        function = (
            _find_function(option, inner)
            if len(value) == 1 and isinstance(options, Mapping)
            else None
        )
        if function is None or not isinstance(options, Mapping):
            raise CheckpointError(
                f"option '{option}' of '{method}' was the function {shorten(value)}, recorded by"
                " its name alone; it cannot be had again"
            )
        return restore(inner, options, function)
    if isinstance(value, Sequence) and not isinstance(value, str):
        # Tuples were written as JSON lists, and tuples are what options take.
        return tuple(_restore_value(method, option, item) for item in value)
    return value


def _find_function(option: str, name: str) -> Callable[..., Any] | None:
    """Finds the method, score or baseline that an option names; returns None if there is none."""
    if name in shipped_methods():
        return load_method(name)
    try:
        if option == "score":
            return scores.resolve(name)
        return baselines.resolve(name) if option in ("baseline", "background") else None
    except ValueError:
        return None
