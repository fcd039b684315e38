"""The callbacks of every training, also on a disk that is full."""

import logging
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import pytest

from hvd_xai import Explain, Recording, World, open_explanations
from hvd_xai.errors import CheckpointError
from hvd_xai.keras.model_files import read_trained
from hvd_xai.train.callbacks import Report, SaveModel
from tests.train.tiny import Shown, build, load


def _fit(*callbacks: object, epochs: int = 2) -> None:
    build().fit(*load().train, batch_size=4, epochs=epochs, verbose=0, callbacks=list(callbacks))


def test_the_model_of_the_last_epoch_is_there(tmp_path: Path) -> None:
    world = World.alone()
    _fit(SaveModel(tmp_path, world, 0.01, [], anew=True))
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-000001.keras"]
    trained = read_trained(tmp_path)
    assert trained is not None
    assert (trained.epoch, trained.step, trained.size) == (1, 12, 1)
    assert not world.under_way


def test_models_of_another_run_are_removed_only_where_it_starts_anew(tmp_path: Path) -> None:
    old = tmp_path / "epoch-000007.keras"
    for anew in (False, True):
        old.write_bytes(b"of another run")
        save = SaveModel(tmp_path, World.alone(), 0.01, [], anew=anew)
        save.on_train_begin()
        assert old.exists() is not anew


def test_an_epoch_is_one_bar_and_one_line() -> None:
    shown = Shown()
    _fit(Report(shown, []))
    assert shown.tasks == [("epoch 0  training", 6), ("epoch 1  training", 6)]
    assert shown.done == 12
    assert [line.split("  ")[0] for line in shown.lines] == ["epoch 0", "epoch 1"]
    assert "loss " in shown.lines[0]
    assert shown.lines[0].partition("|  ")[2].startswith("train ")


LIMITS = resource.getrlimit(resource.RLIMIT_FSIZE)


def fill_disk(*_: object) -> None:
    """Lets no file grow, as a full disk does; this needs no rights, and ends with the process."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, LIMITS[1]))


def empty_disk() -> None:
    """Lets files grow again."""
    resource.setrlimit(resource.RLIMIT_FSIZE, LIMITS)


@contextmanager
def disk() -> Iterator[None]:
    """A block in which the disk may fill.

    No fixture: before fixtures end, pytest writes the test's outcome, which may go to a file.
    """
    try:
        yield
    finally:
        empty_disk()


class FullInEpoch(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
    """The disk is full while one epoch is explained and saved."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self._epoch = epoch

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        if epoch == self._epoch:
            fill_disk()

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        empty_disk()


def saves_and_explains(
    run: Path, world: World, recording: Recording, **options: object
) -> tuple[Explain, SaveModel]:
    explain = Explain(
        load().probe,
        ["saliency"],
        world=world,
        run=run,
        recording=recording,
        **options,  # type: ignore[arg-type]  # the sinks
    )
    return explain, SaveModel(run / "models", world, 0.01, [explain], anew=True)


def test_a_full_disk_costs_an_epoch_its_explanation_and_its_model_where_losses_only_warn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recording = Recording(overlap=False, on_error="warn")
    explain, save = saves_and_explains(tmp_path, World.alone(), recording)
    with disk(), caplog.at_level(logging.WARNING, "hvd_xai"):
        _fit(FullInEpoch(1), explain, save, epochs=3)
    lost, *_, unsaved = [record.getMessage() for record in caplog.records]
    assert "epoch 1 has not all its explanations" in lost
    model = tmp_path / "models" / "epoch-000001.keras"
    assert unsaved.startswith(
        "the model of epoch 1 is not saved, and training goes on without it: cannot write"
        f" {model}: File too large."
    )
    assert open_explanations(tmp_path).epochs == [0, 2]
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["epoch-000002.keras"]


def test_a_job_whose_last_model_cannot_be_saved_fails_though_losses_only_warn(
    tmp_path: Path,
) -> None:
    recording = Recording(overlap=False, on_error="warn")
    explain, save = saves_and_explains(tmp_path, World.alone(), recording)
    with (
        disk(),
        pytest.raises(CheckpointError, match=r"cannot write .*epoch-000001\.keras: File too"),
    ):
        _fit(FullInEpoch(1), explain, save, epochs=2)
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["epoch-000000.keras"]


def test_the_model_of_a_committed_epoch_is_published_when_the_next_epoch_fails(
    tmp_path: Path,
) -> None:
    world, committing = World.alone(), threading.Event()
    # the disk is full once epoch 0 is committed, which waits until epoch 1 has trained
    explain, save = saves_and_explains(tmp_path, world, Recording(), sinks=[Fill()])

    class Wait(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            if epoch == 0 and explain._runner is not None:
                explain._runner._recorder._thread.submit(committing.wait, 60)

        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            if epoch == 1:
                committing.set()

    with (
        disk(),
        pytest.raises(CheckpointError, match=r"cannot write .*000001/saliency") as caught,
    ):
        _fit(Wait(), explain, save)
    world.finish(caught.value)
    assert open_explanations(tmp_path).epochs == [0]
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["epoch-000000.keras"]


class Fill:
    """A sink after which the disk is full."""

    def __call__(self, run: object, explanation: object, /) -> None:
        fill_disk()

    def close(self) -> None:
        pass
