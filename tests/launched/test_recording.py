"""Checkpoints are whole after a kill at each step from rows to commit, an error, or a full disk."""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hvd_xai import open_explanations
from hvd_xai.checkpoint.verify import verify
from hvd_xai.checkpoint.writer import sweep
from hvd_xai.storage.staging import leftovers
from tests.launched.launch import Launcher, launch
from tests.mounts import mounted

pytestmark = pytest.mark.launched

RECORDED = str(Path(__file__).with_name("recorded.py"))


@pytest.mark.parametrize(
    ("place", "rank"),
    [
        ("beginning", 0),
        ("merging", 1),
        ("merging", 0),
        ("writing", 1),
        ("writing", 0),
        ("committing", 0),
        ("publishing", 0),
        ("showing", 0),
    ],
)
def test_a_kill_at_any_step_leaves_whole_checkpoints_and_what_can_be_swept(
    place: str, rank: int, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    ended = launch(
        "mpirun",
        2,
        sys.executable,
        RECORDED,
        place,
        str(rank),
        str(run),
        env={"HVD_XAI_DEADLINE": "600"},
    )
    assert ended.code != 0
    assert "ended well" not in ended.output
    assert "signal 9" in ended.output, ended.output[-3000:]
    assert verify(run, deep=True) == []
    committed = [0, 1] if place == "showing" else [0]
    assert open_explanations(run).epochs == committed
    explanations_dir = run / "explanations"
    left = leftovers(explanations_dir / "epochs")
    assert len(left) == (place != "showing")
    assert sweep(explanations_dir) == left
    assert (
        sorted(
            path.name
            for path in (explanations_dir / "epochs").iterdir()
            if path.name.startswith(".")
        )
        == []
    )
    assert open_explanations(run).epochs == committed


@pytest.mark.parametrize(
    ("launcher", "size", "what", "rank", "says"),
    [
        ("mpirun", 1, "together", 0, "RuntimeError: a rank has had enough"),
        (
            "mpirun",
            2,
            "together",
            1,
            "PeerError: testing: rank 1 on .* failed: RuntimeError: a rank has had enough",
        ),
        ("mpirun", 2, "alone", 0, "uncaught RuntimeError: a rank has had enough"),
        ("gloo", 2, "alone", 1, "uncaught RuntimeError: a rank has had enough"),
    ],
)
def test_an_error_waits_for_what_is_on_its_way(
    launcher: Launcher, size: int, what: str, rank: int, says: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    ended = launch(
        launcher,
        size,
        sys.executable,
        RECORDED,
        what,
        str(rank),
        str(run),
        env={"HVD_XAI_DEADLINE": "600"},
    )
    assert ended.code != 0
    assert len(re.findall(says, ended.output)) == 1, ended.output[-3000:]
    assert "ended well" not in ended.output
    assert open_explanations(run).epochs == [0, 1]
    assert verify(run, deep=True) == []
    assert leftovers(run / "explanations" / "epochs") == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Returns a folder on a file system of 1 MiB."""
    with mounted(tmp_path / "small", "size=1m") as place:
        yield place


def test_a_full_disk_costs_an_epoch_one_warning_and_training_goes_on(small_disk: Path) -> None:
    run = small_disk / "run"
    ended = launch(
        "mpirun",
        2,
        sys.executable,
        RECORDED,
        "large",
        "0",
        str(run),
        env={"HVD_XAI_DEADLINE": "600"},
    )
    assert ended.code == 0, ended.output[-3000:]
    assert ended.output.count("ended well") == 2
    assert ended.output.count("has not all its explanations") == 1, ended.output[-3000:]
    assert (
        "epoch 1 has not all its explanations, and training goes on without them: noise: "
        in ended.output
    )
    assert "The disk is full" in ended.output
    assert open_explanations(run).epochs == [0, 2]
    (gap,) = verify(run, deep=True)
    assert str(gap.path).endswith("epochs/000001/noise")
    assert "never committed" in gap.what
    assert leftovers(run / "explanations" / "epochs") == []
    assert shutil.disk_usage(small_disk).free > 2**18
