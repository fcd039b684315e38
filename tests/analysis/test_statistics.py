"""Summarises explanations, and measures their drift, from checkpoints without TensorFlow."""

import json
from pathlib import Path

import numpy as np
import pytest

from hvd_xai import open_explanations
from hvd_xai.analysis.statistics import compute_statistics, signs
from hvd_xai.checkpoint.json_record import seal
from hvd_xai.checkpoint.run_directory import open_run
from tests.checkpoint.small import make_attributions, make_rows, write

MANIFEST = "explanations/epochs/000001/mine/manifest.json"
VALUES = make_attributions(4, (3, 3))


def make_run(path: Path, *epochs: np.ndarray) -> Path:
    explanations_dir = open_run(path, config={})
    for epoch, attributions in enumerate(epochs):
        write(explanations_dir, make_rows(attributions), epoch=epoch, method="mine")
    return path


@pytest.mark.parametrize("epochs", [(VALUES,), (np.abs(VALUES), VALUES), (VALUES, np.abs(VALUES))])
def test_a_method_is_signed_if_one_of_the_epochs_shown_has_negative_values(
    tmp_path: Path, epochs: tuple[np.ndarray, ...]
) -> None:
    assert signs(open_explanations(make_run(tmp_path, *epochs))) == {"mine": True}


def test_a_method_that_is_nowhere_negative_has_no_sign(tmp_path: Path) -> None:
    with_gaps = np.where(VALUES < 0, np.nan, VALUES)
    run = make_run(tmp_path, np.abs(VALUES), with_gaps)
    assert signs(open_explanations(run)) == {"mine": False}


def test_what_the_method_says_of_its_sign_comes_first(tmp_path: Path) -> None:
    explanations_dir = open_run(tmp_path, config={})
    write(explanations_dir, make_rows(np.abs(VALUES)), method="positive_now", signed=True)
    write(explanations_dir, make_rows(VALUES), method="rounded_below_zero", signed=False)
    assert signs(open_explanations(tmp_path)) == {
        "positive_now": True,
        "rounded_below_zero": False,
    }


def test_nothing_is_said_of_a_sign_where_an_epoch_was_not_counted(tmp_path: Path) -> None:
    run = make_run(tmp_path, np.abs(VALUES), np.abs(VALUES))
    manifest = run / MANIFEST
    record = json.loads(manifest.read_bytes())
    manifest.write_bytes(
        seal({key: value for key, value in record.items() if key not in ("digest", "negative")})
    )
    assert signs(open_explanations(run)) == {"mine": None}


def test_an_epoch_that_cannot_be_read_does_not_keep_others_from_being_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(tmp_path, np.abs(VALUES), np.abs(VALUES), VALUES)
    (run / MANIFEST).write_text("{")
    explanations = open_explanations(run)
    assert compute_statistics(explanations, explanations.explanation(2, "mine")).drift is None
    assert "mine at epoch 2 is not compared" in caplog.text
