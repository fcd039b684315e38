"""The house as CONTRIBUTING.md draws it: layers point down, each third-party library has one door,
recipes use public names only, every module has its test.

Imports are read from the source, those inside functions and under TYPE_CHECKING included.
"""

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

import hvd_xai

ROOT = Path(__file__).parents[1]

# From the top down, and within a layer from left to right: a room imports what stands below it or
# to its right. A room is a package, or a module, right below hvd_xai.
LAYERS = {
    "entry": ("cli", "report"),
    "wiring": ("train", "explain"),
    "recording": ("recording",),
    "sinks": ("sinks",),
    "numbers": (
        "compute",
        "faithfulness",
        "attributions",
        "primitives",
        "lookup",
        "baselines",
        "scores",
        "tracing",
    ),
    "effects": ("views", "analysis", "checkpoint", "keras", "ranks", "storage"),
    "ground": ("environment", "probe", "provenance", "log", "protocols", "errors"),
}
# The import that points up, with its reason.
UPWARD = {
    ("probe", "storage"),  # a data set may be a Zarr array
}
ORDER = [room for rooms in LAYERS.values() for room in rooms]
# Third-party library -> where it may be imported.
DOORS = {
    "mpi4py": ("hvd_xai.ranks",),
    "horovod": ("hvd_xai.ranks", "hvd_xai.keras"),
    "zarr": ("hvd_xai.storage",),
    "tensorstore": ("hvd_xai.storage",),
    "numcodecs": ("hvd_xai.storage",),
    "google_crc32c": ("hvd_xai.storage",),
    "fsspec": ("hvd_xai.storage",),
    "xarray": ("hvd_xai.checkpoint",),
    "h5netcdf": ("hvd_xai.checkpoint.export",),
    "h5py": ("hvd_xai.checkpoint.export",),
    "pyarrow": ("hvd_xai.checkpoint.export",),
    "tensorboard": ("hvd_xai.sinks.tensorboard",),
    "typer": ("hvd_xai.cli",),
    "rich": ("hvd_xai.cli",),
    "PIL": ("hvd_xai.views",),
    "tf_explain": ("hvd_xai.attributions.tf_explain",),
}
# Reading and inspecting checkpoints needs no TensorFlow: these import it for type checkers at most.
TENSORFLOW = ("tensorflow", "keras")
WITHOUT_TENSORFLOW = (
    "cli",
    "recording",
    "sinks",
    "views",
    "analysis",
    "checkpoint",
    "storage",
    *LAYERS["ground"],
)
# records and images, inside the function that reads them
DECODES_WITH_TENSORFLOW = ("hvd_xai.probe.datasets",)
# What a recipe may import of ours, beside the names of hvd_xai itself; packages with all that is in
# them.
PUBLIC_MODULES = (
    "hvd_xai.keras",
    "hvd_xai.attributions",
    "hvd_xai.baselines",
    "hvd_xai.scores",
    "hvd_xai.sinks",
    "hvd_xai.faithfulness",
)
EMPTY_WORDS = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "managers"}
MOST_LINES = 600


@dataclass(frozen=True)
class Import:
    """One import: `module`, and for `from module import name` the name."""

    module: str
    name: str
    line: int
    typing_only: bool

    @property
    def full(self) -> str:
        return f"{self.module}.{self.name}" if self.name else self.module


def imports_of(source: str, package: str = "") -> list[Import]:
    """Returns every import in a source text: statements, and import_module("...") with a text."""
    found: list[Import] = []

    def visit(node: ast.AST, typing_only: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, "", node.lineno, typing_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(
                [
                    *package.split(".")[: len(package.split(".")) - node.level + 1],
                    *filter(None, [node.module]),
                ]
            )
            module = base if node.level else node.module or ""
            found.extend(
                Import(module, alias.name, node.lineno, typing_only) for alias in node.names
            )
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "import_module",
            "importlib.import_module",
            "__import__",
        ):
            if node.args and isinstance(node.args[0], ast.Constant):
                found.append(Import(str(node.args[0].value), "", node.lineno, typing_only))
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for statement in node.body:
                visit(statement, True)
            for statement in node.orelse:
                visit(statement, typing_only)
            return
        for child in ast.iter_child_nodes(node):
            visit(child, typing_only)

    visit(ast.parse(source), False)
    return found


