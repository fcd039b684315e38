"""Pictures of runs."""

from pathlib import Path

import numpy as np
import pytest

from hvd_xai.checkpoint.reader import open_explanations
from hvd_xai.views.run_picture import MAX_EPOCHS, draw_change, draw_run, spread_epochs
from tests.runs_under_test import make_probe, make_run


def test_one_sample_is_a_strip_and_many_are_a_sheet(tmp_path: Path) -> None:
    run = open_explanations(make_run(tmp_path / "run", make_probe(), epochs=[0, 1]))
    newest = [run.explanation(1, method) for method in run.methods(1)]
    one = draw_run(newest, np.array([3]), run.probe(), "run")
    many = draw_run(newest, np.arange(12), run.probe(), "run")
    assert many.shape[1] > one.shape[1] > 3 * 200
    assert draw_run(list(run), np.array([3]), run.probe(), "run").shape[0] > one.shape[0]
    with pytest.raises(ValueError, match="2 samples of 2 epochs do not go into one picture"):
        draw_run(list(run), np.array([3, 4]), run.probe(), "run")


def test_of_many_epochs_the_first_and_the_last_are_among_those_drawn(tmp_path: Path) -> None:
    run = open_explanations(make_run(tmp_path / "run", make_probe(2), epochs=range(15), cam=False))
    epochs = spread_epochs(list(run))
    assert (len(epochs), epochs[0], epochs[-1]) == (MAX_EPOCHS, 0, 14)


def test_a_change_is_drawn_without_a_probe_too(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", make_probe(), epochs=[0, 1], with_probe=False)
    run = open_explanations(path)
    pair = [run.explanation(epoch, "grad_cam") for epoch in (0, 1)]
    assert draw_change(pair[0], pair[1], np.array([3]), run.probe()).shape[2] == 3
