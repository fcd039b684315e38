import atexit
import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hvd_xai.checkpoint.json_record import seal
from hvd_xai.checkpoint.manifest import Manifest
from hvd_xai.checkpoint.probe_writer import write_probe
from hvd_xai.checkpoint.run_directory import RunDirectory, open_run
from hvd_xai.checkpoint.verify import verify
from hvd_xai.errors import CheckpointError
from hvd_xai.probe.probe import Probe
from hvd_xai.storage.arrays import ArrayWriter
from hvd_xai.storage.durable import digest_file
from tests.checkpoint.small import begin, make_attributions, make_rows, write


@functools.cache
def built_run() -> Path:
    """Commits two explanations and a probe, once for all tests, which copy the run."""
    run_dir = Path(tempfile.mkdtemp(prefix="hvd_xai-"))
    atexit.register(shutil.rmtree, run_dir, ignore_errors=True)
    explanations_dir = open_run(run_dir, config={})
    write_probe(
        explanations_dir, Probe(inputs=np.zeros((4, 3, 3), np.float32), targets=np.arange(4))
    )
    for epoch in (0, 1):
        write(explanations_dir, make_rows(make_attributions(4, (3, 3), seed=epoch)), epoch=epoch)
    return run_dir


def make_run(run_dir: Path) -> Path:
    """Makes a run of two explanations and a probe; returns the folder that tests damage."""
    shutil.copytree(built_run(), run_dir, dirs_exist_ok=True)
    return run_dir / "explanations" / "epochs" / "000001" / "integrated_gradients"


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def swap(one: Path, other: Path) -> None:
    """Swaps two files that a CRC of the whole file would not tell apart.

    Both end their pieces in a CRC.
    """
    first, second = one.read_bytes(), other.read_bytes()
    assert len(first) == len(second)
    assert first != second
    one.write_bytes(second)
    other.write_bytes(first)


def edit_manifest(path: Path) -> None:
    text = (path / "manifest.json").read_text()
    assert '"n_steps": 50' in text
    (path / "manifest.json").write_text(text.replace('"n_steps": 50', '"n_steps": 51'))


def forge_manifest(path: Path, **changes: Any) -> None:
    """Edits the manifest and mends its digest."""
    record = json.loads((path / "manifest.json").read_text())
    record.pop("digest")
    (path / "manifest.json").write_bytes(seal({**record, **changes}))


def forge_probe(probe: Path, *, spoil: bool = False) -> None:
    """Gives the probe other targets of the same dtype, or chunks that do not decode."""
    shard = probe / "targets" / "c" / "0"
    content = bytearray((probe / "labels" / "c" / "0").read_bytes())
    if spoil:
        content[20] ^= 1
    else:
        (probe / "other").mkdir()
        writer = ArrayWriter(probe / "other", (4,), np.dtype("<i8"))
        writer.append(np.arange(4)[::-1].astype("<i8"))
        writer.close()
        content = bytearray((probe / "other" / "c" / "0").read_bytes())
        shutil.rmtree(probe / "other")
    shard.write_bytes(content)
    record = json.loads((probe / "manifest.json").read_text())
    for file in record["files"]:
        file["size"], file["xxh3_128"] = digest_file(probe / file["key"])
    record.pop("digest")
    (probe / "manifest.json").write_bytes(seal(record))


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def move_away(path: Path) -> None:
    (path.parents[1] / "000009").mkdir()
    path.rename(path.parents[1] / "000009" / path.name)