def unit_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def faults_of_library(module: str, source: str, package: str, known: set[str]) -> list[str]:
    """Returns what is wrong with the imports of a module of the library.

    `known` are the names of all its modules.
    """
    unit, faults = unit_of(module), []
    for found in imports_of(source, package):
        where = f"{module}:{found.line} imports {found.full}"
        top = found.module.partition(".")[0]
        if top in ("models", "callbacks", "tests", "benchmarks") or "_recipes" in found.full:
            faults.append(f"{where}: the library never imports a recipe or a test")
        if top in DOORS and not found.typing_only and not within(module, DOORS[top]):
            faults.append(f"{where}: {top} is imported in {', '.join(DOORS[top])} only")
        if (
            top in TENSORFLOW
            and not found.typing_only
            and unit in WITHOUT_TENSORFLOW
            and not within(module, DECODES_WITH_TENSORFLOW)
        ):
            faults.append(f"{where}: {unit} must work without {top}")
        if top != "hvd_xai" or module == "hvd_xai":
            continue
        target = found.full if found.full in known else found.module
        if target == "hvd_xai":
            if found.name != "__version__":
                faults.append(
                    f"{where}: inside the library, import from the module that defines it"
                )
        elif unit_of(target) != unit and not allowed(unit, unit_of(target)):
            faults.append(f"{where}: {unit} stands below or to the right of {unit_of(target)}")
    return faults


def allowed(unit: str, target: str) -> bool:
    if unit not in ORDER or target not in ORDER:
        return False
    return ORDER.index(unit) < ORDER.index(target) or (unit, target) in UPWARD


