"""Rows of a committed explanation are read field by field, and checked by their hashes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hvd_xai.checkpoint.integrity import read_manifest
from hvd_xai.checkpoint.stored_rows import StoredRows
from hvd_xai.errors import CheckpointError
from tests.checkpoint.small import make_attributions, make_rows, write
from tests.runs_under_test import make_probe, make_run


@pytest.fixture
def stored(tmp_path: Path) -> StoredRows:
    make_run(tmp_path, make_probe(), epochs=[0])
    path = tmp_path / "explanations" / "epochs" / "000000" / "integrated_gradients"
    return StoredRows(path, read_manifest(path))


def test_the_fields_asked_for_are_read(stored: StoredRows) -> None:
    rows = stored.read(["score", "sample_id"], 2, 5)
    assert rows.dtype.names == ("score", "sample_id")
    np.testing.assert_array_equal(rows["sample_id"], stored.array("sample_id").read(2, 5))


def test_rows_count_as_those_of_a_slice(stored: StoredRows) -> None:
    last = stored.read(["sample_id"], -2, None)
    np.testing.assert_array_equal(last["sample_id"], stored.array("sample_id").read()[-2:])
    assert len(stored.read(["sample_id"], 5, 3)) == 0


def test_rows_that_were_changed_are_counted_and_named(stored: StoredRows) -> None:
    rows = stored.read(stored.dtype.names or (), 3, 6)
    stored.check(rows, 3)
    rows["attributions"][1:] = 0
    with pytest.raises(CheckpointError, match=r"2 rows that do not fit .* the first 4; "):
        stored.check(rows, 3)


def test_shard_the_manifest_does_not_name_is_not_read(tmp_path: Path) -> None:
    explanation = write(tmp_path, make_rows(make_attributions(4, ())))
    files = tuple(file for file in explanation.manifest.files if file.key != "score/c/0")
    stored = StoredRows(explanation.path, replace(explanation.manifest, files=files))
    with pytest.raises(CheckpointError, match="names no file 'score/c/0'"):
        stored.read(["score"], 0, None)
