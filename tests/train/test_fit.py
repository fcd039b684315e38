"""Training runs through on one rank; tests/launched/in_ranks trains on several."""

from functools import partial
from pathlib import Path

import keras
import pytest

import hvd_xai.keras as hvd
from hvd_xai import Explain, Training, World, open_explanations
from hvd_xai.attributions.integrated_gradients import integrated_gradients
from hvd_xai.lookup.recipes import Recipe
from hvd_xai.train.fit import MODELS, estimate, train
from hvd_xai.train.settings import Settings
from tests.train.tiny import RECIPE, Shown


@pytest.fixture(scope="module", autouse=True)
def world() -> World:
    return hvd.init()


def _build(training: Training) -> list[keras.callbacks.Callback]:
    methods = [partial(integrated_gradients, n_steps=2)]
    return [Explain(training.probe, methods, world=training.world, run=training.run)]


EXPLAINS = Recipe("explains", "explains.py", {"build": _build})


def test_every_epoch_is_explained_and_has_a_line(world: World, tmp_path: Path) -> None:
    run, shown = tmp_path / "run", Shown()
    train(RECIPE, [EXPLAINS], run, world=world, settings=Settings(epochs=2), progress=shown)
    explanations = open_explanations(run)
    assert explanations.epochs == [0, 1]
    assert explanations.config["recipe"] == "tiny.py"
    assert [path.name for path in (run / MODELS).iterdir()] == ["epoch-000001.keras"]
    lines = [line for line in shown.lines if "attributing" in line]
    assert [line.split("  ")[0] for line in lines] == ["epoch 0", "epoch 1"]


def test_a_run_that_nobody_explains_is_a_run(world: World, tmp_path: Path) -> None:
    train(RECIPE, [], tmp_path / "run", world=world, settings=Settings(epochs=1))
    assert open_explanations(tmp_path / "run").epochs == []


def test_an_estimate_writes_nothing(world: World, tmp_path: Path) -> None:
    [estimated] = estimate(RECIPE, [EXPLAINS], tmp_path / "run", world=world)
    assert (estimated.method, estimated.n_rows) == ("integrated_gradients", 4)
    assert not (tmp_path / "run").exists()
