"""Laws of exported files of every format: whole or not there, and found by their ending."""

import resource
from pathlib import Path

import pytest

from hvd_xai.checkpoint import export as formats
from hvd_xai.checkpoint.exported import export, load_formats
from hvd_xai.checkpoint.reader import Explanations
from hvd_xai.errors import CheckpointError
from tests.checkpoint.small import stack_all

ATTRIBUTIONS = "explanations/epochs/000003/integrated_gradients/attributions/c/0/0/0"
SUFFIXES = sorted(load_formats())
pytestmark = pytest.mark.usefixtures("any_block")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_damaged_checkpoint_leaves_the_older_file(
    to_export: Explanations, tmp_path: Path, suffix: str
) -> None:
    (tmp_path / ATTRIBUTIONS).unlink()
    destination = tmp_path / f"out{suffix}"
    destination.write_text("older")
    with pytest.raises(CheckpointError, match="is missing"):
        export(stack_all(to_export), destination)
    assert destination.read_text() == "older"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["explanations", destination.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("limit", [100, 2_000])
def test_a_full_disk_is_one_error_and_leaves_nothing(
    to_export: Explanations, tmp_path: Path, suffix: str, limit: int
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(CheckpointError, match=f"cannot write .*out{suffix}: "):
            export(stack_all(to_export), tmp_path / f"out{suffix}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


def test_another_format_or_folder_is_refused(to_export: Explanations, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"one of .nc, .npz, .parquet; got 'out.csv'"):
        export(stack_all(to_export), tmp_path / "out.csv")
    with pytest.raises(ValueError, match="does not exist"):
        export(stack_all(to_export), tmp_path / "absent" / "out.npz")


def test_a_format_is_found_by_the_file_that_it_is(
    to_export: Explanations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "formats").mkdir()
    (tmp_path / "formats" / "names.py").write_text(
        "SUFFIX = '.names'\n\n\ndef write(stacks, destination, progress):\n"
        "    destination.write_text(' '.join(stack.method for stack in stacks))\n"
    )
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(tmp_path / "formats")])
    export(stack_all(to_export), tmp_path / "out.names")
    assert (tmp_path / "out.names").read_text() == "integrated_gradients occlusion"
