"""Attributions that are not finite are counted, and said with their likely cause."""

import logging
from pathlib import Path

import keras
import numpy as np
import pytest

from hvd_xai.attributions.deep_lift import deep_lift
from hvd_xai.checkpoint.rows import encode, row_dtype
from hvd_xai.explain.not_finite import NotFinite
from hvd_xai.explain.once import explain
from hvd_xai.probe.probe import Probe
from hvd_xai.ranks.world import World


def test_samples_are_counted_by_what_is_stored_of_them() -> None:
    attributions = np.zeros((9, 2, 2), np.float32)
    attributions[2, 0, 1], attributions[7, 1, 1] = np.nan, -np.inf
    # the largest number that float32 has is finite, also as it is stored
    attributions[4] = np.finfo(np.float32).max
    columns: dict[str, np.ndarray] = {
        "sample_id": np.arange(10, 19),
        "target": np.zeros(9, np.int32),
        "prediction": np.zeros(9, np.int32),
        "score": np.where(np.arange(9) == 7, np.nan, 1.0).astype(np.float32),
    }
    rows = encode(row_dtype((2, 2)), attributions, rank=0, channels_first=False, **columns)
    tally = NotFinite()
    tally.add(rows[:0])
    tally.add(rows)
    assert (tally.n_samples, tally.n_scores, tally.sample_ids) == (2, 1, [12, 17])
    assert NotFinite.of_all([NotFinite().numbers(), tally.numbers()]) == tally


def test_a_path_from_zero_through_a_norm_is_warned_of_with_ids_and_cause(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.UnitNormalization(), keras.layers.Dense(2)]
    )
    inputs = np.random.default_rng(3).uniform(0.5, 2, size=(3, 4)).astype(np.float32)
    probe = Probe(inputs, np.array([0, 1, 1]), np.array([5, 7, 9]))
    with caplog.at_level(logging.WARNING, logger="hvd_xai"):
        explain(model, probe, ["saliency", deep_lift], world=World.alone(), run=tmp_path)
    (warning,) = [one.getMessage() for one in caplog.records if "infinite" in one.getMessage()]
    assert warning.startswith(
        "deep_lift at epoch 0: 3 of 3 samples have attributions that are NaN or infinite, with"
        " sample ids 5, 7, 9. Their scores are finite, so it is a slope that is not"
    )
    assert "Bind another baseline= to the method, such as baseline='mean'." in warning


def test_weights_that_have_diverged_are_named_as_the_cause(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.set_weights([np.full((4, 2), np.nan), np.zeros(2)])
    probe = Probe(np.ones((8, 4), np.float32), np.zeros(8, np.int64))
    with caplog.at_level(logging.WARNING, logger="hvd_xai"):
        explain(model, probe, ["saliency"], world=World.alone(), run=tmp_path)
    (warning,) = [one.getMessage() for one in caplog.records if "infinite" in one.getMessage()]
    assert "8 of 8 samples" in warning
    assert "with sample ids 0, 1, 2, 3, 4, ..." in warning
    assert (
        "the model itself gives such values, as it does when its weights have diverged" in warning
    )
