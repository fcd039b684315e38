"""What cannot be looked at is said, and never taken for empty. The tests run as root, too."""

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hvd_xai.checkpoint.listing import is_present, list_epochs, list_methods
from hvd_xai.checkpoint.probe_writer import write_probe
from hvd_xai.checkpoint.reader import open_explanations
from hvd_xai.checkpoint.retention import Retention, retain
from hvd_xai.checkpoint.run_directory import open_run
from hvd_xai.checkpoint.verify import verify
from hvd_xai.errors import CheckpointError, RunExistsError
from hvd_xai.probe.probe import Probe
from tests.checkpoint.small import make_attributions, make_rows, write
from tests.root_powers import without_root_powers


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs by two methods, and a probe."""
    run = tmp_path_factory.mktemp("built") / "run"
    explanations_dir = open_run(run, config={})
    write_probe(explanations_dir, Probe(np.zeros((4, 2), np.float32), np.arange(4)))
    for epoch in range(3):
        for method in ("grad_cam", "saliency"):
            write(explanations_dir, make_rows(make_attributions(4, ())), epoch=epoch, method=method)
    return run


@pytest.fixture
def explanations_dir(built: Path, tmp_path: Path) -> Path:
    """The explanations of a copy of the run, for the disk takes its time to make one durable."""
    shutil.copytree(built, tmp_path / "run")
    return tmp_path / "run" / "explanations"


def put_socket(path: Path) -> None:
    # A socket's whole path has 107 characters at most; a relative one is short.
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(here)


INSTEAD: dict[str, Callable[[Path], object]] = {
    "file": Path.touch,
    "pipe": os.mkfifo,
    "socket": put_socket,
    "link to itself": lambda path: path.symlink_to(path.name),
    "link that leads nowhere": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.parametrize("what", INSTEAD)
@pytest.mark.parametrize("place", ["epochs/000001", "epochs/000001/saliency"])
def test_a_thing_in_the_place_of_a_folder_is_a_problem(
    explanations_dir: Path, tmp_path: Path, what: str, place: str
) -> None:
    path = explanations_dir / place
    path.rename(tmp_path / "away")
    INSTEAD[what](path)
    (problem,) = verify(explanations_dir)
    assert problem.path == path
    assert "is no folder" in problem.what or "cannot be looked at" in problem.what
    explanations = open_explanations(explanations_dir)
    with pytest.raises(CheckpointError, match=rf"{place} .*`hvd-xai verify` lists"):
        _ = explanations.epochs
    with pytest.raises(CheckpointError, match=place):
        explanations.newest_before(2, "saliency") if place.count("/") == 1 else (
            explanations.methods(1)
        )
    assert explanations.explanation(2, "saliency").n_samples == 4


@pytest.mark.parametrize("what", INSTEAD)
@pytest.mark.parametrize("name", ["epochs/000001/saliency/manifest.json", "probe", "run.json"])
def test_a_thing_in_the_place_of_a_record_is_a_problem(
    explanations_dir: Path, what: str, name: str
) -> None:
    path = explanations_dir / name
    path.rename(path.with_name("away.json"))
    INSTEAD[what](path)
    assert verify(explanations_dir)


@pytest.mark.parametrize("place", ["epochs", "epochs/000001", "epochs/000001/saliency", "probe"])
def test_a_folder_that_may_not_be_read_is_a_problem(explanations_dir: Path, place: str) -> None:
    path = explanations_dir / place
    path.chmod(0)
    with without_root_powers():
        problems = [str(problem) for problem in verify(explanations_dir)]
        assert any(str(path) in one and "Permission denied" in one for one in problems), problems
        if place != "probe":
            with pytest.raises(CheckpointError, match=r"Permission denied"):
                _ = open_explanations(explanations_dir).epochs
    path.chmod(0o700)
    assert verify(explanations_dir) == []


def test_a_run_that_may_not_be_read_is_not_begun_anew(tmp_path: Path) -> None:
    explanations_dir = open_run(tmp_path / "run", config={"seed": 1})
    explanations_dir.chmod(0)
    with without_root_powers(), pytest.raises(CheckpointError, match="Permission denied"):
        open_run(tmp_path / "run", config={"seed": 2})
    explanations_dir.chmod(0o700)
    assert open_explanations(tmp_path / "run").config == {"seed": 1}
    (explanations_dir / "run.json").unlink()
    (explanations_dir / "run.json").symlink_to("run.json")
    with pytest.raises(RunExistsError):
        open_run(tmp_path / "run", config={"seed": 2})


def test_an_epoch_that_cannot_be_looked_into_is_not_removed(explanations_dir: Path) -> None:
    (explanations_dir / "epochs/000001/more").symlink_to("more")
    assert retain(explanations_dir, Retention(last=1)) == [0]
    assert [path.name for path in list_epochs(explanations_dir).folders] == ["000001", "000002"]


def test_an_epoch_of_another_name_is_a_problem_and_other_names_are_passed_over(
    explanations_dir: Path,
) -> None:
    for name in ("\u0663", "7a", "notes", ".staging-000009-x-00000000"):
        (explanations_dir / "epochs" / name).mkdir()
    assert open_explanations(explanations_dir).epochs == [0, 1, 2]
    (explanations_dir / "epochs" / "000002").rename(explanations_dir / "epochs" / "2")
    (problem,) = list_epochs(explanations_dir).problems
    assert problem.what == "must be called 000002 to be an epoch that is read"
    with pytest.raises(CheckpointError, match="must be called 000002"):
        _ = open_explanations(explanations_dir).epochs


def test_epochs_are_in_order_of_their_numbers_and_links_to_folders_are_followed(
    explanations_dir: Path, tmp_path: Path
) -> None:
    (explanations_dir / "epochs" / "000000").rename(tmp_path / "elsewhere")
    (explanations_dir / "epochs" / "000000").symlink_to(tmp_path / "elsewhere")
    (explanations_dir / "epochs" / "1000000").mkdir()
    names = [path.name for path in list_epochs(explanations_dir).checked()]
    assert names == ["000000", "000001", "000002", "1000000"]
    methods = list_methods(explanations_dir / "epochs" / "000000").checked()
    assert [path.name for path in methods] == ["grad_cam", "saliency"]
    assert list_methods(explanations_dir / "epochs" / "000009").checked() == ()


def test_a_name_is_free_only_where_nothing_stands(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    found = [is_present(tmp_path / name) for name in ("file", "loop", "nothing", "file/below")]
    assert found == [True, True, False, False]


def test_a_checkpoint_under_a_name_that_no_method_has_is_a_problem(explanations_dir: Path) -> None:
    method = explanations_dir / "epochs" / "000001" / "grad_cam"
    renamed = method.rename(method.with_name("grad cam (copy)"))
    (method.parent / "my notes").mkdir()
    (problem,) = verify(explanations_dir.parent)
    assert problem.path == renamed
    assert "holds a manifest, and is not read" in problem.what
