from pathlib import Path

import numpy as np
import pytest

from hvd_xai.checkpoint.integrity import (
    CommittedArray,
    find_changes,
    find_damage,
    read_manifest,
    read_record,
)
from hvd_xai.errors import CheckpointError
from tests.checkpoint.small import make_attributions, make_rows, write


def committed(folder: Path) -> Path:
    return Path(str(write(folder, make_rows(make_attributions(4, (3,)))).path))


def test_a_whole_checkpoint_has_neither_damage_nor_changes(tmp_path: Path) -> None:
    path = committed(tmp_path)
    files = read_manifest(path).files
    assert find_damage(path, files) == find_changes(path, files) == []


def test_a_missing_file_and_one_of_another_size_are_damage(tmp_path: Path) -> None:
    path = committed(tmp_path)
    (path / "score" / "c" / "0").unlink()
    with (path / "target" / "c" / "0").open("ab") as file:
        file.write(b"more")
    damage = [str(problem) for problem in find_damage(path, read_manifest(path).files)]
    assert len(damage) == 2
    assert "score/c/0 is missing" in damage[0]
    assert "target/c/0 has" in damage[1]


def test_a_changed_bit_is_no_damage_but_a_change(tmp_path: Path) -> None:
    path = committed(tmp_path)
    shard = path / "score" / "c" / "0"
    content = bytearray(shard.read_bytes())
    content[0] ^= 1
    shard.write_bytes(content)
    files = read_manifest(path).files
    assert find_damage(path, files) == []
    (problem,) = find_changes(path, files)
    assert problem.path == shard


def test_an_array_is_read_only_from_files_that_the_manifest_names(tmp_path: Path) -> None:
    path = committed(tmp_path)
    files = {file.key: file for file in read_manifest(path).files}
    array = CommittedArray(path, "score", files, (4,), np.dtype("<f4"))
    np.testing.assert_array_equal(array.read(1, 3), np.sqrt(np.arange(1, 3, dtype=np.float32)))
    del files["score/c/0"]
    with pytest.raises(CheckpointError, match="names no file 'score/c/0'"):
        array.read()


def test_a_record_that_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(CheckpointError, match="is no plain file"):
        read_record(tmp_path / "manifest.json")
    with pytest.raises(CheckpointError, match=r"has no run\.json"):
        read_record(tmp_path / "run.json")
