"""Rows are recorded on one rank; tests/launched records them on several."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hvd_xai import open_explanations
from hvd_xai.checkpoint.explanation import Explanation
from hvd_xai.checkpoint.retention import Retention
from hvd_xai.checkpoint.run_directory import RunDirectory
from hvd_xai.checkpoint.verify import verify
from hvd_xai.ranks.world import World
from hvd_xai.recording.recorder import Merge, Recorder, Recording
from hvd_xai.recording.row_buffer import RowBuffer
from hvd_xai.storage import arrays
from hvd_xai.storage.staging import leftovers
from tests.checkpoint.small import make_attributions, make_header, make_rows, write

N_SAMPLES = 45
SHAPE = (3, 2)
SECONDS = 60  # for a thread that does its work at once


class Seen:
    """A sink that remembers what it was shown, and can do something before."""

    def __init__(self, first: Callable[[Explanation], object] = lambda _: None) -> None:
        self.shown: list[tuple[int, str]] = []
        self._first = first

    def __call__(self, run: RunDirectory, explanation: Explanation, /) -> None:
        self._first(explanation)
        self.shown.append((explanation.manifest.epoch, explanation.manifest.method))

    def close(self) -> None:
        pass


def full_at(epoch: int, method: str) -> Callable[[Explanation], None]:
    def fill(explanation: Explanation) -> None:
        if (explanation.manifest.epoch, explanation.manifest.method) == (epoch, method):
            raise OSError("No space left on device")

    return fill


@pytest.fixture
def world() -> World:
    return World.alone()


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "run")
    directory.open()
    return directory


def _rows() -> np.ndarray:
    return make_rows(make_attributions(N_SAMPLES, SHAPE))


def _merge(recorder: Recorder, **header: Any) -> RowBuffer:
    buffer = RowBuffer(_rows().dtype)
    buffer.append(_rows())
    recorder.merge(make_header(N_SAMPLES, SHAPE, **header), buffer)
    return buffer


@pytest.mark.parametrize("merge", ["auto", "direct", "root"])
def test_what_is_merged_is_committed_with_one_writers_bytes(
    world: World, run: RunDirectory, merge: Merge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 64)
    monkeypatch.setattr(arrays, "SHARD_BYTES", 256)  # Zarr shards of 16 rows
    recorder = Recorder(world, run, recording=Recording(merge))
    _merge(recorder)
    recorder.settle()
    recorder.close()
    (explanation,) = open_explanations(run.path)
    assert explanation.manifest.files == write(run.path / "alone", _rows()).manifest.files
    assert verify(run.path, deep=True) == []
    assert leftovers(run.explanations_dir / "epochs") == []


def test_what_is_written_is_committed_and_shown_without_waiting(
    world: World, run: RunDirectory
) -> None:
    released, seen = threading.Event(), threading.Event()

    def wait(_: object) -> None:
        seen.set()
        released.wait(SECONDS)

    sink = Seen(wait)
    recorder = Recorder(world, run, [sink])
    _merge(recorder)
    while not seen.wait(0.01):
        recorder.advance()
    assert open_explanations(run.path).epochs == [0]
    assert not recorder.has_settled(0)  # the sink has not returned yet
    released.set()
    recorder.settle()
    assert recorder.has_settled(0)
    assert sink.shown == [(0, "integrated_gradients")]
    recorder.close()


def test_an_error_of_a_sink_is_raised_when_the_epoch_settles(
    world: World, run: RunDirectory
) -> None:
    recorder = Recorder(world, run, [Seen(full_at(0, "grad_cam"))])
    _merge(recorder, method="grad_cam")
    with pytest.raises(OSError, match="No space left"):
        recorder.settle()
    assert not recorder.has_settled(0)
    recorder.close()


def test_a_loss_is_logged_once_where_training_is_to_go_on(
    world: World, run: RunDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(world, run, [Seen(full_at(0, "grad_cam"))], Recording(on_error="warn"))
    _merge(recorder, method="grad_cam")
    _merge(recorder)
    with caplog.at_level(logging.WARNING, "hvd_xai"):
        recorder.settle()
        recorder.settle()
    (record,) = caplog.records
    assert "epoch 0 has not all its explanations" in record.getMessage()
    assert "grad_cam: No space left on device" in record.getMessage()
    assert recorder.has_settled(0)
    recorder.close()


def test_an_error_that_other_ranks_may_not_know_is_raised_whatever_losses_cost(
    world: World, run: RunDirectory
) -> None:
    recorder = Recorder(world, run, recording=Recording(on_error="warn"))
    with pytest.raises(RuntimeError, match="this rank alone"):
        recorder.lose(make_header(N_SAMPLES, SHAPE), RuntimeError("this rank alone"))
    recorder.close()


def test_older_epochs_go_when_a_newer_one_is_committed_whole(world: World, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run", retention=Retention(last=1))
    run.open()
    recorder = Recorder(world, run, [Seen(full_at(1, "grad_cam"))], Recording(on_error="warn"))
    left = []
    for epoch in (0, 1, 2):
        for method in ("grad_cam", "integrated_gradients"):
            _merge(recorder, epoch=epoch, method=method)
        recorder.settle()
        left.append(open_explanations(run.path).epochs)
    recorder.close()
    assert left == [[0], [0, 1], [2]]


def test_what_is_under_way_is_committed_before_an_error_ends_the_job(
    world: World, run: RunDirectory
) -> None:
    recorder = Recorder(world, run)
    _merge(recorder)
    world.finish(RuntimeError("a callback has failed"))
    assert open_explanations(run.path).epochs == [0]
    recorder.close()


def test_closing_discards_what_was_not_committed_and_frees_its_rows(
    world: World, run: RunDirectory
) -> None:
    recorder = Recorder(world, run)
    buffer = _merge(recorder)
    recorder.close()
    recorder.close()
    assert open_explanations(run.path).epochs == []
    assert leftovers(run.explanations_dir / "epochs") == []
    assert world.under_way == []
    with pytest.raises(ValueError, match="closed file"):
        buffer.read(0, 1)
