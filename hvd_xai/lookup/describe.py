"""Names and options of a function, as they are recorded."""

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from hvd_xai.protocols import Json

if TYPE_CHECKING:
    pass
from hvd_xai.provenance import digest


def describe(function: Callable[..., object]) -> tuple[str, dict[str, Json]]:
    """Returns the public name of a function and its keyword options: what is bound, and the
    defaults of what is not.

    Partials are flattened. A function among the options stands there under its name, one with bound
    options as `{name: options}`.

    Args:
        function: a function, a callable object, or a `functools.partial` of one.

    Returns:
        Name and options, ready for JSON. Parameters without a value (the model, the inputs, the
        sample ids) are not options.

    Raises:
        ValueError: if it has no name (a lambda), or options are bound by position.

    Example:
        >>> def blur(inputs, *, width=3, mode="same"):
        ...     return inputs
        >>> describe(functools.partial(blur, width=5))
        ('blur', {'width': 5, 'mode': 'same'})
    """
    bound: dict[str, object] = {}
    inner: Any = function
    while isinstance(inner, functools.partial):
        if inner.args:
            raise ValueError(
                f"options are bound by keyword, so that they have names; {_name(inner.func)} got"
                f" {inner.args!r} by position"
            )
        bound = {**inner.keywords, **bound}
        inner = inner.func
    options = {
        name: bound.get(name, parameter.default)
        for name, parameter in inspect.signature(inner).parameters.items()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }
    options.update({name: value for name, value in bound.items() if name not in options})
    return _name(inner), {
        name: _json(value)
        for name, value in options.items()
        if value is not inspect.Parameter.empty
    }


def sources(function: Callable[..., object]) -> dict[str, str]:
    """Returns what a method and the functions among its options are made of, where that is not
    hvd_xai: `{file: xxh3-128 of its content}`.

    It tells a method that somebody has changed. What the files import is not looked at, and what is
    in no file left out.
    """
    found: dict[str, str] = {}
    inner: Any = function
    while isinstance(inner, functools.partial):
        for value in inner.keywords.values():
            if callable(value):
                found |= sources(value)
        inner = inner.func
    code = inner if hasattr(inner, "__code__") or inspect.isclass(inner) else type(inner)
    try:
        file = (
            None
            if (code.__module__ or "").split(".")[0] == "hvd_xai"
            else inspect.getsourcefile(code)
        )
        return (
            found
            if file is None
            else found | {Path(file).name: xxhash.xxh3_128_hexdigest(Path(file).read_bytes())}
        )
    except (OSError, TypeError):
        return found


def _name(function: Any) -> str:
    name = getattr(function, "__name__", type(function).__name__)
    if name == "<lambda>":
        raise ValueError(
            "a lambda has no name to record; define a function with `def`, and bind its options"
            " with functools.partial"
        )
    return str(name)


def _json(value: object) -> Json:
    if isinstance(value, np.ndarray):
        return {"shape": list(value.shape), "dtype": str(value.dtype), "digest": digest(value)}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, functools.partial):
        name, options = describe(value)
        return {name: options}
    if callable(value):
        return _name(value)
    if isinstance(value, Sequence | set | frozenset):
        return [_json(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return f"{type(value).__module__}.{type(value).__qualname__}"
