"""A data set explained on one rank, without a command line."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from hvd_xai import open_explanations
from hvd_xai.attributions.saliency import saliency
from hvd_xai.checkpoint.run_directory import Mode, RunDirectory
from hvd_xai.errors import RunExistsError
from hvd_xai.explain.dataset_job import UNFINISHED, Dataset, DatasetJob
from hvd_xai.lookup.resolve import resolve
from hvd_xai.protocols import Methods
from hvd_xai.ranks.world import World
from tests.models_under_test import functional

INPUTS = np.random.default_rng(0).random((9, 8, 8, 1), np.float32)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.savez(tmp_path / "data.npz", inputs=INPUTS, targets=np.arange(9) % 3)
    return tmp_path / "data.npz"


def _job(data: Path, methods: Methods = ("saliency",), *, mode: Mode = "new") -> DatasetJob:
    run = RunDirectory(data.parent / "run", mode=mode)
    return DatasetJob(functional(), resolve(methods), Dataset(data), run, world=World.alone())


def test_a_data_set_is_explained_and_only_the_run_is_left(data: Path) -> None:
    probe = _job(data).explain()
    assert len(probe) == 9
    run = data.parent / "run"
    assert sorted(path.name for path in run.iterdir()) == [".lock", "explanations"]
    explanation = open_explanations(run).explanation(0, "saliency")
    np.testing.assert_array_equal(explanation.column("target"), np.arange(9) % 3)


def test_an_estimate_leaves_nothing_and_refuses_a_run_that_is_there(data: Path) -> None:
    (found,) = _job(data).estimate()
    assert (found.method, found.n_rows) == ("saliency", 9)
    assert [path.name for path in data.parent.iterdir()] == ["data.npz"]
    with pytest.raises(ValueError, match="there is no data set"):
        _job(data.with_name("absent.npz")).estimate()
    assert [path.name for path in data.parent.iterdir()] == ["data.npz"]
    _job(data).explain()
    with pytest.raises(RunExistsError, match="holds a run already"):
        _job(data).estimate()


def test_predictions_are_the_targets_where_no_method_reads_them(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", INPUTS)
    with pytest.raises(ValueError, match="has no targets"):
        _job(tmp_path / "x.npy").explain()
    _job(tmp_path / "x.npy", [partial(saliency, score="predicted")], mode="resume").explain()
    found = open_explanations(tmp_path / "run").explanation(0, "saliency")
    classes = functional().predict(INPUTS, verbose=0).argmax(axis=1)
    np.testing.assert_array_equal(found.column("target"), classes)


def test_a_run_is_gone_on_with_or_begun_anew(data: Path) -> None:
    _job(data).explain()
    left = data.parent / "run" / UNFINISHED / "rows"
    left.mkdir(parents=True)
    said: list[str] = []

    class Listener:
        def start(self, task: str, total: int) -> None: ...

        def advance(self, steps: int = 1) -> None: ...

        def say(self, line: str) -> None:
            said.append(line)

    _job(data, ["saliency", "grad_cam"], mode="resume").explain(Listener())
    assert said == ["saliency was committed already"]
    assert open_explanations(data.parent / "run").methods(0) == ["grad_cam", "saliency"]
    _job(data, mode="overwrite").explain()
    assert open_explanations(data.parent / "run").methods(0) == ["saliency"]
    assert not left.exists()
