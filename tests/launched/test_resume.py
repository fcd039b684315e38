"""A run that was killed and resumed ends equal, to the bit, to one that was not."""

import io
import json
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest

from hvd_xai import open_explanations
from hvd_xai.checkpoint.verify import verify
from tests.launched.launch import launch_commands

pytestmark = pytest.mark.launched

EPOCHS = 4
MODEL = """
import keras
from sklearn.datasets import load_digits

from hvd_xai import Data, Probe


def build(*, units: int = 8) -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(3, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(units, activation="relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(10),
        ]
    )
    optimizer = keras.optimizers.SGD(0.02, momentum=0.9)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def load() -> Data:
    digits = load_digits()
    x = (digits.images[..., None] / 16).astype("float32")[:600]
    y = digits.target.astype("int32")[:600]
    probe = Probe(x[:16], y[:16])
    return Data(train=(x[48:], y[48:]), validation=(x[:48], y[:48]), probe=probe, batch_size=16)
"""
# The user's own callback recipe: explains, and kills its rank where the environment says so.
CALLBACKS = """
import os
import signal
from functools import partial

import keras

from hvd_xai import Explain, Recording, Training
from hvd_xai.attributions.integrated_gradients import integrated_gradients


class Dies(keras.callbacks.Callback):
    def __init__(self, rank: int) -> None:
        super().__init__()
        when, epoch, who = os.environ.get("DIES", "never -1 -1").split()
        self.when, self.at, self.epoch = when, int(epoch) if int(who) == rank else -1, -1

    def _die(self, when: str) -> None:
        if self.when == when and self.epoch == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        if batch == 5:
            self._die("training")

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        self._die("saving")


def build(training: Training, *, overlap: bool = False) -> list[keras.callbacks.Callback]:
    methods = [partial(integrated_gradients, n_steps=3)]
    recording = Recording(overlap=overlap)
    explain = Explain(
        training.probe, methods, world=training.world, run=training.run, recording=recording
    )
    return [explain, Dies(training.world.rank)]
"""


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "tiny.py").write_text(MODEL, "utf-8")
    (folder / "mortal.py").write_text(CALLBACKS, "utf-8")
    return folder


def _train(
    recipes: Path,
    run: Path,
    *words: str,
    dies: str = "never -1 -1",
    epochs: int = EPOCHS,
) -> list[str]:
    """Returns the words of a command that trains."""
    program = [f"DIES={dies}", "hvd-xai", "train", str(recipes / "tiny.py")]
    options = ["--callback", str(recipes / "mortal.py"), "--warmup-epochs", "2"]
    return [*program, *options, "--epochs", str(epochs), "--output", str(run), *words]


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of two ranks, after jobs in which what was left of one run was resumed and another was
    begun: starting the ranks takes longer than training.

    Attributes:
        whole: nothing has happened to it.
        killed: killed twice and resumed each time.
        overlapped: killed while files were written, and resumed.
        left: names of model files, and explained epochs, as each killed job left them.
        said: what the ranks said in each command.
    """

    whole: Path
    killed: Path
    overlapped: Path
    left: list[tuple[list[str], list[int]]]
    said: dict[str, str]


@pytest.fixture(scope="module")
def runs(recipes: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Makes the runs in four jobs, of which three are killed."""
    folder = tmp_path_factory.mktemp("runs")
    runs = Runs(folder / "whole", folder / "killed", folder / "overlapped", [], {})
    overlap = ("--set", "overlap=true")

    def job(commands: dict[str, list[str]], dies: Path | None) -> None:
        """Runs commands, of which the last is killed if a run that dies is given."""
        done = launch_commands("mpirun", 2, folder, commands)
        *lives, last = commands
        for name in lives if dies else commands:
            runs.said[name] = done.text(name)
        if dies is None:
            assert done.ended.code == 0, done.ended.output[-4000:]
            return
        assert done.ended.code != 0, done.ended.output[-4000:]
        assert [said.code for said in done.said[last]] == [None, None], done.said[last]
        models = sorted(path.name for path in (dies / "models").glob("*"))
        runs.left.append((models, open_explanations(dies).epochs))

    # within the warm-up, on rank 1
    first = _train(recipes, runs.killed, dies="training 1 1")
    job({"whole": _train(recipes, runs.whole), "first": first}, runs.killed)
    # explained and not saved, on the root
    second = _train(recipes, runs.killed, "--resume", dies="saving 2 0")
    done = _train(recipes, runs.whole, "--resume")
    job({"done": done, "second": second}, runs.killed)
    # as a job leaves it that is killed while it saves
    (runs.killed / "models" / ".writing-epoch-000002.keras").write_bytes(b"torn")
    third = _train(recipes, runs.killed, "--resume")
    writing = _train(recipes, runs.overlapped, *overlap, dies="training 2 1")
    job({"third": third, "writing": writing}, runs.overlapped)
    job({"fourth": _train(recipes, runs.overlapped, "--resume", *overlap)}, None)
    return runs


