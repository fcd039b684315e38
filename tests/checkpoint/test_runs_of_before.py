"""Runs that an earlier version wrote are read and continued as those of today."""

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hvd_xai import Probe, RunDirectory, World, open_explanations, provenance
from hvd_xai.attributions.integrated_gradients import integrated_gradients
from hvd_xai.attributions.layer_conductance import layer_conductance
from hvd_xai.checkpoint.reader import Explanations
from hvd_xai.checkpoint.verify import verify
from hvd_xai.cli.main import main
from hvd_xai.compute.saved_model import read_model
from hvd_xai.explain.compiled_methods import CompiledMethods
from hvd_xai.explain.recompute import recompute
from hvd_xai.explain.runner import Runner
from hvd_xai.lookup.resolve import resolve
from hvd_xai.recording.unfinished_rows import UnfinishedRows
from tests.launched.launch import BIN, launch

BEFORE = Path(__file__).parents[1] / "data" / "runs_of_schema_1_0"
TRAINED, EXPLAINED = BEFORE / "trained", BEFORE / "explained"
FEATURES = ("age", "height", "weight")
MODELS = {
    TRAINED: TRAINED / "models" / "epoch-000001.keras",
    EXPLAINED: EXPLAINED / "model.keras",
}
METHODS = [
    partial(integrated_gradients, n_steps=8),
    partial(layer_conductance, layer="hidden", n_steps=8),
]


def said_by(
    command: str,
    *arguments: object,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> str:
    monkeypatch.setattr("sys.argv", ["hvd-xai", command, *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert not ended.value.code, said.err
    return said.out


def explain_again(path: Path) -> Explanations:
    """Continues a copy of `EXPLAINED` with the model and the options that it was made with."""
    stored = open_explanations(EXPLAINED).probe()
    assert stored is not None
    probe = Probe(stored.inputs(slice(None)), stored.column("targets"), feature_names=FEATURES)
    run = RunDirectory(path, mode="resume")
    compiled = CompiledMethods(
        read_model(MODELS[EXPLAINED], {}), probe, resolve(METHODS), precision="bfloat16"
    )
    # with a folder for unfinished rows, what is committed already is not explained again
    runner = Runner(compiled, world=World.alone(), run=run, row_files=UnfinishedRows(path / "rows"))
    runner.run(2, 0)
    runner.close()
    return run.explanations()


@pytest.mark.parametrize("path", [TRAINED, EXPLAINED], ids=lambda path: path.name)
def test_they_are_whole(path: Path) -> None:
    assert verify(path, deep=True) == []
    assert {one.manifest.schema for one in open_explanations(path)} == {"1.0"}


def test_facts_that_their_options_held_are_found() -> None:
    explanations = {one.manifest.method: one for one in open_explanations(EXPLAINED)}
    for explanation in explanations.values():
        manifest = explanation.manifest
        assert manifest.precision == "bfloat16"
        assert manifest.precision_error is not None
        assert 0 < manifest.precision_error < 0.1
        assert not {"precision", "precision_error"} & manifest.options.keys()
        assert manifest.is_signed is True
    # The hidden layer has as many units as the table has features.
    assert explanations["layer_conductance"].sample_shape == (len(FEATURES),)
    assert explanations["layer_conductance"].feature_names == ()
    assert explanations["integrated_gradients"].feature_names == FEATURES


def test_their_table_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = said_by("show", TRAINED, monkeypatch=monkeypatch, capsys=capsys)
    lines = [line.split()[:2] for line in said.splitlines()]
    for epoch in ("0", "1"):
        assert [epoch, "integrated_gradients"] in lines
        assert [epoch, "grad_cam"] in lines


@pytest.mark.parametrize(("path", "epoch"), [(TRAINED, 1), (EXPLAINED, 2)])
def test_their_pictures_are_drawn(
    path: Path,
    epoch: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = (path, "--sample", 3, "--epoch", epoch, "--png", tmp_path / "out.png")
    said_by("show", *arguments, monkeypatch=monkeypatch, capsys=capsys)
    with Image.open(tmp_path / "out.png") as image:
        assert min(image.size) > 100
        assert len(np.unique(np.asarray(image.convert("L")))) > 10


@pytest.mark.parametrize(("path", "epoch"), [(TRAINED, 1), (EXPLAINED, 2)])
def test_what_they_explain_is_computed_again_alike(path: Path, epoch: int) -> None:
    run = open_explanations(path)
    model, probe = read_model(MODELS[path], {}), run.probe()
    assert probe is not None
    for method in run.methods(epoch):
        compared = recompute(model, run.explanation(epoch, method), probe, [0, 5])
        assert all(one.matches for one in compared), method


def test_what_is_committed_is_not_explained_again(tmp_path: Path) -> None:
    path = Path(shutil.copytree(EXPLAINED, tmp_path / "run"))
    before = {one.path: one.manifest.created for one in open_explanations(path)}
    versions = next(iter(open_explanations(path))).manifest.versions
    again = explain_again(path)
    # Numbers may be others where other versions compute them, and are then committed anew.
    if provenance.versions().items() <= versions.items():
        assert {one.path: one.manifest.created for one in again} == before
    assert verify(path, deep=True) == []
    assert again.explanation(2, "integrated_gradients").feature_names == FEATURES


@pytest.mark.launched
def test_training_goes_on_with_them(tmp_path: Path) -> None:
    path = Path(shutil.copytree(TRAINED, tmp_path / "run"))
    program = (str(BIN / "hvd-xai"), "train", str(BEFORE / "small_digits.py"), "--epochs", "3")
    ended = launch("mpirun", 2, *program, "--output", str(path), "--resume")
    assert ended.code == 0, ended.output[-3000:]
    run = open_explanations(path)
    assert run.epochs_by_method == {"grad_cam": [0, 1, 2], "integrated_gradients": [0, 1, 2]}
    assert [run.explanation(epoch, "grad_cam").manifest.schema for epoch in (1, 2)] == [
        "1.0",
        "1.1",
    ]
    np.testing.assert_array_equal(
        run.stack("grad_cam").sample_ids, open_explanations(TRAINED).stack("grad_cam").sample_ids
    )
    assert verify(path, deep=True) == []
