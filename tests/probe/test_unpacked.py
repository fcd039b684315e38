"""Data sets that lie unpacked in a folder."""

from pathlib import Path

import numpy as np
import pytest

from hvd_xai.probe.unpacked import GrowingArray, open_unpacked, write_names
from tests.probe.small import INPUTS, TARGETS, N


def test_a_file_that_grew_by_many_digits_is_a_plain_npy(tmp_path: Path) -> None:
    with GrowingArray(tmp_path / "x.npy") as file:
        for start in range(0, 1200, 7):
            file.append(np.arange(start, min(start + 7, 1200)))
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), np.arange(1200))


def test_rows_of_another_shape_or_dtype_are_refused(tmp_path: Path) -> None:
    with GrowingArray(tmp_path / "x.npy") as file:
        file.append(np.zeros((2, 3)))
        with pytest.raises(ValueError, match="all examples must have one shape and dtype"):
            file.append(np.zeros((2, 4)))
        with pytest.raises(ValueError, match="all examples must have one shape and dtype"):
            file.append(np.zeros((2, 3), np.float32))
    assert np.load(tmp_path / "x.npy").shape == (2, 3)


def test_names_are_a_list_of_strings(tmp_path: Path) -> None:
    np.save(tmp_path / "inputs.npy", INPUTS)
    np.save(tmp_path / "targets.npy", TARGETS)
    write_names(tmp_path, "class_names", ["ant", "bee", "schön"])
    assert open_unpacked(tmp_path).class_names == ("ant", "bee", "schön")
    with pytest.raises(ValueError, match=r"'class_names' .* list of strings; got 'ant'"):
        write_names(tmp_path, "class_names", "'ant'")


def test_sample_ids_that_do_not_ascend_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "inputs.npy", INPUTS)
    np.save(tmp_path / "sample_ids.npy", np.arange(N)[::-1])
    with pytest.raises(ValueError, match="must ascend"):
        open_unpacked(tmp_path)


def test_inputs_without_rows_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "inputs.npy", np.float32(1))
    np.save(tmp_path / "targets.npy", TARGETS)
    with pytest.raises(ValueError, match="'inputs' must have one row an example"):
        open_unpacked(tmp_path)
