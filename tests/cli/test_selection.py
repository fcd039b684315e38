"""Explanations and sample ids are found as people ask for them."""

import numpy as np
import pytest

from hvd_xai.checkpoint.reader import Explanations, open_explanations
from hvd_xai.cli.selection import parse_sample_ids, select_epochs, select_explanations
from hvd_xai.errors import CheckpointError
from tests.runs_under_test import make_probe, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Explanations:
    return open_explanations(make_run(tmp_path_factory.mktemp("run"), make_probe(), [0, 1]))


def test_the_finest_explanation_of_an_epoch_comes_first(run: Explanations) -> None:
    chosen = select_explanations(run, "all", [])
    assert [(one.manifest.epoch, one.manifest.method) for one in chosen] == [
        (0, "integrated_gradients"),
        (0, "grad_cam"),
        (1, "integrated_gradients"),
        (1, "grad_cam"),
    ]
    assert len(select_explanations(run, "newest", ["grad_cam"])) == 1


def test_what_there_is_not_is_told_with_what_there_is(run: Explanations) -> None:
    with pytest.raises(ValueError, match="no epoch 7 of grad_cam in this run; there are: 0-1"):
        select_explanations(run, "7", ["grad_cam"])
    with pytest.raises(ValueError, match="no method 'lime' in this run; there are: grad_cam, "):
        select_explanations(run, "all", ["lime"])
    with pytest.raises(CheckpointError, match="no explanation of epoch 7; there are the epochs"):
        select_epochs(run, [7], [])
    with pytest.raises(CheckpointError, match="no explanation by 'lime'; methods with one: grad"):
        select_epochs(run, [], ["lime"])


def test_epochs_and_methods_choose_together(run: Explanations) -> None:
    assert select_epochs(run, [1], ["grad_cam"]) == {"grad_cam": [1]}
    assert set(select_epochs(run, [], [])) == {"grad_cam", "integrated_gradients"}


def test_sample_ids_are_read_as_people_write_them() -> None:
    stored = np.arange(100, 110)
    assert parse_sample_ids(["101-103, 109", "102"], stored).tolist() == [101, 102, 103, 109]
    with pytest.raises(ValueError, match="there is no sample 99 in this run; there are: 100-109"):
        parse_sample_ids(["99"], stored)
    with pytest.raises(ValueError, match="at most 500 samples"):
        parse_sample_ids(["0-99999999999"], stored)
