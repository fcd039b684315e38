"""From what somebody wrote on the command line to the object that is meant: "name", "path/to/file.py" or "package.module:name".

Recipes that ship with the library go through the same door as a user's own files: a name is a file in the shipped folder.
"""

import ast
import difflib
import functools
import importlib
import importlib.util
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import xxhash

from hvd_xai import provenance
from hvd_xai.errors import RecipeError

Folder: TypeAlias = Literal["models", "callbacks"]
Function: TypeAlias = Callable[..., Any]

_HERE = Path(__file__).parent
_SINGULAR = {"models": "model recipe", "callbacks": "callback recipe"}


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe that was found and loaded.

    Args:
        name: its public name, the file's without `.py`.
        source: the file, or `package.module:name`.
        functions: what was required of it, by name.
    """

    name: str
    source: str
    functions: Mapping[str, Function]


def shipped(folder: Folder) -> dict[str, Path]:
    """Returns the recipes that ship with the library: name -> file."""
    # Installed, they are inside the library; in a checkout, which is also what an editable install sees, at its top.
    inside = _HERE / "_recipes" / folder
    place = inside if inside.is_dir() else _HERE.parent / folder
    return {path.stem: path for path in sorted(place.glob("*.py")) if not path.name.startswith("_")}


def methods() -> list[str]:
    """Returns the names of the attribution methods, without importing one."""
    return sorted(path.stem for path in (_HERE / "attributions").glob("*.py") if not path.name.startswith("_"))


def load_recipe(spec: str, folder: Folder, required: Sequence[str]) -> Recipe:
    """Loads a recipe.

    Args:
        spec: a shipped recipe's name, a path that ends in `.py`, or `package.module:name`, where the name is an object with the required
            functions (a class, a module), or, if only one is required, that function itself under any name.
        folder: where names are looked up.
        required: the functions that the recipe must define.

    Raises:
        RecipeError: if it cannot be found or loaded, or lacks one of the functions. The message says what there is instead.
    """
    kind = _SINGULAR[folder]
    if _is_import(spec):
        found = _imported(spec, kind)
        name = spec.rpartition(":")[2].rpartition(".")[2]
        if len(required) == 1 and callable(found) and not hasattr(found, required[0]):
            return Recipe(name, spec, {required[0]: cast("Function", found)})
        return Recipe(name, spec, _functions(found, spec, kind, required))
    path = Path(spec).expanduser() if _is_path(spec) else _shipped_file(spec, folder)
    return Recipe(path.stem, str(path), _functions(_executed(path, kind), str(path), kind, required))


def load_method(spec: str) -> Function:
    """Loads an attribution method: a name of ours, a file that defines a function of the file's name, or `package.module:name`.

    Raises:
        RecipeError: if there is none, with what there is instead.
    """
    kind = "method"
    if _is_import(spec):
        found = _imported(spec, kind)
        if not callable(found):
            raise RecipeError(f"{kind} '{spec}' must be a function; it is of type {type(found).__name__}")
        return cast("Function", found)
    if _is_path(spec):
        path = Path(spec).expanduser()
        return _functions(_executed(path, kind), str(path), kind, [path.stem])[path.stem]
    if spec not in methods():
        raise RecipeError(_no_such(kind, spec, methods()))
    return cast("Function", getattr(importlib.import_module(f"hvd_xai.attributions.{spec}"), spec))


def load_methods(specs: Sequence[str]) -> dict[str, Function]:
    """Loads attribution methods, each as `load_method` takes it or as `name=method`, by that name or else their own.

    Raises:
        RecipeError: as `load_method`, or if two have one name.
    """
    found: dict[str, Function] = {}
    for spec in specs:
        name, equals, of_name = spec.partition("=")
        is_named = bool(equals) and "/" not in name  # a path may have one in it
        function = load_method(of_name if is_named else spec)
        its_name = provenance.describe(function)[0]
        name = name if is_named else its_name
        if name in found:
            raise RecipeError(f"there are two methods '{name}'; give each a name of its own, as in --method one={its_name}")
        found[name] = function
    return found


def load_objects(spec: str) -> dict[str, Any]:
    """Loads a user's own classes and functions by name: those a file defines, or the one that `package.module:name` names.

    Raises:
        RecipeError: if it cannot be found or loaded, or the file defines none.
    """
    kind = "custom objects"
    if _is_import(spec):
        return {spec.rpartition(":")[2].rpartition(".")[2]: _imported(spec, kind)}
    module = _executed(Path(spec).expanduser(), kind)
    own = {name: value for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__ and callable(value)}
    if not own:
        raise RecipeError(f"{kind} '{spec}' defines no class and no function")
    return own


def _is_import(spec: str) -> bool:
    return ":" in spec and not _is_path(spec)


def _is_path(spec: str) -> bool:
    return spec.endswith(".py") or "/" in spec


def _shipped_file(name: str, folder: Folder) -> Path:
    files = shipped(folder)
    if name not in files:
        raise RecipeError(_no_such(_SINGULAR[folder], name, files))
    return files[name]


def _no_such(kind: str, name: str, names: Iterable[str]) -> str:
    names = sorted(names)
    there = f"There are: {', '.join(names)}" if names else "None ships with this installation"
    own = "Your own: path/to/file.py or package.module:name"
    return f"there is no {kind} '{name}'{nearest(name, names)}. {there}. {own}."


def nearest(name: str, names: Iterable[str]) -> str:
    """Returns ` (did you mean '...'?)` for the name that is spelt most like it, or nothing if none is."""
    close = difflib.get_close_matches(name.lower(), list(names), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""


def _functions(found: object, source: str, kind: str, required: Sequence[str]) -> dict[str, Function]:
    functions: dict[str, Function] = {}
    for name in required:
        value = getattr(found, name, None)
        if not callable(value):
            defined = sorted(
                key for key, item in getattr(found, "__dict__", {}).items() if inspect.isfunction(item) and not key.startswith("_")
            )
            has = f"defines {', '.join(defined)}" if defined else "defines no function"
            what = "is no function there" if hasattr(found, name) else "is missing"
            needs = ", ".join(f"{needed}()" for needed in required)
            raise RecipeError(f"{kind} '{source}' must define {needs}; {name}() {what}{nearest(name, defined)}. It {has}.")
        functions[name] = value
    return functions


def _executed(path: Path, kind: str) -> types.ModuleType:
    """Runs a file as a module of its own, once a process."""
    if not path.is_file():
        beside = sorted(str(other) for other in path.parent.glob("*.py")) if path.parent.is_dir() else []
        there = f" (did you mean '{close[0]}'?)" if (close := difflib.get_close_matches(str(path), beside, n=1)) else ""
        raise RecipeError(f"{kind} '{path}' {'is a folder, not a file' if path.is_dir() else 'does not exist'}{there}.")
    path = path.resolve()
    # Two files of one name are two modules; the name stays legible in tracebacks.
    name = f"{path.stem}_{xxhash.xxh3_64_hexdigest(str(path).encode())}"
    if name in sys.modules:
        return sys.modules[name]
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # last, so that a module beside the recipe can be imported and hides nothing installed
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RecipeError(f"{kind} '{path}' is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise RecipeError(f"{kind} '{path}' cannot be loaded. {_where(error, path)}") from error
    return module


def _imported(spec: str, kind: str) -> object:
    module_name, _, name = spec.rpartition(":")
    if not module_name or not name or not all(part.isidentifier() for part in (*module_name.split("."), *name.split("."))):
        raise RecipeError(f"{kind} '{spec}' is not of the form package.module:name")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # a module in the current folder is found, as `python -m` would
    try:
        found: object = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise RecipeError(f"{kind} '{spec}' cannot be loaded. {_where(error, None)}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            names = [key for key in vars(found) if not key.startswith("_")] if hasattr(found, "__dict__") else []
            raise RecipeError(
                f"{kind} '{spec}': '{module_name}' has no '{part}'{nearest(part, names)}. It has: {', '.join(sorted(names))}."
            )
        found = getattr(found, part)
    return found


def _where(error: BaseException, path: Path | None) -> str:
    """Says what was raised and in which line: the innermost one of the recipe's own file, if it stands in the traceback."""
    what = f"{type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        what += (
            f". Install the package that brings '{error.name}'; what the shipped recipes need comes with: pip install 'hvd_xai[recipes]'"
        )
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
    place, trace = "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file == str(path) or (path is None and "importlib" not in file and file != __file__):
            place = f"{file}:{trace.tb_lineno}: "
        trace = trace.tb_next
    return place + what


