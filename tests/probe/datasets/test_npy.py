"""`.npy` files that NumPy wrote."""

from pathlib import Path

import numpy as np

from tests.probe.small import INPUTS, TARGETS, check_read_as_mapped, read


def test_npy_with_another_of_targets_is_the_data_set(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", INPUTS)
    np.save(tmp_path / "y.npy", TARGETS)
    check_read_as_mapped(
        read(tmp_path / "x.npy", tmp_path / "unpacked", targets=tmp_path / "y.npy")
    )


def test_npy_is_mapped_where_it_lies(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", INPUTS)
    read(tmp_path / "x.npy", tmp_path / "unpacked", needs_targets=False)
    assert (tmp_path / "unpacked" / "inputs.npy").resolve() == (tmp_path / "x.npy").resolve()
