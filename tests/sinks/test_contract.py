"""Every module in `sinks/` is found and held to one contract; a new sink needs no line here.

So is a sink that does as little as the contract allows.
"""

import inspect
import pkgutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from hvd_xai import sinks
from hvd_xai.checkpoint.explanation import Explanation
from hvd_xai.checkpoint.run_directory import RunDirectory
from hvd_xai.recording.sink_calls import check_sinks, close_sinks
from hvd_xai.sinks import Sink
from tests.runs_under_test import make_probe, make_run

MODULES = [
    *(f"{sinks.__name__}.{module.name}" for module in pkgutil.iter_modules(sinks.__path__)),
    "tests.sinks.scores_only_under_test",
]


def sink_class(module: str) -> Any:
    """Returns the class named as the module: `tensorboard` holds `TensorBoard`."""
    name = module.rpartition(".")[2].replace("_", "")
    (found,) = [
        member
        for member in vars(import_module(module)).values()
        if inspect.isclass(member) and member.__name__.lower() == name
    ]
    return found


def make_sink(module: str, tmp_path: Path) -> Any:
    """Makes a sink with its defaults; one that asks for a path gets a folder that is not there."""
    cls = sink_class(module)
    if "path" in inspect.signature(cls).parameters:
        return cls(tmp_path / "elsewhere")
    return cls()


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(make_run(tmp_path / "run", make_probe(), epochs=[0]))


@pytest.fixture
def explanation(run: RunDirectory) -> Explanation:
    return run.explanations().explanation(0, "integrated_gradients")


def test_there_are_sinks() -> None:
    assert {"hvd_xai.sinks.checkpoint", "hvd_xai.sinks.tensorboard"} <= set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_a_sink_is_made_with_no_more_than_a_path(module: str) -> None:
    parameters = inspect.signature(sink_class(module)).parameters.values()
    required = [one.name for one in parameters if one.default is inspect.Parameter.empty]
    assert required in ([], ["path"])


@pytest.mark.parametrize("module", MODULES)
def test_a_sink_keeps_the_contract_of_its_protocol(module: str, tmp_path: Path) -> None:
    sink = make_sink(module, tmp_path)
    assert isinstance(sink, Sink)
    assert check_sinks([sink]) == (sink,)


@pytest.mark.parametrize("module", MODULES)
def test_making_a_sink_touches_no_file(module: str, tmp_path: Path) -> None:
    close_sinks([make_sink(module, tmp_path)])
    assert list(tmp_path.iterdir()) == [], "every rank may make a sink; only the root calls it"


@pytest.mark.parametrize("module", MODULES)
def test_what_a_sink_made_is_there_after_the_call(
    module: str, tmp_path: Path, run: RunDirectory, explanation: Explanation
) -> None:
    before = contents(tmp_path)
    sink = make_sink(module, tmp_path)
    assert sink(run, explanation) is None
    there = contents(tmp_path)
    assert sum(len(there[name]) for name in there.keys() - before.keys()) > 0
    close_sinks([sink])
    assert contents(tmp_path).keys() >= there.keys()


@pytest.mark.parametrize("module", MODULES)
def test_close_is_idempotent(
    module: str, tmp_path: Path, run: RunDirectory, explanation: Explanation
) -> None:
    sink = make_sink(module, tmp_path)
    sink(run, explanation)
    close_sinks([sink])
    before = contents(tmp_path)
    close_sinks([sink])
    assert contents(tmp_path) == before


@pytest.mark.parametrize("module", MODULES)
def test_a_sink_leaves_the_explanation_as_it_is(
    module: str, tmp_path: Path, run: RunDirectory, explanation: Explanation
) -> None:
    before = contents(Path(str(explanation.path)))
    sink = make_sink(module, tmp_path)
    sink(run, explanation)
    close_sinks([sink])
    assert contents(Path(str(explanation.path))) == before


@pytest.mark.parametrize("module", MODULES)
def test_a_sink_reads_in_bounded_blocks(
    module: str,
    tmp_path: Path,
    run: RunDirectory,
    explanation: Explanation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Watches how a sink reads, with blocks of a row or two: it must go block by block.

    A sink may read no attributions at all, and then says nothing of blocks.
    """
    namespace = import_module(module)
    budget = [name for name in vars(namespace) if name.strip("_") == "BLOCK_BYTES"]
    row_bytes = explanation.manifest.dtype.itemsize
    for name in budget:
        monkeypatch.setattr(namespace, name, 2 * row_bytes)
    read, attributions, rows = [0], Explanation.attributions, Explanation.rows

    def watched(of: Any) -> Any:
        def reading(self: Explanation, start: int = 0, stop: int | None = None) -> Any:
            values = of(self, start, stop)
            read.append(len(values))
            return values

        return reading

    monkeypatch.setattr(Explanation, "attributions", watched(attributions))
    monkeypatch.setattr(Explanation, "rows", watched(rows))
    sink = make_sink(module, tmp_path)
    sink(run, explanation)
    close_sinks([sink])
    assert budget or not sum(read), "a sink says how much it reads at a time in BLOCK_BYTES"
    assert max(read) * row_bytes <= 4 * row_bytes + 4 * 4 * 64
