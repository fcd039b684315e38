"""TensorStore stands in for zarr under Python 3.10, and reads the same as zarr."""

from pathlib import Path

import numpy as np
import pytest

from hvd_xai.errors import CheckpointError
from hvd_xai.storage import arrays, foreign_arrays
from hvd_xai.storage.arrays import ArrayWriter, create_array
from hvd_xai.storage.foreign_arrays import open_array

pytest.importorskip("tensorstore")


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 128)
    monkeypatch.setattr(arrays, "SHARD_BYTES", 512)


def write(directory: Path, values: np.ndarray) -> None:
    """Writes an array, which the library reads as one of another program."""
    create_array(directory, values.shape, values.dtype, ("sample", "feature"))
    writer = ArrayWriter(directory, values.shape, values.dtype)
    for start in range(0, len(values), 5):
        writer.append(values[start : start + 5])
    writer.close()


@pytest.mark.parametrize("n_rows", [1, 15, 16, 33])
def test_tensorstore_reads_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_rows: int
) -> None:
    monkeypatch.setattr(foreign_arrays, "zarr", None)
    values = np.random.default_rng(n_rows).normal(size=(n_rows, 8)).astype("<f4")
    values[0] = np.nan  # the fill value
    write(tmp_path / "x", values)
    array = open_array(tmp_path / "x")
    assert (array.shape, array.dtype) == (values.shape, values.dtype)
    for start, stop in ((0, n_rows), (n_rows // 2, n_rows), (n_rows - 1, n_rows)):
        np.testing.assert_array_equal(array[start:stop], values[start:stop])


def test_damage_is_found_by_tensorstore_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign_arrays, "zarr", None)
    values = np.random.default_rng(0).normal(size=(10, 8)).astype("<f4")
    write(tmp_path / "x", values)
    path = tmp_path / "x" / "c" / "0" / "0"
    content = path.read_bytes()
    for position in range(0, len(content), 7):
        path.write_bytes(
            content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :]
        )
        with pytest.raises(ValueError, match="x/c/0/0"):
            open_array(tmp_path / "x")[0:10]
    (tmp_path / "x" / "zarr.json").write_text("{}")
    with pytest.raises(CheckpointError, match="cannot be opened"):
        open_array(tmp_path / "x")
