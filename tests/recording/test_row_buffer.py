import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from hvd_xai.errors import CheckpointError
from hvd_xai.recording.row_buffer import RowBuffer

DTYPE = np.dtype([("sample_id", "<i8"), ("values", "<f4", (5,))])


def _rows(first: int, stop: int) -> np.ndarray:
    rows = np.zeros(stop - first, DTYPE)
    rows["sample_id"] = np.arange(first, stop)
    rows["values"] = rows["sample_id"][:, None] * 0.5
    return rows


@contextmanager
def _full_after(n_bytes: int) -> Iterator[None]:
    """Makes every file fail to grow beyond a size."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("kept", [False, True])
def test_a_full_disk_is_met_when_rows_are_added_and_not_again_when_the_spool_is_closed(
    tmp_path: Path, kept: bool
) -> None:
    buffer = RowBuffer(DTYPE, memory_bytes=1, path=tmp_path / "rows" if kept else None)
    buffer.append(_rows(0, 40))
    with _full_after(1000):
        with pytest.raises(CheckpointError, match=r"cannot write .*File too large"):
            buffer.append(_rows(40, 60))
        assert len(buffer) == 40
        buffer.close()


def test_kept_rows_are_those_of_which_every_field_is_there(tmp_path: Path) -> None:
    with RowBuffer(DTYPE, path=tmp_path / "rows") as buffer:
        buffer.append(_rows(0, 7))
    with (tmp_path / "rows" / "values").open("r+b") as file:
        file.truncate(4 * DTYPE["values"].itemsize + 3)
    with RowBuffer(DTYPE, path=tmp_path / "rows") as buffer:
        assert len(buffer) == 4
        buffer.append(_rows(4, 9))
        buffer.truncate(8)
        np.testing.assert_array_equal(buffer.read(0, 8), _rows(0, 8))
    with RowBuffer(DTYPE, path=tmp_path / "rows") as buffer:
        np.testing.assert_array_equal(
            buffer.column("values", 0, len(buffer)), _rows(0, 8)["values"]
        )


@pytest.mark.parametrize("name", [*(DTYPE.names or ()), ".hashes"])
def test_every_byte_of_a_kept_row_is_under_its_hash(tmp_path: Path, name: str) -> None:
    with RowBuffer(DTYPE, path=tmp_path / "rows") as buffer:
        buffer.append(_rows(1, 8))
        np.testing.assert_array_equal(buffer.read_intact(0, 7), _rows(1, 8))
    file = tmp_path / "rows" / name
    content = bytearray(file.read_bytes())
    content[4 * len(content) // 7] ^= 1  # of the fifth row
    file.write_bytes(content)
    with RowBuffer(DTYPE, path=tmp_path / "rows") as buffer:
        np.testing.assert_array_equal(buffer.read_intact(0, 7), _rows(1, 5))
        assert len(buffer.read_intact(4, 7)) == 0
        np.testing.assert_array_equal(buffer.read_intact(5, 7), _rows(6, 8))


def test_rows_without_hashes_of_an_earlier_version_are_not_kept(tmp_path: Path) -> None:
    with RowBuffer(DTYPE, path=tmp_path / "rows") as buffer:
        buffer.append(_rows(0, 7))
    (tmp_path / "rows" / ".hashes").unlink()
    with RowBuffer(DTYPE, path=tmp_path / "rows") as buffer:
        assert len(buffer) == 0
