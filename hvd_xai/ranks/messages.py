"""What ranks say to each other, as JSON: no byte that comes over the network can run code."""

import json
from typing import Any

# JSON knows no tuples; under this key a list was one.
_TUPLE = "__tuple__"


def to_bytes(value: object) -> bytes:
    """Returns a value as a message: scalars, texts, lists, tuples and dictionaries of texts.

    Raises:
        TypeError: if it holds anything else.

    Example:
        >>> from_bytes(to_bytes((1, [2.5, None], "three")))
        (1, [2.5, None], 'three')
    """
    return json.dumps(_mark_tuples(value)).encode()


def from_bytes(message: bytes) -> Any:
    """Returns the value of a message; a tuple arrives as a tuple."""
    return json.loads(message, object_hook=_restore_tuple)


def _mark_tuples(value: object) -> object:
    """Returns the value with every tuple marked, which JSON would turn into a list."""
    if isinstance(value, tuple):
        return {_TUPLE: [_mark_tuples(item) for item in value]}
    if isinstance(value, list):
        return [_mark_tuples(item) for item in value]
    if isinstance(value, dict):
        return {key: _mark_tuples(item) for key, item in value.items()}
    return value


def _restore_tuple(values: dict[str, Any]) -> object:
    """Returns the tuple that was marked, or the dictionary itself."""
    return tuple(values[_TUPLE]) if values.keys() == {_TUPLE} else values
