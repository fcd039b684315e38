"""Finds recipes by name; shipped recipes and a user's own files go through the same door."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, cast

from hvd_xai.errors import RecipeError
from hvd_xai.lookup.modules import (
    Function,
    import_named,
    is_import,
    is_path,
    none_of_name,
    required_functions,
    run_file,
)

Folder: TypeAlias = Literal["models", "callbacks"]
PACKAGE = Path(__file__).parents[1]
_SINGULAR = {"models": "model recipe", "callbacks": "callback recipe"}


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe that has been loaded.

    Args:
        name: public name of the recipe: its file's name without `.py`.
        source: path of the file, or `package.module:name`.
        functions: functions that the recipe was required to define, by name.
    """

    name: str
    source: str
    functions: Mapping[str, Function]


def shipped(folder: Folder) -> dict[str, Path]:
    """Returns the files of the recipes that ship with the library, by recipe name."""
    # A wheel carries the recipes inside the library. A checkout, and so an editable install, has
    # them in its top folder.
    inside = PACKAGE / "_recipes" / folder
    place = inside if inside.is_dir() else PACKAGE.parent / folder
    return {path.stem: path for path in sorted(place.glob("*.py")) if not path.name.startswith("_")}


def load_recipe(spec: str, folder: Folder, required: Sequence[str]) -> Recipe:
    """Loads a recipe by name, path or import.

    Args:
        spec: a shipped recipe's name, a path that ends in `.py`, or `package.module:name`. The
            imported object defines the required functions, as a class or a module can; if only one
            function is required, the object may also be that function itself, under any name.
        folder: folder of shipped recipes in which a name is looked up.
        required: names of the functions that the recipe must define.

    Raises:
        RecipeError: if the recipe cannot be found or loaded, or lacks a function. The message says
            what there is instead.
    """
    kind = _SINGULAR[folder]
    if is_import(spec):
        found = import_named(spec, kind)
        name = spec.rpartition(":")[2].rpartition(".")[2]
        if len(required) == 1 and callable(found) and not hasattr(found, required[0]):
            return Recipe(name, spec, {required[0]: cast("Function", found)})
        return Recipe(name, spec, required_functions(found, spec, kind, required))
    path = Path(spec).expanduser() if is_path(spec) else _shipped_file(spec, folder)
    return Recipe(
        path.stem, str(path), required_functions(run_file(path, kind), str(path), kind, required)
    )


def _shipped_file(name: str, folder: Folder) -> Path:
    files = shipped(folder)
    if name not in files:
        raise RecipeError(none_of_name(_SINGULAR[folder], name, files))
    return files[name]