@dataclass(frozen=True, slots=True)
class _Setting:
    function: str
    name: str
    annotation: Any
    default: object

    def __str__(self) -> str:
        default = "" if self.default is inspect.Parameter.empty else f"={self.default!r}"
        return f"{self.name}{default} ({self.function})"


def parse_settings(settings: Sequence[str], functions: Mapping[str, Function]) -> dict[str, dict[str, object]]:
    """Reads `name=value` texts as keyword options of functions, by the type of the parameter's annotation, or else of its default.

    Args:
        settings: `name=value`, or `function.name=value` where two functions have an option of that name.
        functions: what can be set, by the name that people see. The options are the keyword-only parameters.

    Returns:
        For each function the options that were set, ready to be bound with `functools.partial`.

    Raises:
        RecipeError: if an option does not exist, is meant by two functions, is set twice, or its value cannot be read.

    Example:
        >>> def build(*, width: int = 8, rates: tuple[float, ...] = (0.1,)):
        ...     pass
        >>> parse_settings(["width=16", "rates=0.1,0.01"], {"build": build})
        {'build': {'width': 16, 'rates': (0.1, 0.01)}}
    """
    known = [option for label, function in functions.items() for option in _options(label, function)]
    parsed: dict[str, dict[str, object]] = {label: {} for label in functions}
    for setting in settings:
        given, equals, text = setting.partition("=")
        given = given.strip()
        if not equals or not given:
            raise RecipeError(f"'--set {setting}' is not of the form name=value")
        meant = [option for option in known if given in (option.name, f"{option.function}.{option.name}")]
        if not meant:
            there = f"What can be set: {', '.join(map(str, known))}" if known else "This recipe has no options"
            raise RecipeError(f"'--set {setting}': there is no option '{given}'{nearest(given, [o.name for o in known])}. {there}.")
        if len(meant) > 1:
            forms = " or ".join(f"{option.function}.{option.name}={text}" for option in meant)
            raise RecipeError(f"'--set {setting}' could mean more than one option; write {forms}")
        option = meant[0]
        if option.name in parsed[option.function]:
            raise RecipeError(f"'--set {setting}': '{option.name}' is set twice")
        try:
            parsed[option.function][option.name] = _value(text.strip(), option.annotation)
        except (ValueError, TypeError) as error:
            raise RecipeError(f"'--set {setting}': '{option.name}' expects {error}; got '{text}'") from None
    return parsed


