"""A job that is killed loses the explanation that is on its way; the next one makes it again."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from hvd_xai.checkpoint.reader import open_explanations
from hvd_xai.checkpoint.run_directory import Mode, RunDirectory
from hvd_xai.checkpoint.verify import verify
from hvd_xai.explain.callback import Explain
from hvd_xai.probe.probe import Probe
from hvd_xai.protocols import Methods
from hvd_xai.ranks.world import World

X = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
Y = np.arange(8) % 2
N_STEPS = 2  # in an epoch


class Killed(BaseException):
    """Stands for a process that is killed: nothing catches it, and nothing is settled."""


class Kill(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
    """Kills at the first batch of an epoch, before that epoch's `Explain` commits anything."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.at, self.epoch = epoch, 0

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        if self.epoch == self.at:
            raise Killed


def train(
    run: Path,
    mode: Mode = "new",
    *,
    backup: keras.callbacks.Callback | None = None,
    kill_at: int = 99,
    methods: Methods = ("saliency",),
    every: int = 1,
    initial_epoch: int = 0,
) -> None:
    """Trains five epochs as a script does that may be started again and again."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    directory = RunDirectory(run, mode=mode)
    explain = Explain(Probe(X, Y), methods, world=World.alone(), run=directory, every=every)
    callbacks = [*([backup] if backup else []), Kill(kill_at), explain]
    try:
        model.fit(
            X,
            Y,
            batch_size=4,
            shuffle=False,
            epochs=5,
            initial_epoch=initial_epoch,
            verbose=0,
            callbacks=callbacks,
        )
    except Killed:
        # What the system does when a process ends.
        directory.close()


@pytest.fixture
def backup(tmp_path: Path) -> Callable[..., keras.callbacks.Callback]:
    return lambda save_freq="epoch": keras.callbacks.BackupAndRestore(
        str(tmp_path / "backup"), save_freq=save_freq
    )


@pytest.fixture(autouse=True)
def _all_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def test_the_epoch_that_was_on_its_way_is_explained_again(
    tmp_path: Path,
    backup: Callable[..., keras.callbacks.Callback],
    caplog: pytest.LogCaptureFixture,
) -> None:
    train(tmp_path / "whole")
    train(tmp_path / "run", backup=backup(), kill_at=3)
    assert open_explanations(tmp_path / "run").epochs == [0, 1]
    train(tmp_path / "run", "resume", backup=backup())
    assert "the explanation of epoch 2 by saliency was lost" in caplog.text
    run, whole = (open_explanations(tmp_path / name) for name in ("run", "whole"))
    assert run.epochs == whole.epochs == [0, 1, 2, 3, 4]
    for epoch in run.epochs:
        ours, expected = (one.explanation(epoch, "saliency") for one in (run, whole))
        assert ours.manifest.weights_digest == expected.manifest.weights_digest
        assert ours.manifest.step == expected.manifest.step == N_STEPS * (epoch + 1)
        np.testing.assert_array_equal(ours.attributions(), expected.attributions())
    assert run.gaps == {}
    assert verify(tmp_path / "run", deep=True) == []


def test_an_epoch_whose_weights_are_gone_is_named_everywhere(
    tmp_path: Path,
    backup: Callable[..., keras.callbacks.Callback],
    caplog: pytest.LogCaptureFixture,
) -> None:
    # A backup at each batch: training goes on behind the first batch of epoch 3.
    train(tmp_path / "run", backup=backup(1), kill_at=3)
    train(tmp_path / "run", "resume", backup=backup(1))
    assert "no explanation of epoch 2 by saliency" in caplog.text
    explanations = open_explanations(tmp_path / "run")
    assert explanations.epochs == [0, 1, 3, 4]
    assert explanations.gaps == {"saliency": [2]}
    (problem,) = verify(tmp_path / "run", deep=True)
    assert problem.path == explanations.path / "epochs" / "000002" / "saliency"


def test_only_the_methods_that_lost_it_explain_an_epoch_again(
    tmp_path: Path, backup: Callable[..., keras.callbacks.Callback]
) -> None:
    both = ("saliency", "gradient_x_input")
    train(tmp_path / "whole", methods=both)
    train(tmp_path / "run", backup=backup(), kill_at=3, methods=both)
    # One of the two was committed before the kill came.
    place = "explanations/epochs/000002"
    shutil.copytree(tmp_path / "whole" / place / "saliency", tmp_path / "run" / place / "saliency")
    before = open_explanations(tmp_path / "run").explanation(2, "saliency").manifest
    # A method that is new in the run has lost nothing.
    train(tmp_path / "run", "resume", backup=backup(), methods=(*both, "occlusion"))
    explanations = open_explanations(tmp_path / "run")
    assert explanations.explanation(2, "saliency").manifest == before
    assert explanations.epochs_by_method == {
        "gradient_x_input": [0, 1, 2, 3, 4],
        "occlusion": [3, 4],
        "saliency": [0, 1, 2, 3, 4],
    }


def test_an_epoch_that_was_not_due_is_not_lost(
    tmp_path: Path,
    backup: Callable[..., keras.callbacks.Callback],
    caplog: pytest.LogCaptureFixture,
) -> None:
    train(tmp_path / "run", backup=backup(), kill_at=3, every=2)
    train(tmp_path / "run", "resume", backup=backup(), every=2)
    assert open_explanations(tmp_path / "run").epochs == [1, 3, 4]
    assert "was lost" not in caplog.text
    assert "has no explanation" not in caplog.text


def test_weights_that_come_from_anywhere_are_not_taken_for_the_lost_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path / "run", kill_at=3)
    # New weights, although the epoch says that three have gone by.
    train(tmp_path / "run", "resume", initial_epoch=3)
    assert "no explanation of epoch 2 by saliency" in caplog.text
    assert open_explanations(tmp_path / "run").gaps == {"saliency": [2]}
