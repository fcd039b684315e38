"""Laws of data sets of every format: targets, refusals, and formats that are found."""

import resource
from pathlib import Path

import numpy as np
import pytest

from hvd_xai.errors import CheckpointError
from hvd_xai.probe import datasets
from hvd_xai.probe.unpack import unpack
from hvd_xai.probe.unpacked import open_unpacked
from tests.probe.small import INPUTS, TARGETS, N, check_read_as_mapped, read


def test_a_format_is_found_by_the_file_that_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "formats").mkdir()
    (tmp_path / "formats" / "numbers.py").write_text(
        "import numpy as np\n"
        "from hvd_xai.probe.dataset_format import Match\n"
        "ACCEPTS = '.numbers'\n\n\n"
        "def match(source):\n"
        "    return Match.CERTAIN if source.suffix == '.numbers' else Match.NO\n\n\n"
        "def unpack(source, folder, hints):\n"
        "    np.save(folder / 'inputs.npy', np.loadtxt(source, ndmin=2))\n"
    )
    monkeypatch.setattr(datasets, "__path__", [*datasets.__path__, str(tmp_path / "formats")])
    (tmp_path / "data.numbers").write_text("1 2\n3 4")
    probe = read(tmp_path / "data.numbers", tmp_path / "unpacked", needs_targets=False)
    assert probe.inputs.tolist() == [[1, 2], [3, 4]]
    (tmp_path / "data.csv").write_text("1,2")
    with pytest.raises(ValueError, match=r"\.npy, \.npz, \.numbers, \.tfrecord, a Zarr array"):
        read(tmp_path / "data.csv", tmp_path / "unpacked")


def test_targets_may_be_left_out_where_they_are_not_needed(tmp_path: Path) -> None:
    np.savez(tmp_path / "alone.npz", inputs=INPUTS)
    assert not unpack(tmp_path / "alone.npz", tmp_path / "unpacked", needs_targets=False)
    probe = open_unpacked(tmp_path / "unpacked")
    np.testing.assert_array_equal(probe.inputs, INPUTS)
    assert probe.targets.tolist() == [0] * N
    np.savez(tmp_path / "both.npz", inputs=INPUTS, targets=TARGETS)
    assert unpack(tmp_path / "both.npz", tmp_path / "unpacked", needs_targets=False)
    np.testing.assert_array_equal(open_unpacked(tmp_path / "unpacked").targets, TARGETS)
    np.savez(tmp_path / "neither.npz", labels=TARGETS)
    with pytest.raises(ValueError, match="has no inputs and no targets"):
        unpack(tmp_path / "neither.npz", tmp_path / "unpacked", needs_targets=False)


def test_targets_that_are_given_replace_those_of_the_data_set(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", inputs=INPUTS, targets=TARGETS + 1)
    np.save(tmp_path / "y.npy", TARGETS)
    check_read_as_mapped(
        read(tmp_path / "data.npz", tmp_path / "unpacked", targets=tmp_path / "y.npy")
    )


def test_what_was_unpacked_before_is_removed(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", inputs=INPUTS, targets=TARGETS, labels=TARGETS)
    unpack(tmp_path / "data.npz", tmp_path / "unpacked")
    np.savez(tmp_path / "data.npz", inputs=INPUTS, targets=TARGETS)
    unpack(tmp_path / "data.npz", tmp_path / "unpacked")
    assert {path.name for path in (tmp_path / "unpacked").iterdir()} == {
        "inputs.npy",
        "targets.npy",
    }


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "alone.npz",
            (
                r"has no targets; give Dataset\(targets=...\), or bind score='predicted' to the"
                " methods to explain the class"
            ),
        ),
        (
            "data.csv",
            (
                r"is no data set: give \.npy, \.npz, \.tfrecord, a Zarr array or group, or a folder"
                " with a folder for each class$"
            ),
        ),
        ("absent", "there is no data set"),
        ("absent.npz", "there is no data set"),
    ],
)
def test_what_is_no_data_set_is_refused(tmp_path: Path, source: str, message: str) -> None:
    np.savez(tmp_path / "alone.npz", inputs=INPUTS)
    (tmp_path / "data.csv").write_text("1,2")
    with pytest.raises(ValueError, match=message):
        read(tmp_path / source, tmp_path / "unpacked")


def test_an_absent_file_of_targets_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "alone.npz", inputs=INPUTS)
    with pytest.raises(ValueError, match="there is no file of targets"):
        read(tmp_path / "alone.npz", tmp_path / "unpacked", targets=tmp_path / "absent.npy")


def test_a_full_disk_says_what_could_not_be_written(tmp_path: Path) -> None:
    source = tmp_path / "data.npz"
    np.savez_compressed(source, inputs=INPUTS, targets=TARGETS)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(
            CheckpointError, match=r"cannot write .*unpacked/(inputs|targets)\.npy: "
        ):
            unpack(source, tmp_path / "unpacked")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="A file stands where a folder is needed"):
        unpack(source, tmp_path / "file" / "unpacked")