def within(module: str, places: tuple[str, ...]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


def faults_of_recipe(name: str, source: str) -> list[str]:
    """Returns what is wrong with the imports of a recipe."""
    faults = []
    for found in imports_of(source):
        top = found.module.partition(".")[0]
        private = any(part.startswith("_") for part in found.full.split("."))
        public = found.module == "hvd_xai" and (
            found.name in hvd_xai._PUBLIC or within(found.full, PUBLIC_MODULES)
        )
        if top == "hvd_xai" and (private or not (public or within(found.module, PUBLIC_MODULES))):
            faults.append(
                f"{name}:{found.line} imports {found.full}: a recipe uses public names only"
            )
        if top in ("models", "callbacks", "tests"):
            faults.append(
                f"{name}:{found.line} imports {found.full}: a recipe is one file, that can be"
                " copied"
            )
    return faults


def modules() -> dict[str, Path]:
    """Returns every module of the library: dotted name -> file."""
    found = {}
    for path in sorted((ROOT / "hvd_xai").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if "_recipes" not in parts:
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()
RECIPES = sorted([*(ROOT / "models").glob("*.py"), *(ROOT / "callbacks").glob("*.py")])
ALL = sorted(
    path
    for folder in ("hvd_xai", "models", "callbacks", "tests", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
)


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down_and_through_the_doors(module: str) -> None:
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    assert not faults_of_library(module, path.read_text("utf-8"), package, set(MODULES))


@pytest.mark.parametrize("module", [module for module in MODULES if module != "hvd_xai"])
def test_every_module_stands_in_a_layer(module: str) -> None:
    assert unit_of(module) in ORDER, (
        f"write '{unit_of(module)}' into LAYERS, and into CONTRIBUTING.md"
    )


@pytest.mark.parametrize("path", RECIPES, ids=shown)
def test_recipes_use_public_names(path: Path) -> None:
    assert not faults_of_recipe(shown(path), path.read_text("utf-8"))


@pytest.mark.parametrize("path", ALL, ids=shown)
def test_modules_are_short_and_named_for_what_they_do(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= MOST_LINES
    assert not EMPTY_WORDS & set(path.stem.removeprefix("test_").split("_"))


@pytest.mark.parametrize(
    "path", [path for path in MODULES.values() if path.name == "__init__.py"], ids=shown
)
def test_packages_hold_no_logic(path: Path) -> None:
    body = ast.parse(path.read_text("utf-8")).body
    logic = [
        node
        for node in body
        if isinstance(node, ast.FunctionDef | ast.For | ast.While | ast.With | ast.Try)
    ]
    # a module's __getattr__ is how a name is loaded when it is first used
    assert [
        node.name
        for node in logic
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("__")
    ] == []
    assert [node for node in logic if not isinstance(node, ast.FunctionDef)] == []


def places_of_test(path: Path) -> list[Path]:
    """Returns the files that may test a module of the library or a recipe."""
    name, inside = f"test_{path.stem}.py", path.relative_to(ROOT)
    if inside.parts[0] != "hvd_xai":
        return [ROOT / "tests" / inside.with_name(name)]
    mirrored = ROOT / "tests" / inside.relative_to("hvd_xai").with_name(name)
    # what needs ranks is tested where they are launched
    return [
        mirrored,
        ROOT / "tests/launched/in_ranks" / name,
        ROOT / "tests/launched" / name,
    ]


@pytest.mark.parametrize(
    "path",
    [*(path for path in MODULES.values() if path.name != "__init__.py"), *RECIPES],
    ids=shown,
)
def test_every_module_has_its_test(path: Path) -> None:
    places = places_of_test(path)
    assert any(test.is_file() for test in places), f"write {shown(places[0])}"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "hvd_xai/attributions").glob("[!_]*.py")), ids=shown
)
def test_a_method_is_one_public_function_of_the_modules_name(path: Path) -> None:
    body = ast.parse(path.read_text("utf-8")).body
    assert [
        node.name
        for node in body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    ] == [path.stem]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("hvd_xai.probe.probe", "from hvd_xai.ranks.world import World"),
        ("hvd_xai.probe.probe", "def f():\n    import hvd_xai.ranks.world"),
        ("hvd_xai.compute.attribute", "from hvd_xai import merge"),
        (
            "hvd_xai.compute.attribute",
            "import importlib\nimportlib.import_module('hvd_xai.explain.callback')",
        ),
        ("hvd_xai.ranks.world", "from hvd_xai.checkpoint import reader"),
        ("hvd_xai.ranks.world", "from hvd_xai import Probe"),
        ("hvd_xai.recording.merge", "def f():\n    from mpi4py import MPI"),
        ("hvd_xai.explain.callback", "import horovod.tensorflow as hvd"),
        ("hvd_xai.analysis.drift", "import zarr"),
        ("hvd_xai.checkpoint.reader", "import tensorflow as tf"),
        ("hvd_xai.train.fit", "import models.digits_cnn"),
        ("hvd_xai.sinks.checkpoint", "from ..explain import Explain"),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str) -> None:
    known = {"hvd_xai", *(f"hvd_xai.{unit}" for units in LAYERS.values() for unit in units)}
    assert len(faults_of_library(module, source, module.rpartition(".")[0], known)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "hvd_xai.protocols",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import tensorflow as tf",
        ),
        (
            "hvd_xai.keras.optimizer",
            (
                "import horovod.tensorflow as hvd\nfrom hvd_xai.ranks.world import World\nfrom"
                " hvd_xai.keras import data"
            ),
        ),
        (
            "hvd_xai.sinks.checkpoint",
            "from hvd_xai.checkpoint.writer import Writer\nfrom hvd_xai import __version__",
        ),
    ],
)
def test_a_right_import_passes(module: str, source: str) -> None:
    known = {"hvd_xai", *(f"hvd_xai.{unit}" for units in LAYERS.values() for unit in units)}
    assert not faults_of_library(module, source, module.rpartition(".")[0], known)


@pytest.mark.parametrize(
    "source",
    [
        "from hvd_xai.ranks.world import connect",
        "from hvd_xai import _PUBLIC",
        "from hvd_xai.keras import _private",
    ],
)
def test_a_recipe_with_private_names_is_found(source: str) -> None:
    assert faults_of_recipe("recipe.py", source)


@pytest.mark.parametrize(
    "source",
    [
        "from hvd_xai import Probe, Explain",
        "import hvd_xai.keras as hvd",
        "from hvd_xai import keras, scores",
    ],
)
def test_a_recipe_with_public_names_passes(source: str) -> None:
    assert not faults_of_recipe("recipe.py", source)
