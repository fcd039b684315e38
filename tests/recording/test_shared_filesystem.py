from pathlib import Path

import pytest

from hvd_xai.errors import CheckpointError
from hvd_xai.ranks.world import World
from hvd_xai.recording.shared_filesystem import find_ranks_apart


def test_the_root_is_never_apart_from_itself_and_leaves_no_trace(tmp_path: Path) -> None:
    assert find_ranks_apart(World.alone(), tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_the_root_cannot_write_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot write .*missing: No such file"):
        find_ranks_apart(World.alone(), tmp_path / "missing")
