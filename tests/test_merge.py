import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from hvd_xai.errors import CheckpointError
from hvd_xai.merge import Spool

DTYPE = np.dtype([("sample_id", "<i8"), ("values", "<f4", (5,))])


def _rows(first: int, stop: int) -> np.ndarray:
    rows = np.zeros(stop - first, DTYPE)
    rows["sample_id"] = np.arange(first, stop)
    rows["values"] = rows["sample_id"][:, None] * 0.5
    return rows


@contextmanager
def _full_after(n_bytes: int) -> Iterator[None]:
    """Lets no file grow further."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("kept", [False, True])
def test_a_full_disk_is_met_when_rows_are_added_and_not_again_when_the_spool_is_closed(tmp_path: Path, kept: bool) -> None:
    spool = Spool(DTYPE, memory_bytes=1, path=tmp_path / "rows" if kept else None)
    spool.append(_rows(0, 40))
    with _full_after(1000):
        with pytest.raises(CheckpointError, match=r"cannot write .*File too large"):
            spool.append(_rows(40, 60))
        assert len(spool) == 40
        spool.close()


def test_kept_rows_are_those_of_which_every_field_is_there(tmp_path: Path) -> None:
    with Spool(DTYPE, path=tmp_path / "rows") as spool:
        spool.append(_rows(0, 7))
    with (tmp_path / "rows" / "values").open("r+b") as file:
        file.truncate(4 * DTYPE["values"].itemsize + 3)
    with Spool(DTYPE, path=tmp_path / "rows") as spool:
        assert len(spool) == 4
        spool.append(_rows(4, 9))
        spool.truncate(8)
        np.testing.assert_array_equal(spool.read(0, 8), _rows(0, 8))
    with Spool(DTYPE, path=tmp_path / "rows") as spool:
        np.testing.assert_array_equal(spool.column("values", 0, len(spool)), _rows(0, 8)["values"])
