import uuid
from pathlib import Path

import numpy as np
import pytest

from hvd_xai.errors import CheckpointError
from hvd_xai.storage.foreign_arrays import open_array
from hvd_xai.storage.paths import place


def test_an_array_of_others_is_read_on_this_disk_only(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    fsspec = pytest.importorskip("fsspec")
    zarr.create_array(tmp_path / "x", data=np.arange(12.0).reshape(6, 2), chunks=(2, 2))
    assert open_array(tmp_path / "x")[1:3].tolist() == [[2.0, 3.0], [4.0, 5.0]]
    filesystem, path = fsspec.core.url_to_fs(url := f"memory://{uuid.uuid4()}/x")
    filesystem.put(str(tmp_path / "x"), path, recursive=True)
    with pytest.raises(CheckpointError, match=r"of another program.*copy it there"):
        open_array(place(url))


@pytest.mark.parametrize("content", [b"", b"{}", b"nonsense"])
def test_what_is_no_array_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "zarr.json").write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be opened as a Zarr array"):
        open_array(tmp_path)