DAMAGE: dict[str, tuple[Callable[[Path], object], str, bool]] = {
    # name: (what is done to the checkpoint, what is said of it, whether the quick check finds it)
    "bit flipped in a row": (
        lambda path: flip(path / "attributions/c/0/0/0", 3),
        "attributions/c/0/0/0 was changed",
        False,
    ),
    "bit flipped in a shard's index": (
        lambda path: flip(path / "score/c/0", -6),
        "score/c/0 was changed",
        False,
    ),
    "bit flipped in metadata": (
        lambda path: flip(path / "score/zarr.json", 5),
        "score/zarr.json was changed",
        False,
    ),
    "cut off by one byte": (
        lambda path: (path / "scale/c/0").write_bytes((path / "scale/c/0").read_bytes()[:-1]),
        "the manifest says",
        True,
    ),
    "emptied": (lambda path: (path / "scale/c/0").write_bytes(b""), "has 0 bytes", True),
    "shard deleted": (lambda path: (path / "attributions/c/0/0/0").unlink(), "is missing", True),
    "metadata deleted": (lambda path: (path / "zarr.json").unlink(), "is missing", True),
    "shard is a folder": (
        lambda path: replace_by_folder(path / "scale/c/0"),
        "is no plain file",
        True,
    ),
    "equal files swapped": (
        lambda path: swap(path / "target/c/0", path / "prediction/c/0"),
        "c/0 was changed",
        False,
    ),
    "files of two epochs swapped": (
        lambda path: swap(
            path / "attributions/c/0/0/0",
            path.parents[1] / "000000" / path.name / "attributions/c/0/0/0",
        ),
        "attributions/c/0/0/0 was changed",
        False,
    ),
    "manifest edited": (edit_manifest, "was changed after it was written", True),
    "manifest cut off": (
        lambda path: (path / "manifest.json").write_bytes(
            (path / "manifest.json").read_bytes()[:100]
        ),
        "JSON",
        True,
    ),
    "manifest deleted": (
        lambda path: (path / "manifest.json").unlink(),
        "has no manifest.json",
        True,
    ),
    "manifest of a later schema": (
        lambda path: forge_manifest(path, schema="2.0"),
        "Upgrade",
        True,
    ),
    "count of non-finite values forged": (
        lambda path: forge_manifest(path, nonfinite=5),
        "has 0 non-finite",
        False,
    ),
    "count of negative values forged": (
        lambda path: forge_manifest(path, negative=0),
        "negative attribution values",
        False,
    ),
    "sample order forged": (
        lambda path: forge_manifest(path, sample_order_digest="0" * 32),
        "other sample ids",
        False,
    ),
    "moved to another epoch": (move_away, "was moved here", True),
    "run.json edited": (lambda path: flip(path.parents[2] / "run.json", 20), "run.json", True),
    "bit flipped in the metadata of the run's group": (
        lambda path: flip(path.parents[2] / "zarr.json", 12),
        "explanations/zarr.json",
        False,
    ),
    "metadata of the epochs' group deleted": (
        lambda path: (path.parents[1] / "zarr.json").unlink(),
        "epochs/zarr.json cannot be read",
        False,
    ),
    "metadata of an epoch's group exchanged": (
        lambda path: shutil.copy(
            path.parents[1] / "000000/zarr.json", path.parents[1] / "000001/zarr.json"
        ),
        "000001/zarr.json was changed",
        False,
    ),
    "metadata of an epoch's group is no JSON": (
        lambda path: (path.parent / "zarr.json").write_bytes(b"\xff" + b"[" * 99),
        "zarr.json is not readable JSON",
        False,
    ),
    "probe forged, with all its digests": (
        lambda path: forge_probe(path.parents[2] / "probe"),
        "holds other examples than its manifest says",
        False,
    ),
    "probe that does not decode, with all its digests": (
        lambda path: forge_probe(path.parents[2] / "probe", spoil=True),
        "probe cannot be read: rows 0 to 4",
        False,
    ),
    "probe cut off": (
        lambda path: (path.parents[2] / "probe/inputs/c/0/0/0").write_bytes(b"x"),
        "has 1 bytes",
        True,
    ),
    "bit flipped in the probe": (
        lambda path: flip(path.parents[2] / "probe/inputs/c/0/0/0", 3),
        "was changed",
        False,
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found(tmp_path: Path, name: str) -> None:
    do, expected, quick = DAMAGE[name]
    path = make_run(tmp_path)
    assert verify(tmp_path) == []
    assert verify(tmp_path, deep=True) == []
    do(path)
    problems = [str(problem) for problem in verify(tmp_path, deep=True)]
    assert any(expected in problem for problem in problems), problems
    assert bool(verify(tmp_path)) == quick


def test_rows_that_do_not_fit_their_hash_are_found(tmp_path: Path) -> None:
    rows = make_rows(make_attributions(4, (3, 3)))
    rows["content_hash"][2] += 1
    write(open_run(tmp_path, config={}), rows)
    assert verify(tmp_path) == []
    (problem,) = verify(tmp_path, deep=True)
    assert "1 rows that do not fit their content hash, the first 2" in problem.what


def test_one_damaged_checkpoint_does_not_hide_the_others(tmp_path: Path) -> None:
    path = make_run(tmp_path)
    (path / "manifest.json").write_text("{")
    (path.parents[1] / "000000" / path.name / "score" / "c" / "0").unlink()
    assert len(verify(tmp_path)) == 2


class Recorder:
    """A `Progress` that remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.task = ""
        self.left = 0

    def start(self, task: str, total: int) -> None:
        self.task, self.left = task, total

    def advance(self, steps: int = 1) -> None:
        self.left -= steps

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_leftovers_are_a_note_and_no_problem(tmp_path: Path) -> None:
    explanations_dir = make_run(tmp_path).parents[2]
    writer = begin(explanations_dir, make_rows(make_attributions(4, ())), epoch=5)
    progress = Recorder()
    assert verify(tmp_path, deep=True, progress=progress) == []
    assert ["000005-integrated_gradients" in line for line in progress.lines] == [True]
    assert (progress.task, progress.left) == ("verify", 0)
    writer.discard()


def test_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no run of hvd_xai"):
        verify(tmp_path)


def test_manifest_that_names_files_elsewhere_is_never_followed(tmp_path: Path) -> None:
    path = make_run(tmp_path)
    manifest = Manifest.from_json((path / "manifest.json").read_bytes())
    secret = tmp_path / "secret"
    secret.write_text("x")
    for key in ("../../../../secret", str(secret)):
        forge_manifest(
            path, files=[{"key": key, "size": 1, "xxh3_128": manifest.files[0].xxh3_128}]
        )
        (problem,) = verify(tmp_path, deep=True)
        assert "stay inside the checkpoint" in problem.what


def test_a_probe_that_was_deleted_or_exchanged_is_found(tmp_path: Path) -> None:
    probes = [Probe(np.full((2, 4), value, np.float32), np.zeros(2, np.int32)) for value in (0, 1)]
    for name, probe in zip(("one", "other"), probes, strict=True):
        RunDirectory(tmp_path / name).open(probe)
    assert verify(tmp_path / "one") == []
    stored = tmp_path / "one" / "explanations" / "probe"
    shutil.rmtree(stored)
    assert [problem.what for problem in verify(tmp_path / "one")] == ["was deleted"]
    shutil.copytree(tmp_path / "other" / "explanations" / "probe", stored)
    (problem,) = verify(tmp_path / "one")
    assert "is another probe" in problem.what
