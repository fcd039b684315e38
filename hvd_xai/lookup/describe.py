"""Describes a function for the record: its name, its options, and its source files."""

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from hvd_xai.errors import shorten
from hvd_xai.protocols import Json
from hvd_xai.provenance import digest


def describe(function: Callable[..., object]) -> tuple[str, dict[str, Json]]:
    """Returns a function's public name and its keyword options, bound values and defaults alike.

    Partials are flattened. A function among the options is recorded by its name, and a function
    with bound options as `{name: options}`.

    Args:
        function: function, callable object, or `functools.partial` of one.

    Returns:
        Name and options, ready for JSON. Parameters without a value (the model, the inputs, the
        sample ids) are not options.

    Raises:
        ValueError: if the function has no name (a lambda), or options are bound by position.

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
                f" {shorten(inner.args)} by position"
            )
        # What an outer partial binds wins over what an inner one does.
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


def digest_sources(function: Callable[..., object]) -> dict[str, str]:
    """Returns the digests of the files outside hvd_xai that define a method and its options.

    The digests tell whether a method has changed since. Files that these files import are not
    looked at, and a function without a file is left out.

    Returns:
        The xxh3-128 of each file's content, by the file's name.

    Example:
        >>> from hvd_xai.attributions.saliency import saliency
        >>> digest_sources(saliency)
        {}
    """
    found: dict[str, str] = {}
    inner: Any = function
    while isinstance(inner, functools.partial):
        for value in inner.keywords.values():
            if callable(value):
                found |= digest_sources(value)
        inner = inner.func
    # A callable object is defined where its class is.
    code = inner if hasattr(inner, "__code__") or inspect.isclass(inner) else type(inner)
    if (code.__module__ or "").split(".")[0] == "hvd_xai":
        return found
    try:
        file = inspect.getsourcefile(code)
        if file is not None:
            found[Path(file).name] = xxhash.xxh3_128_hexdigest(Path(file).read_bytes())
    except (OSError, TypeError):
        # built-in functions, and functions that were typed at a prompt, stand in no file
        pass
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
