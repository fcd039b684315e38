import errno
from pathlib import Path

import pytest
import xxhash

from hvd_xai.errors import CheckpointError
from hvd_xai.storage import durable


@pytest.fixture(params=["renameat2", "fallback"])
def _either_rename(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test with renameat2 and as on systems without it."""
    if request.param == "fallback":
        monkeypatch.setattr(durable, "_renameat2", lambda *_: False)


def folder(path: Path, content: str) -> Path:
    path.mkdir()
    (path / "file").write_text(content)
    return path


@pytest.mark.usefixtures("_either_rename")
def test_rename_takes_a_free_name(tmp_path: Path) -> None:
    durable.rename_no_replace(folder(tmp_path / "a", "a"), tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.usefixtures("_either_rename")
@pytest.mark.parametrize("taken_by", ["folder", "file"])
def test_rename_replaces_nothing(tmp_path: Path, taken_by: str) -> None:
    destination = tmp_path / "b"
    if taken_by == "folder":
        folder(destination, "b")
    else:
        destination.write_text("b")
    with pytest.raises(FileExistsError):
        durable.rename_no_replace(folder(tmp_path / "a", "a"), destination)
    assert (tmp_path / "a" / "file").read_text() == "a"
    assert (destination / "file" if taken_by == "folder" else destination).read_text() == "b"


@pytest.mark.usefixtures("_either_rename")
def test_other_errors_of_rename_are_raised(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        durable.rename_no_replace(tmp_path / "absent", tmp_path / "b")


@pytest.mark.usefixtures("_either_rename")
def test_exchange_swaps_two_folders(tmp_path: Path) -> None:
    durable.exchange(folder(tmp_path / "a", "a"), folder(tmp_path / "b", "b"))
    assert (tmp_path / "a" / "file").read_text() == "b"
    assert (tmp_path / "b" / "file").read_text() == "a"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("size", [0, 1, 2**20, 2**20 + 1])
def test_digest_of_a_file_is_the_xxh3_128_of_its_bytes(tmp_path: Path, size: int) -> None:
    content = bytes(index % 251 for index in range(size))
    (tmp_path / "file").write_bytes(content)
    assert durable.digest_file(tmp_path / "file") == (size, xxhash.xxh3_128_hexdigest(content))


def test_replaced_file_leaves_no_other_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    durable.replace_durably(tmp_path / "file", b"new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "new")]


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permissions"),
        (errno.EIO, "untouched"),
    ],
)
def test_write_errors_say_what_to_do(code: int, advice: str) -> None:
    with (
        pytest.raises(CheckpointError, match=rf"cannot write runs/demo: .*{advice}"),
        durable.writing(Path("runs/demo")),
    ):
        raise OSError(code, "as the system says it")


@pytest.mark.usefixtures("_either_rename")
def test_a_folder_stays_where_the_one_to_exchange_it_for_is_gone(tmp_path: Path) -> None:
    folder(tmp_path / "b", "b")
    with pytest.raises(FileNotFoundError):
        durable.exchange(tmp_path / "gone", tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
