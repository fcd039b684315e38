"""Reads texts as values of annotated types, as a command line gives them."""

import ast
import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal


def read_value(text: str, annotation: Any) -> object:
    """Reads a text as a value of the annotated type.

    Raises:
        ValueError: if the text is no such value; the message is the noun phrase that names what was
            expected, such as "a whole number".
        TypeError: if values of this type cannot be written on a command line.

    Example:
        >>> read_value("0.1,0.01", tuple[float, ...])
        (0.1, 0.01)
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is bool:
        if text.lower() not in ("true", "false", "yes", "no", "1", "0"):
            raise ValueError("true or false")
        return text.lower() in ("true", "yes", "1")
    if annotation in (int, float):
        try:
            return annotation(text)
        except ValueError:
            raise ValueError("a whole number" if annotation is int else "a number") from None
    if annotation in (str, Path):
        return annotation(text)
    if annotation is type(None):
        if text.lower() != "none":
            raise ValueError("none")
        return None
    if origin is Literal:
        if text not in map(str, arguments):
            raise ValueError(f"one of {', '.join(map(str, arguments))}")
        return next(choice for choice in arguments if str(choice) == text)
    if origin in (typing.Union, types.UnionType):
        # `str` comes last because it accepts every text.
        return _first_of(text, sorted(arguments, key=lambda choice: choice is str))
    if origin in (tuple, list, Sequence) or annotation in (tuple, list):
        return _items(text, arguments)
    raise TypeError(f"a value of type {annotation}, which cannot be written on the command line")


def _first_of(text: str, choices: Iterable[Any]) -> object:
    expected = []
    for choice in choices:
        try:
            return read_value(text, choice)
        except (ValueError, TypeError) as error:
            expected.append(str(error))
    raise ValueError(" or ".join(expected))


def _items(text: str, arguments: tuple[Any, ...]) -> tuple[object, ...]:
    parts = [part.strip() for part in text.strip("()[]").split(",") if part.strip()]
    if not arguments:
        return tuple(_literal(part) for part in parts)
    if len(arguments) == 1 or arguments[-1] is Ellipsis:
        arguments = (arguments[0],) * len(parts)
    if len(arguments) != len(parts):
        raise ValueError(f"{len(arguments)} values with commas between them")
    try:
        return tuple(
            read_value(part, argument) for part, argument in zip(parts, arguments, strict=True)
        )
    except ValueError as error:
        raise ValueError(f"values with commas between them, each {error}") from None


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
