from pathlib import Path

import numpy as np
import pytest

from hvd_xai.checkpoint.probe_reader import ProbeReader
from hvd_xai.checkpoint.run_directory import RunDirectory
from hvd_xai.errors import CheckpointError
from hvd_xai.probe.probe import Probe


def stored(folder: Path) -> Path:
    inputs = np.arange(24, dtype=np.float32).reshape(6, 4)
    return RunDirectory(folder).open(Probe(inputs, np.arange(6))) / "probe"


def test_rows_are_read_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    reader = ProbeReader(stored(tmp_path))
    np.testing.assert_array_equal(reader.inputs([4, 1])[:, 0], [16, 4])
    np.testing.assert_array_equal(reader.column("targets"), np.arange(6))
    assert (reader.input_shape, reader.feature_names, reader.vocabulary) == ((4,), (), ())


def test_a_probe_without_its_inputs_is_damaged(tmp_path: Path) -> None:
    path = stored(tmp_path)
    next((path / "inputs" / "c").rglob("0")).rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="is missing"):
        ProbeReader(path).inputs([0])
