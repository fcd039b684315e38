"""Every public name has an example, and every example runs.

Public is what users import or name: the methods, scores and baselines, the classes of
`hvd_xai.sinks`, the classes (and functions called like classes) that `hvd_xai.keras` and its
modules list in `__all__`, the lazy names of `hvd_xai`, and the callback recipes, whose `build`
shows how to use them.

An example runs in an empty directory with the names of its own module and these:

- `np`, `tf`, `keras`, `partial` and `Compute`;
- `model`, a compiled classifier of images into three classes, and `inputs` `[4, 8, 8, 1]`,
  `targets` and `ids` for it;
- `text_model`, which attends to `tokens` `[4, 6]`, padded with 0; `targets` and `ids` fit it too;
- `probe` of the images, `world` of one rank, and the run `runs/example`, which holds
  `integrated_gradients` and `grad_cam` of three epochs.

Weights and data are the same each time, but examples print no numbers that depend on how kernels
round.
"""

import ast
import doctest
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import hvd_xai
from hvd_xai import baselines, scores
from hvd_xai.compute.attribute import Compute
from hvd_xai.probe.probe import Probe
from hvd_xai.ranks.world import World
from tests import models_under_test as models
from tests.attributions.methods_under_test import METHODS
from tests.runs_under_test import make_run

ROOT = Path(__file__).parents[1]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def file_of(path: Path) -> ModuleType:
    """Returns the module in that file: of the library by its name, of a recipe by its path."""
    if path.is_relative_to(ROOT / "hvd_xai"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        return importlib.import_module(".".join(parts).removesuffix(".__init__"))
    name = f"_example_{path.stem}"
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module


def listed(package: ModuleType) -> Iterator[tuple[str, object]]:
    """Yields what a package lists in `__all__`, and in its modules, that is called like a class.

    Horovod's own classes, which it hands on, are documented there.
    """
    for name in package.__all__:
        value = getattr(package, name)
        if isinstance(value, ModuleType):
            yield from listed(value)
        elif name[0].isupper() and callable(value) and not value.__module__.startswith("horovod"):
            yield f"{package.__name__}.{name}", value


def first_parameters(function: object) -> list[str]:
    return [*inspect.signature(function).parameters][:2] if inspect.isfunction(function) else []


def public_names() -> dict[str, object]:
    found: dict[str, object] = {}
    for name in METHODS:
        module = importlib.import_module(f"hvd_xai.attributions.{name}")
        found[f"hvd_xai.attributions.{name}"] = getattr(module, name)
    for name, value in vars(scores).items():
        if not name.startswith("_") and first_parameters(value) == ["outputs", "targets"]:
            found[f"hvd_xai.scores.{name}"] = value
    for name, value in vars(baselines).items():
        if not name.startswith("_") and first_parameters(value)[:1] == ["inputs"]:
            found[f"hvd_xai.baselines.{name}"] = value
    sinks = importlib.import_module("hvd_xai.sinks")
    for entry in pkgutil.iter_modules(sinks.__path__):
        module = importlib.import_module(f"hvd_xai.sinks.{entry.name}")
        for name, value in vars(module).items():
            is_own = inspect.isclass(value) and value.__module__ == module.__name__
            if is_own and not name.startswith("_"):
                found[f"{module.__name__}.{name}"] = value
    found.update(listed(importlib.import_module("hvd_xai.keras")))
    found.update({f"hvd_xai.{name}": getattr(hvd_xai, name) for name in hvd_xai._PUBLIC})
    for path in sorted((ROOT / "callbacks").glob("*.py")):
        found[f"callbacks.{path.stem}"] = file_of(path).build
    return found


def has_example(documented: object) -> bool:
    _, heading, section = (documented.__doc__ or "").partition("Example:\n")
    return bool(heading) and ">>>" in section


def found_examples() -> dict[str, tuple[Path, doctest.DocTest]]:
    """Returns every docstring that holds an example, of anything, public or not."""
    found = {}
    paths = [*ROOT.glob("hvd_xai/**/*.py"), *ROOT.glob("callbacks/*.py"), *ROOT.glob("models/*.py")]
    for path in sorted(paths):
        source = path.read_text()
        if ">>>" not in source:
            continue
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                continue
            text = ast.get_docstring(node)
            if text is None or ">>>" not in text:
                continue
            name = f"{path.relative_to(ROOT)}:{getattr(node, 'name', 'module')}"
            line = getattr(node, "lineno", 1)
            parsed = doctest.DocTestParser().get_doctest(text, {}, name, str(path), line)
            found[f"{name}:{line}"] = path, parsed
    return found


def namespace(parsed: doctest.DocTest) -> dict[str, Any]:
    inputs, targets, ids = models.examples(4)
    given: dict[str, Any] = {
        "np": np,
        "tf": tf,
        "keras": keras,
        "partial": partial,
        "Compute": Compute,
        "inputs": inputs,
        "targets": targets,
        "ids": ids,
        "probe": Probe(inputs, targets, ids, class_names=("ant", "bee", "cat")),
        "world": World.alone(),
    }
    source = parsed.docstring or ""
    if "text_model" in source:
        given["text_model"] = models.functional(models.TOKENS)
        given["tokens"], _, _ = models.examples(4, family=models.TOKENS)
    if "model" in source:
        given["model"] = models.functional()
        given["model"].compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    if "runs/example" in source:
        make_run(Path("runs/example"), given["probe"])
    return given


EXAMPLES = found_examples()


def test_every_public_name_has_an_example() -> None:
    lacking = {name for name, value in public_names().items() if not has_example(value)}
    assert not lacking, f"write an example for {sorted(lacking)}"


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, parsed = EXAMPLES[name]
    monkeypatch.chdir(tmp_path)
    parsed.globs = {**vars(file_of(path)), **namespace(parsed)}
    # Warnings go where the example's own lines go, so that none is missed.
    failed, _ = doctest.DocTestRunner(optionflags=FLAGS).run(parsed)
    assert failed == 0, capsys.readouterr().out
