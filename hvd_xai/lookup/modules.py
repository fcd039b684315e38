"""Loads objects from names such as "path/to/file.py" and "package.module:name"."""

import difflib
import importlib
import importlib.util
import inspect
import sys
import types
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import xxhash

from hvd_xai.errors import RecipeError

Function: TypeAlias = Callable[..., Any]


def load_objects(spec: str) -> dict[str, Any]:
    """Loads the classes and functions that a file defines, or that `package.module:name` names.

    Args:
        spec: path of a Python file, or `package.module:name`.

    Returns:
        The objects by name. Objects that the file merely imports are left out.

    Raises:
        RecipeError: if the spec cannot be found or loaded, or the file defines nothing of its own.
    """
    kind = "custom objects"
    if is_import(spec):
        return {spec.rpartition(":")[2].rpartition(".")[2]: import_named(spec, kind)}
    module = run_file(Path(spec).expanduser(), kind)
    # `__module__` tells what the file defines from what it imports.
    own = {
        name: value
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__ and callable(value)
    }
    if not own:
        raise RecipeError(f"{kind} '{spec}' defines no class and no function")
    return own


def load_function(spec: str, kind: str) -> Function:
    """Loads the function that `package.module:name` names, or the one of a file's own name.

    Args:
        spec: `package.module:name`, or path of a file that defines a function of the file's name.
        kind: what people call such a function, such as "method".

    Raises:
        RecipeError: if the spec cannot be found or loaded, or names no function.
    """
    if is_path(spec):
        path = Path(spec).expanduser()
        return required_functions(run_file(path, kind), str(path), kind, [path.stem])[path.stem]
    found = import_named(spec, kind)
    if not callable(found):
        raise RecipeError(
            f"{kind} '{spec}' must be a function; it is of type {type(found).__name__}"
        )
    return cast("Function", found)


def is_import(spec: str) -> bool:
    """Returns whether a text is of the form `package.module:name`."""
    return ":" in spec and not is_path(spec)


def is_path(spec: str) -> bool:
    """Returns whether a text names a file."""
    return spec.endswith(".py") or "/" in spec


def none_of_name(kind: str, name: str, names: Iterable[str]) -> str:
    """Returns the message for a name that does not exist; it lists the names that do."""
    names = sorted(names)
    there = f"There are: {', '.join(names)}" if names else "None ships with this installation"
    own = "Your own: path/to/file.py or package.module:name"
    return f"there is no {kind} '{name}'{nearest(name, names)}. {there}. {own}."


def nearest(name: str, names: Iterable[str]) -> str:
    """Returns ` (did you mean '...'?)` with the name spelt most like this one, or an empty text."""
    close = difflib.get_close_matches(name.lower(), list(names), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""


def required_functions(
    found: object, source: str, kind: str, required: Sequence[str]
) -> dict[str, Function]:
    """Returns the required functions of an object, by name.

    Args:
        found: module or object that must define them.
        source: what people call the object in a message.
        kind: what people call such an object, such as "model recipe".
        required: names of the functions.

    Raises:
        RecipeError: if a function is missing or cannot be called.
    """
    functions: dict[str, Function] = {}
    for name in required:
        value = getattr(found, name, None)
        if not callable(value):
            defined = sorted(
                key
                for key, item in getattr(found, "__dict__", {}).items()
                if inspect.isfunction(item) and not key.startswith("_")
            )
            has = f"defines {', '.join(defined)}" if defined else "defines no function"
            what = "is no function there" if hasattr(found, name) else "is missing"
            needs = ", ".join(f"{needed}()" for needed in required)
            raise RecipeError(
                f"{kind} '{source}' must define {needs}; {name}() {what}{nearest(name, defined)}."
                f" It {has}."
            )
        functions[name] = value
    return functions


def run_file(path: Path, kind: str) -> types.ModuleType:
    """Runs a Python file as a module of its own, once in each process.

    Raises:
        RecipeError: if the file does not exist, or raises an error when it runs.
    """
    if not path.is_file():
        beside = (
            sorted(str(other) for other in path.parent.glob("*.py")) if path.parent.is_dir() else []
        )
        there = (
            f" (did you mean '{close[0]}'?)"
            if (close := difflib.get_close_matches(str(path), beside, n=1))
            else ""
        )
        raise RecipeError(
            f"{kind} '{path}'"
            f" {'is a folder, not a file' if path.is_dir() else 'does not exist'}{there}."
        )
    path = path.resolve()
    # The digest keeps two files with the same name apart, and the stem keeps tracebacks legible.
    name = f"{path.stem}_{xxhash.xxh3_64_hexdigest(str(path).encode())}"
    if name in sys.modules:
        return sys.modules[name]
    if str(path.parent) not in sys.path:
        # Appended, not inserted: the recipe can import modules beside it, and they hide no package
        # that is installed.
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RecipeError(f"{kind} '{path}' is no Python file")
    module = importlib.util.module_from_spec(spec)
    # Registered before it runs, because dataclasses look their module up while they are defined.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise RecipeError(f"{kind} '{path}' cannot be loaded. {_where(error, path)}") from error
    return module


def import_named(spec: str, kind: str) -> object:
    """Imports the object that `package.module:name` names.

    Raises:
        RecipeError: if the text has another form, or the import fails.
    """
    module_name, _, name = spec.rpartition(":")
    if (
        not module_name
        or not name
        or not all(part.isidentifier() for part in (*module_name.split("."), *name.split(".")))
    ):
        raise RecipeError(f"{kind} '{spec}' is not of the form package.module:name")
    if str(Path.cwd()) not in sys.path:
        # `python -m` would find a module in the current folder too.
        sys.path.append(str(Path.cwd()))
    try:
        found: object = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise RecipeError(f"{kind} '{spec}' cannot be loaded. {_where(error, None)}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            names = (
                [key for key in vars(found) if not key.startswith("_")]
                if hasattr(found, "__dict__")
                else []
            )
            raise RecipeError(
                f"{kind} '{spec}': '{module_name}' has no '{part}'{nearest(part, names)}. It has:"
                f" {', '.join(sorted(names))}."
            )
        found = getattr(found, part)
    return found


def _where(error: BaseException, path: Path | None) -> str:
    """Returns an error's type and message, after the recipe's own line that raised it, if any."""
    what = f"{type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        what += (
            f". Install the package that brings '{error.name}'; what the shipped recipes need comes"
            " with: pip install 'hvd_xai[recipes]'"
        )
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
    # A traceback runs from the outermost call inward: the last match is the innermost line.
    place, trace = "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file == str(path) or (path is None and "importlib" not in file and file != __file__):
            place = f"{file}:{trace.tb_lineno}: "
        trace = trace.tb_next
    return place + what
