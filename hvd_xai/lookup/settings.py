"""Reads `name=value` texts as options of functions, and as options of functions among these."""

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from hvd_xai import baselines, scores
from hvd_xai.errors import RecipeError, shorten
from hvd_xai.lookup.methods import load_method
from hvd_xai.lookup.modules import Function, is_import, is_path, load_function, nearest
from hvd_xai.lookup.setting_values import read_value
from hvd_xai.protocols import Attribution, Baseline, Score

# What an option takes -> what people call it, and how the one of a name is found.
_FINDERS: Mapping[object, tuple[str, Callable[[Any], Function]]] = {
    Score: ("score", scores.resolve),
    Baseline: ("baseline", baselines.resolve),
    Attribution: ("method", load_method),
}

# The function that people see, and the names of options that lead from it to an option:
# ("saliency", "score", "head") is `head` of the function that is saliency's `score`.
_Path: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Setting:
    path: _Path
    annotation: Any
    default: object

    @property
    def name(self) -> str:
        return ".".join(self.path[1:])

    @property
    def full_name(self) -> str:
        return ".".join(self.path)

    def __str__(self) -> str:
        default = self.default
        written = "" if default is inspect.Parameter.empty else f"={shorten(default)}"
        return f"{self.name}{written} ({self.path[0]})"


def parse_settings(
    settings: Sequence[str], functions: Mapping[str, Function]
) -> dict[str, dict[str, object]]:
    """Reads `name=value` texts as keyword options of functions.

    A value is read as the type of its parameter's annotation, or else of its default. Where an
    option takes a score, a baseline or a method, options of that function can be set too:
    `score.head=0` sets `head` of the score, which is the default one or the one that another
    setting names.

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
        >>> from hvd_xai.attributions.saliency import saliency
        >>> found = parse_settings(["score=logit", "score.head=1"], {"saliency": saliency})
        >>> found["saliency"]["score"].keywords
        {'head': 1}
    """
    texts = [_split(setting) for setting in settings]
    # What an option's own options are shows once it is known which function it is: so all settings
    # of functions come first, then those of the functions that they name, and so on.
    known = [
        option for label, function in functions.items() for option in _options((label,), function)
    ]
    at: dict[_Path, Function] = {}
    values: dict[_Path, object] = {}
    newest = known
    while newest:
        texts = [pair for pair in texts if not _take(*pair, newest, values)]
        newest = [
            option
            for outer in newest
            if (function := _find_function(outer, values)) is not None
            for option in _options(outer.path, at.setdefault(outer.path, function))
        ]
        known = known + newest
    for given, text in texts:
        raise RecipeError(_unknown(given, text, known))
    return _bind(values, at, list(functions))


def _split(setting: str) -> tuple[str, str]:
    name, equals, text = setting.partition("=")
    if not equals or not name.strip():
        raise RecipeError(f"'--set {setting}' is not of the form name=value")
    return name.strip(), text.strip()


def _take(
    given: str,
    text: str,
    newest: Sequence[_Setting],
    values: dict[_Path, object],
) -> bool:
    """Reads a setting's value if it means one of the newest options; returns whether it does."""
    meant = [option for option in newest if given in (option.name, option.full_name)]
    if not meant:
        return False
    setting = f"'--set {given}={text}'"
    if len(meant) > 1:
        forms = " or ".join(f"{option.full_name}={text}" for option in meant)
        raise RecipeError(f"{setting} could mean more than one option; write {forms}")
    (option,) = meant
    if option.path in values:
        raise RecipeError(f"{setting}: '{option.name}' is set twice")
    try:
        values[option.path] = read_value(text, option.annotation)
    except (ValueError, TypeError) as error:
        raise RecipeError(f"{setting}: '{option.name}' expects {error}; got '{text}'") from None
    return True


def _unknown(given: str, text: str, known: Sequence[_Setting]) -> str:
    """Returns the message for a setting of no option: what comes near, and all that can be set."""
    names = [option.name for option in known]
    # `head` is meant for `score.head`, which is not spelt alike.
    within = [name for name in names if name.rpartition(".")[2] == given]
    guess = f" (did you mean '{within[0]}'?)" if within else nearest(given, names)
    there = (
        f"What can be set: {', '.join(map(str, known))}" if known else "This recipe has no options"
    )
    return f"'--set {given}={text}': there is no option '{given}'{guess}. {there}."


def _options(path: _Path, function: Function) -> list[_Setting]:
    """Returns the options of a function that `path` leads to."""
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
        # Whoever calls a function gives it these two, so they are no options of it: `ids` of a
        # method or a baseline, `at` of a score.
        is_given = (name == "ids" and parameter.default is parameter.empty) or (
            name == "at" and len(path) > 1
        )
        if parameter.kind is parameter.KEYWORD_ONLY and not is_given:
            untyped = (
                str if parameter.default in (parameter.empty, None) else _type_of(parameter.default)
            )
            options.append(_Setting((*path, name), hints.get(name, untyped), parameter.default))
    return options


def _type_of(default: object) -> Any:
    if isinstance(default, tuple) and default:
        return types.GenericAlias(tuple, (type(default[0]), ...))
    return type(default)


def _find_function(option: _Setting, values: Mapping[_Path, object]) -> Function | None:
    """Returns the function that an option is; None if it takes no function, or is none now.

    Raises:
        RecipeError: if it takes functions, and there is none of the name that it is set to.
    """
    choices = (option.annotation, *typing.get_args(option.annotation))
    found = [finder for taken, finder in _FINDERS.items() if taken in choices]
    value = values.get(option.path, option.default)
    if not found or not (callable(value) or isinstance(value, str)):
        return None
    if callable(value):
        return value
    kind, find = found[0]
    try:
        return load_function(value, kind) if _is_own(value) else find(value)
    except ValueError as error:
        # a wrong default is found when the function is called, and then by its own words
        if option.path not in values:
            return None
        raise RecipeError(f"'--set {option.full_name}={value}': {error}") from error


def _is_own(value: object) -> bool:
    """Returns whether the text names a function of the user's own."""
    return isinstance(value, str) and (is_import(value) or is_path(value))


def _bind(
    values: Mapping[_Path, object], at: Mapping[_Path, Function], labels: Sequence[str]
) -> dict[str, dict[str, object]]:
    """Binds values of inner options to the functions that they are of, the innermost first."""
    own = {path: function for path, function in at.items() if _is_own(values.get(path))}
    bound = {**values, **own}
    for path in sorted(values, key=len, reverse=True):
        for end in range(len(path) - 1, 1, -1):
            outer, inner = path[:end], path[: end + 1]
            function = bound.get(outer)
            if not callable(function):
                function = at[outer]
            bound[outer] = functools.partial(function, **{inner[-1]: bound[inner]})
    options: dict[str, dict[str, object]] = {label: {} for label in labels}
    for path, value in bound.items():
        if len(path) == 2:
            options[path[0]][path[1]] = value
    return options