def _state(run: Path) -> dict[str, np.ndarray]:
    """Returns every array of the last model's file, and the seeds of all ranks."""
    (path,) = (run / "models").glob("*.keras")
    assert path.name == f"epoch-{EPOCHS - 1:06d}.keras"
    arrays: dict[str, np.ndarray] = {}
    with zipfile.ZipFile(path) as archive:
        with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
            file.visititems(
                lambda name, item: (
                    arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
                )
            )
        arrays["seeds"] = np.array(json.loads(archive.read("hvd_xai.json"))["seeds"])
    return arrays


def test_a_killed_run_ends_as_one_that_was_not(runs: Runs) -> None:
    assert runs.left[0] == (["epoch-000000.keras"], [0])
    assert runs.left[1] == (["epoch-000001.keras"], [0, 1, 2])
    # three steps leave a gap, which is told as a doubt
    warned = [line for line in runs.said["third"].splitlines() if "WARNING" in line]
    assert all("samples have attributions that miss" in line for line in warned)
    _assert_equal(runs.killed, runs.whole)


def test_a_run_that_was_killed_while_files_were_written_ends_as_one_that_was_not(
    runs: Runs,
) -> None:
    models, committed = runs.left[2]
    published = [name for name in models if not name.startswith(".")]
    assert committed in ([0], [0, 1])
    # a model that is there has its explanations
    assert published in [[f"epoch-{epoch:06d}.keras"] for epoch in committed] + [[]]
    _assert_equal(runs.overlapped, runs.whole)
    assert not list((runs.overlapped / "explanations").rglob(".staging-*"))


def _assert_equal(run: Path, whole: Path) -> None:
    """Compares two runs to the bit: their last models, and the explanations of all epochs."""
    expected, found = _state(whole), _state(run)
    assert found.keys() == expected.keys()
    assert any("optimizer" in name for name in expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    # each rank drops out other units
    assert len({str(seeds) for seeds in expected["seeds"].tolist()}) == 2

    assert not verify(run, deep=True)
    for epoch in range(EPOCHS):
        before, after = (
            open_explanations(one).explanation(epoch, "integrated_gradients").manifest
            for one in (whole, run)
        )
        assert after.weights_digest == before.weights_digest
        digests = [
            {file.key: file.xxh3_128 for file in manifest.files} for manifest in (before, after)
        ]
        assert digests[0] == digests[1]


def test_a_run_that_is_done_is_left_alone(runs: Runs) -> None:
    more = f"has its {EPOCHS} epochs already; to train on, give --epochs {EPOCHS + 1}"
    assert more in runs.said["done"]


def test_a_run_goes_on_with_more_epochs_and_other_ranks_and_says_so(
    recipes: Path, runs: Runs, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs.whole, run)
    more = _train(recipes, run, "--resume", epochs=EPOCHS + 1)
    said = launch_commands("mpirun", 1, tmp_path, {"more": more}).text("more")
    assert "was trained by 2 ranks and goes on with 1" in said
    assert open_explanations(run).epochs == list(range(EPOCHS + 1))
