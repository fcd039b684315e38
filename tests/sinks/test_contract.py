"""Every module in `sinks/` is found and held to one contract; a new sink needs no line here."""

import inspect
import pkgutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from hvd_xai import sinks
from hvd_xai.checkpoint.reader import Explanation, open_explanations
from tests.runs_under_test import make_probe, make_run

MODULES = [module.name for module in pkgutil.iter_modules(sinks.__path__)]


def sink_class(module: str) -> Any:
    """The class named as the module: `tensorboard` holds `TensorBoard`."""
    members = vars(import_module(f"hvd_xai.sinks.{module}")).values()
    (found,) = [
        member
        for member in members
        if inspect.isclass(member) and member.__name__.lower() == module.replace("_", "")
    ]
    return found


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def explanation(tmp_path: Path) -> Explanation:
    run = make_run(tmp_path / "run", make_probe(), epochs=[0])
    return open_explanations(run).explanation(0, "integrated_gradients")


def test_there_are_sinks() -> None:
    assert {"checkpoint", "tensorboard"} <= set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_a_run_directory_is_all_a_sink_needs(module: str) -> None:
    first, *others = inspect.signature(sink_class(module)).parameters.values()
    assert first.name == "run_dir"
    assert all(option.default is not inspect.Parameter.empty for option in others)


@pytest.mark.parametrize("module", MODULES)
def test_making_a_sink_touches_no_file(module: str, tmp_path: Path) -> None:
    sink_class(module)(tmp_path / "out").close()
    assert not (tmp_path / "out").exists(), "every rank may make a sink; only the root calls it"


@pytest.mark.parametrize("module", MODULES)
def test_what_a_sink_made_is_there_after_the_call(
    module: str, tmp_path: Path, explanation: Explanation
) -> None:
    sink = sink_class(module)(tmp_path / "out")
    assert sink(explanation) is None
    there = contents(tmp_path / "out")
    assert sum(map(len, there.values())) > 0
    sink.close()
    assert contents(tmp_path / "out").keys() >= there.keys()


@pytest.mark.parametrize("module", MODULES)
def test_close_is_idempotent(module: str, tmp_path: Path, explanation: Explanation) -> None:
    sink = sink_class(module)(tmp_path / "out")
    sink(explanation)
    sink.close()
    before = contents(tmp_path / "out")
    sink.close()
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("module", MODULES)
def test_a_sink_leaves_the_explanation_as_it_is(
    module: str, tmp_path: Path, explanation: Explanation
) -> None:
    before = contents(Path(str(explanation.path)))
    sink = sink_class(module)(tmp_path / "out")
    sink(explanation)
    sink.close()
    assert contents(Path(str(explanation.path))) == before


@pytest.mark.parametrize("module", MODULES)
def test_a_sink_reads_in_bounded_blocks(
    module: str, tmp_path: Path, explanation: Explanation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading is watched, not replaced: with blocks of a row or two there is no other way than
    block by block."""
    namespace = import_module(f"hvd_xai.sinks.{module}")
    budget = [name for name in vars(namespace) if name.strip("_") == "BLOCK_BYTES"]
    assert budget, "a sink says how much it reads at a time in BLOCK_BYTES"
    row_bytes = explanation.manifest.dtype.itemsize
    monkeypatch.setattr(namespace, budget[0], 2 * row_bytes)
    read, attributions, rows = [], Explanation.attributions, Explanation.rows

    def watched(of: Any) -> Any:
        def reading(self: Explanation, start: int = 0, stop: int | None = None) -> Any:
            values = of(self, start, stop)
            read.append(len(values))
            return values

        return reading

    monkeypatch.setattr(Explanation, "attributions", watched(attributions))
    monkeypatch.setattr(Explanation, "rows", watched(rows))
    sink = sink_class(module)(tmp_path / "out")
    sink(explanation)
    sink.close()
    assert sum(read) >= explanation.n_samples
    assert max(read) * row_bytes <= 4 * row_bytes + 4 * 4 * 64
