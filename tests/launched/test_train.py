"""The main job as a user starts it.

`hvd-xai train` under each launcher, and what it leaves behind.
"""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from hvd_xai import open_explanations
from tests import processes
from tests.launched.launch import BIN, ROOT, Launcher, environment, launch

pytestmark = pytest.mark.launched

HVD_XAI = str(BIN / "hvd-xai")
LINE = re.compile(
    r"epoch (\d+)  accuracy \S+  loss \S+  val_accuracy (\S+)  val_loss \S+  convergence_delta"
    r" (\S+)"
    r"  \|  train \S+ s  attributing \S+ s  merging \S+ s  writing \S+ s"
)


def _hvd_xai(*words: str) -> processes.Ended:
    return processes.run([HVD_XAI, *words], env=environment())


def test_horovodrun_trains_explains_and_says_how_to_look(tmp_path: Path) -> None:
    run = tmp_path / "run"
    ended = launch(
        "horovodrun", 2, HVD_XAI, "train", "digits_cnn", "--epochs", "3", "--output", str(run)
    )
    assert ended.code == 0, ended.output[-4000:]
    lines = LINE.findall(ended.output)
    assert [epoch for epoch, _, _ in lines] == ["0", "1", "2"], ended.output[-4000:]
    assert float(lines[-1][1]) > 0.9
    for words in (
        f"hvd-xai show {run}\n",
        f"hvd-xai show {run} --sample 17 --epoch 2 --png out.png",
        f"tensorboard --logdir {run}",
    ):
        assert words in ended.output

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

    assert _hvd_xai("verify", str(run), "--deep").code == 0
    shown = _hvd_xai("show", str(run))
    assert shown.stdout.count("integrated_gradients") == 3
    picture = tmp_path / "out.png"
    assert (
        _hvd_xai("show", str(run), "--sample", "17", "--epoch", "2", "--png", str(picture)).code
        == 0
    )
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("launcher", ["mpirun", "gloo"])
def test_a_users_own_recipes_run_with_options_and_resume(
    launcher: Launcher, tmp_path: Path
) -> None:
    for name in ("digits_cnn", "explain_every_epoch"):
        assert _hvd_xai("copy", name, str(tmp_path / f"my_{name}.py")).code == 0
    recipe = [
        str(tmp_path / "my_digits_cnn.py"),
        "--callback",
        str(tmp_path / "my_explain_every_epoch.py"),
    ]
    options = [
        "--set",
        "filters=4",
        "--set",
        "n_steps=3",
        "--set",
        "layer=conv2",
        "--output",
        str(tmp_path / "run"),
    ]
    first = launch(launcher, 2, HVD_XAI, "train", *recipe, *options, "--epochs", "1")
    assert first.code == 0, first.output[-4000:]
    run = open_explanations(tmp_path / "run")
    assert run.explanation(0, "integrated_gradients").manifest.options["n_steps"] == 3
    assert run.explanation(0, "grad_cam").sample_shape == (8, 8)
    if launcher == "gloo":
        return
    again = launch(launcher, 2, HVD_XAI, "train", *recipe, *options, "--epochs", "2", "--resume")
    assert again.code == 0, again.output[-4000:]
    assert [epoch for epoch, _, _ in LINE.findall(again.output)] == ["1"]
    assert run.epochs == [0, 1]


def test_a_dry_run_says_what_the_chosen_methods_will_take_and_writes_nothing(
    tmp_path: Path,
) -> None:
    words = [
        "train",
        "digits_cnn",
        "--method",
        "grad_cam",
        "--method",
        "integrated_gradients",
        "--set",
        "n_steps=4",
    ]
    ended = launch("mpirun", 2, HVD_XAI, *words, "--dry-run", cwd=tmp_path)
    assert ended.code == 0, ended.output[-4000:]
    assert re.findall(r"^(\w+) +256 +[0-9.e-]+ +[0-9,]+$", ended.output, re.MULTILINE) == [
        "grad_cam",
        "integrated_gradients",
    ]
    assert ended.output.count("each explained epoch") == 1  # by the root alone
    assert list(tmp_path.iterdir()) == []
    wrong = launch(
        "mpirun",
        1,
        HVD_XAI,
        "train",
        "digits_cnn",
        "--method",
        "grad_cm",
        "--dry-run",
        cwd=tmp_path,
    )
    assert wrong.code != 0
    assert "there is no method 'grad_cm' (did you mean 'grad_cam'?)" in wrong.output


def test_mpirun_reads_the_sample_hostfile(tmp_path: Path) -> None:
    program = (
        "from hvd_xai.ranks.world import World; world = World.connect(); print('size', world.size)"
    )
    words = [
        str(BIN / "mpirun"),
        "--hostfile",
        str(ROOT / "mpi_hosts"),
        "-np",
        "2",
        sys.executable,
        "-c",
        program,
    ]
    ended = processes.run(words, env=environment(), cwd=tmp_path)
    assert ended.stdout.count("size 2") == 2, ended.stderr[-3000:]
