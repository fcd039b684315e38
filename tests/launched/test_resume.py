"""A run that was killed and resumed ends, to the bit, as one that was not."""

import io
import json
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from hvd_xai import open_explanations
from hvd_xai.checkpoint.verify import verify
from tests.launched.launch import BIN, launch
from tests.processes import Ended

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
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


def load() -> Data:
    digits = load_digits()
    x, y = (digits.images[..., None] / 16).astype("float32")[:600], digits.target.astype("int32")[:600]
    return Data(train=(x[48:], y[48:]), validation=(x[:48], y[:48]), probe=Probe(x[:16], y[:16]), batch_size=16)
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
    explain = Explain(training.probe, methods, world=training.world, run=training.run, recording=Recording(overlap=overlap))
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
    size: int = 2,
) -> Ended:
    options = [
        "--callback",
        str(recipes / "mortal.py"),
        "--epochs",
        str(epochs),
        "--warmup-epochs",
        "2",
        "--output",
        str(run),
    ]
    program = [str(BIN / "hvd-xai"), "train", str(recipes / "tiny.py"), *options, *words]
    return launch("mpirun", size, *program, env={"DIES": dies})


@pytest.fixture(scope="module")
def whole(recipes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing has happened to."""
    run = tmp_path_factory.mktemp("runs") / "run"
    ended = _train(recipes, run)
    assert ended.code == 0, ended.output[-4000:]
    return run


def _state(run: Path) -> dict[str, np.ndarray]:
    """Every array of the last model's file: weights, moving statistics, optimizer; and the seeds of
    all ranks."""
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


def test_a_killed_run_ends_as_one_that_was_not(recipes: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    # within the warm-up, on rank 1; explained and not saved, on the root
    for number, dies in enumerate(["training 1 1", "saving 2 0"]):
        killed = _train(recipes, run, *(["--resume"] if number else []), dies=dies)
        assert killed.code != 0, killed.output[-4000:]
        assert [path.name for path in (run / "models").iterdir()] == [f"epoch-{number:06d}.keras"]
    assert open_explanations(run).epochs == [0, 1, 2]
    # as a job leaves it that is killed while it saves
    (run / "models" / ".writing-epoch-000002.keras").write_bytes(b"torn")
    resumed = _train(recipes, run, "--resume")
    assert resumed.code == 0, resumed.output[-4000:]
    assert "WARNING" not in resumed.output, resumed.output[-4000:]
    _assert_equal(run, whole)


def test_a_run_that_was_killed_while_files_were_written_ends_as_one_that_was_not(
    recipes: Path, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    killed = _train(recipes, run, "--set", "overlap=true", dies="training 2 1")
    assert killed.code != 0, killed.output[-4000:]
    published = [path.name for path in (run / "models").glob("epoch-*.keras")]
    committed = open_explanations(run).epochs
    assert committed in ([0], [0, 1])
    # a model that is there has its explanations
    assert published in [[f"epoch-{epoch:06d}.keras"] for epoch in committed] + [[]]
    resumed = _train(recipes, run, "--resume", "--set", "overlap=true")
    assert resumed.code == 0, resumed.output[-4000:]
    _assert_equal(run, whole)
    assert not list((run / "explanations").rglob(".staging-*"))


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


def test_a_run_that_is_done_is_left_alone(recipes: Path, whole: Path) -> None:
    done = _train(recipes, whole, "--resume")
    assert done.code == 0, done.output[-3000:]
    assert (
        f"has its {EPOCHS} epochs already; to train on, give --epochs {EPOCHS + 1}" in done.output
    )


def test_a_run_goes_on_with_more_epochs_and_other_ranks_and_says_so(
    recipes: Path, whole: Path
) -> None:
    more = _train(recipes, whole, "--resume", epochs=EPOCHS + 1, size=1)
    assert more.code == 0, more.output[-3000:]
    assert "was trained by 2 ranks and goes on with 1" in more.output
    assert open_explanations(whole).epochs == list(range(EPOCHS + 1))
