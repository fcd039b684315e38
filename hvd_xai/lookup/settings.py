"""Reads `name=value` texts as options of functions."""

import ast
import functools
import inspect
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hvd_xai.errors import RecipeError
from hvd_xai.lookup.modules import Function, nearest


@dataclass(frozen=True, slots=True)
class _Setting:
    function: str
    name: str
    annotation: Any
    default: object

    def __str__(self) -> str:
        default = "" if self.default is inspect.Parameter.empty else f"={self.default!r}"
        return f"{self.name}{default} ({self.function})"


def parse_settings(
    settings: Sequence[str], functions: Mapping[str, Function]
) -> dict[str, dict[str, object]]:
    """Reads `name=value` texts as keyword options of functions.

    A value is read as the type of its parameter's annotation, or else of its default.

    Args:
        settings: texts of the form `name=value`, or `function.name=value` where two functions have
            an option of that name.
        functions: functions whose keyword-only parameters can be set, by the name that people see.

    Returns:
        The options that were set, by function, ready to be bound with `functools.partial`.

    Raises:
        RecipeError: if an option does not exist, belongs to two functions, or is set twice, or if
            its value cannot be read.

    Example:
        >>> def build(*, width: int = 8, rates: tuple[float, ...] = (0.1,)):
        ...     pass
        >>> parse_settings(["width=16", "rates=0.1,0.01"], {"build": build})
        {'build': {'width': 16, 'rates': (0.1, 0.01)}}
    """
    known = [
        option for label, function in functions.items() for option in _options(label, function)
    ]
    parsed: dict[str, dict[str, object]] = {label: {} for label in functions}
    for setting in settings:
        given, equals, text = setting.partition("=")
        given = given.strip()
        if not equals or not given:
            raise RecipeError(f"'--set {setting}' is not of the form name=value")
        meant = [
            option for option in known if given in (option.name, f"{option.function}.{option.name}")
        ]
        if not meant:
            there = (
                f"What can be set: {', '.join(map(str, known))}"
                if known
                else "This recipe has no options"
            )
            raise RecipeError(
                f"'--set {setting}': there is no option"
                f" '{given}'{nearest(given, [option.name for option in known])}. {there}."
            )
        if len(meant) > 1:
            forms = " or ".join(f"{option.function}.{option.name}={text}" for option in meant)
            raise RecipeError(f"'--set {setting}' could mean more than one option; write {forms}")
        option = meant[0]
        if option.name in parsed[option.function]:
            raise RecipeError(f"'--set {setting}': '{option.name}' is set twice")
        try:
            parsed[option.function][option.name] = _value(text.strip(), option.annotation)
        except (ValueError, TypeError) as error:
            raise RecipeError(
                f"'--set {setting}': '{option.name}' expects {error}; got '{text}'"
            ) from None
    return parsed


def _options(label: str, function: Function) -> list[_Setting]:
    bound = function
    while isinstance(bound, functools.partial):
        bound = bound.func
    try:
        hints = typing.get_type_hints(bound)
    except (NameError, TypeError):
        # An annotation may name what is imported for type checkers only.
        hints = {}
    options = []
    for name, parameter in inspect.signature(function).parameters.items():
        # Whoever calls a method gives it the sample ids, so `ids` is no option of it.
        is_given = name == "ids" and parameter.default is parameter.empty
        if parameter.kind is parameter.KEYWORD_ONLY and not is_given:
            untyped = (
                str if parameter.default in (parameter.empty, None) else _type_of(parameter.default)
            )
            options.append(_Setting(label, name, hints.get(name, untyped), parameter.default))
    return options


def _type_of(default: object) -> Any:
    if isinstance(default, tuple) and default:
        return types.GenericAlias(tuple, (type(default[0]), ...))
    return type(default)


def _value(text: str, annotation: Any) -> object:
    """Reads a text as a value of the annotated type.

    Raises:
        ValueError: if the text is no such value; the message is the noun phrase that names what was
            expected, such as "a whole number".
        TypeError: if values of this type cannot be written on a command line.
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
            return _value(text, choice)
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
            _value(part, argument) for part, argument in zip(parts, arguments, strict=True)
        )
    except ValueError as error:
        raise ValueError(f"values with commas between them, each {error}") from None


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
