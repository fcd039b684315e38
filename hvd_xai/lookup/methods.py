"""Finds attribution methods by name, both shipped methods and a user's own."""

import importlib
import importlib.util
from collections.abc import Sequence
from typing import cast

from hvd_xai.errors import RecipeError
from hvd_xai.lookup.describe import describe
from hvd_xai.lookup.modules import (
    Function,
    is_import,
    is_path,
    load_function,
    none_of_name,
)
from hvd_xai.lookup.recipes import PACKAGE


def shipped_methods() -> list[str]:
    """Returns the names of the attribution methods that ship with the library; imports none."""
    return sorted(
        path.stem
        for path in (PACKAGE / "attributions").glob("*.py")
        if not path.name.startswith("_")
    )


def load_method(spec: str) -> Function:
    """Loads the attribution method that a text names.

    Args:
        spec: name of a shipped method, path of a file that defines a function of the file's name,
            or `package.module:name`.

    Raises:
        RecipeError: if no method has that name; the message lists the names that exist.
    """
    kind = "method"
    if is_import(spec) or is_path(spec):
        return load_function(spec, kind)
    if spec not in shipped_methods():
        raise RecipeError(none_of_name(kind, spec, shipped_methods()))
    return cast("Function", getattr(importlib.import_module(f"hvd_xai.attributions.{spec}"), spec))


def load_methods(specs: Sequence[str]) -> dict[str, Function]:
    """Loads the attribution methods that a command line names.

    Args:
        specs: one text for each method, as `load_method` takes it; `name=` before it says what the
            method is committed under.

    Returns:
        The functions by the name that they are committed under: the given one, or their own.

    Raises:
        RecipeError: if no method has a given name, or two would be committed under one name.
    """
    found: dict[str, Function] = {}
    for spec in specs:
        name, equals, after = spec.partition("=")
        # The path of a file may have "=" in it: what stands before a slash is no name.
        is_named = bool(equals) and "/" not in name
        function = load_method(after if is_named else spec)
        its_name = describe(function)[0]
        name = name if is_named else its_name
        if name in found:
            raise RecipeError(
                f"there are two methods '{name}'; give each a name of its own, as in --method"
                f" one={its_name}"
            )
        found[name] = function
    return found
