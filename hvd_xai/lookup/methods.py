"""Finds attribution methods by name."""

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from hvd_xai.errors import RecipeError
from hvd_xai.lookup.describe import describe
from hvd_xai.lookup.modules import (
    Function,
    import_named,
    is_import,
    is_path,
    none_of_name,
    required_functions,
    run_file,
)
from hvd_xai.lookup.recipes import PACKAGE


def methods() -> list[str]:
    """Returns the names of the attribution methods, without importing one."""
    return sorted(
        path.stem
        for path in (PACKAGE / "attributions").glob("*.py")
        if not path.name.startswith("_")
    )


def load_method(spec: str) -> Function:
    """Loads an attribution method: a name of ours, a file that defines a function of the file's
    name, or `package.module:name`.

    Raises:
        RecipeError: if there is none, with what there is instead.
    """
    kind = "method"
    if is_import(spec):
        found = import_named(spec, kind)
        if not callable(found):
            raise RecipeError(
                f"{kind} '{spec}' must be a function; it is of type {type(found).__name__}"
            )
        return cast("Function", found)
    if is_path(spec):
        path = Path(spec).expanduser()
        return required_functions(run_file(path, kind), str(path), kind, [path.stem])[path.stem]
    if spec not in methods():
        raise RecipeError(none_of_name(kind, spec, methods()))
    return cast("Function", getattr(importlib.import_module(f"hvd_xai.attributions.{spec}"), spec))


def load_methods(specs: Sequence[str]) -> dict[str, Function]:
    """Loads attribution methods, each as `load_method` takes it or as `name=method`, by that name
    or else their own.

    Raises:
        RecipeError: as `load_method`, or if two have one name.
    """
    found: dict[str, Function] = {}
    for spec in specs:
        name, equals, of_name = spec.partition("=")
        is_named = bool(equals) and "/" not in name  # a path may have one in it
        function = load_method(of_name if is_named else spec)
        its_name = describe(function)[0]
        name = name if is_named else its_name
        if name in found:
            raise RecipeError(
                f"there are two methods '{name}'; give each a name of its own, as in --method"
                f" one={its_name}"
            )
        found[name] = function
    return found