def _options(label: str, function: Function) -> list[_Setting]:
    bound = function
    while isinstance(bound, functools.partial):
        bound = bound.func
    try:
        hints = typing.get_type_hints(bound)
    except (NameError, TypeError):
        hints = {}  # an annotation that only exists for type checkers
    options = []
    for name, parameter in inspect.signature(function).parameters.items():
        is_given = name == "ids" and parameter.default is parameter.empty  # by who calls a method
        if parameter.kind is parameter.KEYWORD_ONLY and not is_given:
            untyped = str if parameter.default in (parameter.empty, None) else _type_of(parameter.default)
            options.append(_Setting(label, name, hints.get(name, untyped), parameter.default))
    return options


def _type_of(default: object) -> Any:
    if isinstance(default, tuple) and default:
        return types.GenericAlias(tuple, (type(default[0]), ...))
    return type(default)


def _value(text: str, annotation: Any) -> object:
    """Reads a text as the annotation says. Errors say what was expected, as in "a whole number"."""
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
        return _first_of(text, sorted(arguments, key=lambda choice: choice is str))  # str takes everything: last
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
        return tuple(_value(part, argument) for part, argument in zip(parts, arguments, strict=True))
    except ValueError as error:
        raise ValueError(f"values with commas between them, each {error}") from None


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
