"""The main job runs as users start it, under each launcher: the README's script, and `hvd-xai
train`.

All that one launcher starts runs in one job.
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hvd_xai import open_explanations
from hvd_xai.checkpoint.verify import verify
from hvd_xai.cli.main import build
from tests import processes
from tests.launched.launch import BIN, ROOT, Commands, Launcher, environment, launch_commands

pytestmark = pytest.mark.launched

LINE = re.compile(
    r"epoch (\d+)  accuracy \S+  loss \S+  val_accuracy (\S+)  val_loss \S+  convergence_delta"
    r" (\S+)"
    r"  \|  train \S+ s  attributing \S+ s  merging \S+ s  writing \S+ s"
)
SCRIPT, NOTEBOOK = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@dataclass(frozen=True, slots=True)
class Job:
    """What one job of two ranks did in a folder that was empty before."""

    folder: Path
    commands: Commands


def _hvd_xai(*words: str) -> str:
    """Runs a command that needs no ranks and must end well; returns its output."""
    done = CliRunner().invoke(build(), list(words))
    assert done.exit_code == 0, done.output
    return done.output


def _run(launcher: Launcher, folder: Path) -> Job:
    here, elsewhere = folder / "here", folder / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    script = elsewhere / "script.py"
    script.write_text(SCRIPT)
    names = {name: elsewhere / f"my_{name}.py" for name in ("digits_cnn", "explain_every_epoch")}
    for name, path in names.items():
        _hvd_xai("copy", name, str(path))
    train = ["hvd-xai", "train"]
    settings = ["filters=4", "n_steps=3", "layer=conv2"]
    mine = [
        *train,
        str(names["digits_cnn"]),
        *("--callback", str(names["explain_every_epoch"])),
        *(word for setting in settings for word in ("--set", setting)),
        *("--output", str(here / "mine")),
    ]
    chosen = [
        *train,
        "digits_cnn",
        *("--method", "grad_cam", "--method", "integrated_gradients"),
        *("--set", "n_steps=4"),
    ]
    unknown = [*train, "digits_cnn", "--method", "grad_cm"]
    commands = {
        "horovodrun": {
            "train": [*train, "digits_cnn", "--epochs", "3", "--output", str(here / "run")]
        },
        "horovodrun --gloo": {"mine": [*mine, "--epochs", "1"]},
        "mpirun": {
            "dry run": [*chosen, "--dry-run"],
            "unknown": [*unknown, "--dry-run"],
            "mine": [*mine, "--epochs", "1"],
            "mine again": [*mine, "--epochs", "2", "--resume"],
        },
    }[launcher]
    return Job(
        here,
        launch_commands(launcher, 2, folder, {**commands, "script": [str(script)]}, cwd=here),
    )


@pytest.fixture(scope="module")
def job_under(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Launcher], Job]:
    """Runs the job of each launcher once."""
    return functools.cache(lambda launcher: _run(launcher, tmp_path_factory.mktemp("job")))


@pytest.mark.parametrize("launcher", ["mpirun", "horovodrun", "horovodrun --gloo"])
def test_the_readmes_script_trains_and_explains(
    launcher: Launcher, job_under: Callable[[Launcher], Job]
) -> None:
    job = job_under(launcher)
    job.commands.text("script")
    path = job.folder / "runs/script"
    run = open_explanations(path)
    assert run.epochs == [0, 1, 2]
    assert all(explanation.manifest.world_size == 2 for explanation in run)
    assert not verify(path, deep=True)

    names: dict[str, object] = {}
    notebook = NOTEBOOK.replace('"runs/script"', repr(str(path)))
    exec(compile(notebook, "README.md", "exec"), names)
    assert isinstance(names["attributions"], np.ndarray)
    assert names["attributions"].shape == (16, 8, 8, 1)


def test_horovodrun_trains_explains_and_says_how_to_look(
    job_under: Callable[[Launcher], Job], tmp_path: Path
) -> None:
    job = job_under("horovodrun")
    run, said = job.folder / "run", job.commands.text("train")
    lines = LINE.findall(said)
    assert [epoch for epoch, _, _ in lines] == ["0", "1", "2"], said
    assert float(lines[-1][1]) > 0.9
    for words in (
        f"hvd-xai show {run}\n",
        f"hvd-xai show {run} --sample 17 --epoch 2 --png out.png",
        f"tensorboard --logdir {run}",
    ):
        assert words in said

    explanations = open_explanations(run)
    assert explanations.epochs == [0, 1, 2]
    assert explanations.methods(2) == ["grad_cam", "integrated_gradients"]
    for explanation in explanations:
        assert explanation.manifest.world_size == 2
        assert explanation.column("sample_id").tolist() == list(range(256))
        assert np.bincount(explanation.column("rank")).tolist() == [128, 128]
    last = explanations.explanation(2, "integrated_gradients")
    gap = (
        np.abs(last.column("convergence_delta")).sum()
        / np.abs(last.attributions().reshape(256, -1).sum(axis=1)).sum()
    )
    assert gap < 0.01  # completeness at 50 nodes
    assert list((run / "tensorboard").rglob("events.out.tfevents.*"))
    assert [path.name for path in (run / "models").iterdir()] == ["epoch-000002.keras"]

    _hvd_xai("verify", str(run), "--deep")
    shown = _hvd_xai("show", str(run))
    assert re.findall(r"^ *(\d) +integrated_gradients ", shown, re.MULTILINE) == ["0", "1", "2"]
    picture = tmp_path / "out.png"
    _hvd_xai("show", str(run), "--sample", "17", "--epoch", "2", "--png", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("launcher", ["mpirun", "horovodrun --gloo"])
def test_a_users_own_recipes_run_with_options(
    launcher: Launcher, job_under: Callable[[Launcher], Job]
) -> None:
    job = job_under(launcher)
    assert [epoch for epoch, _, _ in LINE.findall(job.commands.text("mine"))] == ["0"]
    run = open_explanations(job.folder / "mine")
    assert run.explanation(0, "integrated_gradients").manifest.options["n_steps"] == 3
    assert run.explanation(0, "grad_cam").sample_shape == (8, 8)


def test_a_users_own_recipes_are_resumed(job_under: Callable[[Launcher], Job]) -> None:
    job = job_under("mpirun")
    assert [epoch for epoch, _, _ in LINE.findall(job.commands.text("mine again"))] == ["1"]
    assert open_explanations(job.folder / "mine").epochs == [0, 1]


def test_a_dry_run_says_what_the_chosen_methods_will_take_and_writes_nothing(
    job_under: Callable[[Launcher], Job],
) -> None:
    job = job_under("mpirun")
    said = job.commands.text("dry run")
    assert re.findall(r"^(\w+) +256 +[0-9.e-]+ +[0-9,]+$", said, re.MULTILINE) == [
        "grad_cam",
        "integrated_gradients",
    ]
    assert said.count("each explained epoch") == 1  # by the root alone
    of_others = {Path("mine"), Path("runs"), Path("runs/script")}
    assert {path.relative_to(job.folder) for path in job.folder.glob("*")} <= of_others
    assert {path.relative_to(job.folder) for path in job.folder.glob("runs/*")} <= of_others


def test_an_unknown_method_is_named_by_a_dry_run(job_under: Callable[[Launcher], Job]) -> None:
    root, other = job_under("mpirun").commands.said["unknown"]
    assert (root.code, other.code) == ("1", "1")
    assert "there is no method 'grad_cm' (did you mean 'grad_cam'?)" in root.text


def test_mpirun_reads_the_sample_hostfile(tmp_path: Path) -> None:
    program = "from tests.launched.mpi_world import connect; print('size', connect().size)"
    hosts = ["--hostfile", str(ROOT / "mpi_hosts"), "-np", "2"]
    words = [str(BIN / "mpirun"), *hosts, str(BIN / "python"), "-c", program]
    ended = processes.run(words, env=environment(), cwd=tmp_path)
    assert ended.stdout.count("size 2") == 2, ended.stderr[-3000:]
