"""One rank decides what a run goes on from; tests/launched resumes on several."""

import logging
from pathlib import Path

import keras
import numpy as np
import pytest

from hvd_xai import RunDirectory, World
from hvd_xai.keras.model_files import Trained, publish_model, seed_states, stage_model
from hvd_xai.protocols import Json
from hvd_xai.train.resume import compare_configs, find_trained, restore
from tests.train.tiny import build, load

CONFIG: dict[str, Json] = {"recipe": "a/tiny.py", "callbacks": [], "batch_size": 4, "seed": 0}


def _trained_model(folder: Path, size: int = 1) -> "tuple[keras.Model, Trained]":
    """Returns a model of one epoch, saved as a run of so many ranks saves it."""
    model = build()
    model.fit(*load().train, batch_size=4, epochs=1, verbose=0)
    seeds = [[[first + rank, *rest] for first, *rest in seed_states(model)] for rank in range(size)]
    trained = Trained(0, 6, size, 0.01, seeds)
    stage_model(model, folder, trained)
    publish_model(folder, 0)
    return model, trained


def test_a_recipe_is_known_by_its_files_name(tmp_path: Path) -> None:
    compare_configs(CONFIG, {**CONFIG, "recipe": "b/tiny.py"}, tmp_path)
    with pytest.raises(ValueError, match=r"it cannot be resumed with 'a/other\.py'"):
        compare_configs(CONFIG, {**CONFIG, "recipe": "a/other.py"}, tmp_path)


def test_other_settings_are_named_and_more_epochs_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    compare_configs({**CONFIG, "epochs": 3}, {**CONFIG, "epochs": 5}, tmp_path)
    assert not caplog.records
    compare_configs(CONFIG, {**CONFIG, "batch_size": 8}, tmp_path)
    assert "was started with batch_size 4 and is resumed with 8" in caplog.text


def test_a_run_without_a_model_starts_at_the_first_epoch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = RunDirectory(tmp_path / "run", mode="resume")
    assert find_trained(run, tmp_path / "run/models", CONFIG, World.alone()) is None
    assert "no model yet to resume from" in caplog.text


def test_a_run_goes_on_from_its_last_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, trained = _trained_model(tmp_path / "models", size=2)
    run = RunDirectory(tmp_path, mode="resume")
    with caplog.at_level(logging.WARNING):
        assert find_trained(run, tmp_path / "models", CONFIG, World.alone()) == trained
    assert "was trained by 2 ranks and goes on with 1" in caplog.text


@pytest.mark.parametrize(("size", "learning_rate"), [(1, 0.01), (2, 0.005)])
def test_a_model_is_restored_and_its_learning_rate_fits_the_ranks(
    size: int, learning_rate: float, tmp_path: Path
) -> None:
    before, trained = _trained_model(tmp_path, size)
    model = build()
    restore(model, tmp_path, trained, World.alone())
    for expected, found in zip(before.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert int(model.optimizer.iterations) == 6
    assert float(model.optimizer.learning_rate) == pytest.approx(learning_rate)
    assert seed_states(model) == trained.seeds[0]
