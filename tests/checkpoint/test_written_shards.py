"""Zarr shards that ranks write into a checkpoint that another commits."""

from pathlib import Path

import numpy as np
import pytest

from hvd_xai.checkpoint.writer import Writer
from hvd_xai.checkpoint.written_shards import write_shards
from hvd_xai.errors import CheckpointError
from tests.checkpoint.small import make_attributions, make_header, make_rows


def test_zarr_shards_of_other_ranks_are_looked_at_before_the_commit(tmp_path: Path) -> None:
    rows = make_rows(make_attributions(40, (3, 2)))
    writer = Writer(tmp_path, make_header(40, (3, 2)), rows.dtype, elsewhere=["attributions"])
    writer.append(
        rows[[name for name in rows.dtype.names or () if name != "attributions"]].astype(
            writer.appended
        )
    )
    written = write_shards(writer.staged, "attributions", (40, 3, 2), 0, [rows["attributions"]])
    shard = writer.staged / written.files[0].key
    shard.write_bytes(shard.read_bytes() + b"more")
    with pytest.raises(
        CheckpointError, match=r"attributions/c/0/0/0 has .* though this job wrote it"
    ):
        writer.commit(written=[written])
    assert list(tmp_path.rglob("manifest.json")) == []


def test_zarr_shards_are_not_written_where_the_staging_folder_is_gone(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot write .* The folder is gone"):
        write_shards(tmp_path / "gone", "attributions", (4, 2), 0, [np.zeros((4, 2), "<f2")])
    assert list(tmp_path.iterdir()) == []
