"""TensorBoard's events, read back byte by byte and not by the library that wrote them."""

import io
import json
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

from hvd_xai.checkpoint import integrity
from hvd_xai.checkpoint.reader import open_explanations
from hvd_xai.checkpoint.run_directory import RunDirectory
from hvd_xai.sinks.tensorboard import FOLDER, TensorBoard, histogram
from hvd_xai.storage.paths import Place
from hvd_xai.views import pixels
from tests import processes
from tests.runs_under_test import add_explanation, make_probe, make_run

FLOAT32_ROUNDING = 1e-6  # scalars are stored in single precision


def crc32c(data: bytes) -> int:
    """Computes the Castagnoli checksum bit by bit, by RFC 3720, masked as in a TFRecord."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def records(path: Path) -> list[bytes]:
    found, data = [], io.BytesIO(path.read_bytes())
    while header := data.read(12):
        length, checksum = struct.unpack("<QI", header)
        assert checksum == crc32c(header[:8])
        body = data.read(length)
        (checksum,) = struct.unpack("<I", data.read(4))
        if length < 50_000:  # bit by bit takes a second a megabyte
            assert checksum == crc32c(body)
        found.append(body)
    return found


def events(run: Path) -> list[Any]:
    files = sorted(
        (run / "tensorboard").rglob("events.out.tfevents.*"),
        key=lambda path: path.stat().st_mtime_ns,
    )
    return [Event.FromString(record) for file in files for record in records(file)]


def values(run: Path, tag: str) -> dict[int, Any]:
    return {
        event.step: value
        for event in events(run)
        for value in event.summary.value
        if value.tag == tag
    }


def scalars(run: Path, tag: str) -> dict[int, float]:
    return {step: value.simple_value for step, value in values(run, tag).items()}


def show(run: Path, n_panel: int = 2) -> None:
    sink = TensorBoard(n_panel=n_panel)
    for explanation in open_explanations(run):
        sink(RunDirectory(run), explanation)
    sink.close()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", make_probe())


def test_file_begins_as_tensorboard_expects(run: Path) -> None:
    show(run)
    first, second, *_ = events(run)
    assert first.file_version == "brain.Event:2"
    assert second.session_log.status == SessionLog.START


def test_scalars_are_those_of_the_checkpoint(run: Path) -> None:
    show(run)
    for epoch in (0, 1, 2):
        explanation = open_explanations(run).explanation(epoch, "integrated_gradients")
        delta, score = explanation.column("convergence_delta"), explanation.column("score")
        right = explanation.column("prediction") == explanation.column("target")
        for tag, expected in (
            ("convergence_delta", np.abs(delta).mean()),
            ("score", score.mean()),
            ("accuracy", right.mean()),
        ):
            assert scalars(run, f"integrated_gradients/{tag}")[epoch] == pytest.approx(
                float(expected), rel=FLOAT32_ROUNDING
            )
    assert scalars(run, "grad_cam/convergence_delta") == {}


def test_drift_is_against_the_epoch_before(run: Path) -> None:
    show(run)
    cosines = scalars(run, "integrated_gradients/drift/cosine")
    assert set(cosines) == {1, 2}
    first, second = (
        open_explanations(run).explanation(epoch, "integrated_gradients").attributions()[..., 0]
        for epoch in (0, 1)
    )
    a, b = first.reshape(12, -1).astype(float), second.reshape(12, -1).astype(float)
    expected = ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).mean()
    assert cosines[1] == pytest.approx(expected, abs=1e-3), (
        "what is stored as float16 differs by a thousandth at most"
    )
    assert scalars(run, "integrated_gradients/drift/changed_predictions") == pytest.approx(
        {1: 0.0, 2: 4 / 12}, rel=FLOAT32_ROUNDING
    )
    assert set(scalars(run, "integrated_gradients/drift/relative_l2")) == {1, 2}


def test_a_resumed_run_compares_with_the_epoch_before_it_died(run: Path) -> None:
    explanation = open_explanations(run).explanation(2, "integrated_gradients")
    sink = TensorBoard()
    sink(RunDirectory(run), explanation)
    sink.close()
    assert set(scalars(run, "integrated_gradients/drift/cosine")) == {2}
    start = events(run)[1]
    assert (start.step, start.session_log.status) == (
        2,
        SessionLog.START,
    ), "so that TensorBoard drops what was told of epoch 2 before"


def test_another_shape_than_before_is_not_compared(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_explanation(run / "explanations", make_probe(), 3, "grad_cam", (2, 2))
    sink = TensorBoard()
    sink(RunDirectory(run), open_explanations(run).explanation(3, "grad_cam"))
    sink.close()
    assert scalars(run, "grad_cam/drift/cosine") == {}
    assert "grad_cam at epoch 3 is not compared" in caplog.text


def test_panel_is_a_picture_of_the_samples(run: Path) -> None:
    show(run, n_panel=6)
    for method in ("integrated_gradients", "grad_cam"):
        panels = values(run, f"{method}/panel")
        assert set(panels) == {0, 1, 2}
        image = panels[0].image
        picture = Image.open(io.BytesIO(image.encoded_image_string))
        assert picture.format == "PNG"
        assert picture.size == (image.width, image.height)
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 50, "it is not blank"


def test_panel_of_a_method_without_sign_is_drawn_on_the_scale_that_has_none(run: Path) -> None:
    add_explanation(run / "explanations", make_probe(), 3, "squaregrad", (8, 8, 1))
    show(run)
    image = Image.open(io.BytesIO(values(run, "squaregrad/panel")[3].image.encoded_image_string))
    assert (
        (np.asarray(image.convert("RGB")) == pixels.sequential(np.zeros(1, np.float32), 1.0))
        .all(axis=-1)
        .any()
    )


def test_panel_can_be_left_out_and_larger_than_the_probe(run: Path) -> None:
    show(run, n_panel=0)
    assert values(run, "grad_cam/panel") == {}
    show(run, n_panel=1000)
    assert set(values(run, "grad_cam/panel")) == {0, 1, 2}
    with pytest.raises(ValueError, match="n_panel must be 0 or more"):
        TensorBoard(n_panel=-1)


def test_panel_does_without_a_stored_probe(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", make_probe(), epochs=[0], with_probe=False)
    show(run)
    assert set(values(run, "integrated_gradients/panel")) == {0}


def test_histogram_counts_every_attribution(run: Path) -> None:
    show(run)
    for epoch, value in values(run, "integrated_gradients/attributions").items():
        attributions = (
            open_explanations(run).explanation(epoch, "integrated_gradients").attributions()
        )
        assert value.histo.num == sum(value.histo.bucket) == attributions.size
        assert value.histo.sum == pytest.approx(
            float(attributions.sum(dtype=np.float64)), rel=FLOAT32_ROUNDING
        )
        assert (value.histo.min, value.histo.max) == (attributions.min(), attributions.max())


floats = hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(width=32))


@given(floats)
def test_histogram_puts_every_value_between_the_limits_of_its_bin(sample: np.ndarray) -> None:
    counted = histogram([sample[:20], sample[20:]])
    finite = sample[np.isfinite(sample)].astype(float)
    if not finite.size:
        assert counted.num == 0
        return
    limits = np.array(counted.bucket_limit)
    assert np.all(np.diff(limits) > 0)
    lower = np.concatenate([[-np.inf], limits[:-1]])
    for low, high, count in zip(lower, limits, counted.bucket, strict=True):
        inside = (
            ((finite > low) & (finite < high)).sum(),
            ((finite >= low) & (finite <= high)).sum(),
        )
        assert inside[0] <= count <= inside[1]
    assert (counted.num, counted.min, counted.max) == (finite.size, finite.min(), finite.max())
    assert counted.sum_squares == pytest.approx(float(np.square(finite).sum()))


def test_histogram_bins_are_an_eighth_of_an_octave_wide() -> None:
    counted = histogram([np.geomspace(1e-6, 1e6, 100_000).astype(np.float32)])
    limits = np.array(counted.bucket_limit)
    assert np.all(limits[2:-1] / limits[1:-2] <= 1.1251)


def test_events_are_written_when_the_call_returns(run: Path) -> None:
    sink = TensorBoard()
    sink(RunDirectory(run), open_explanations(run).explanation(0, "grad_cam"))
    assert set(scalars(run, "grad_cam/score")) == {0}
    sink.close()


def test_a_closed_sink_goes_on_in_another_file(run: Path) -> None:
    sink = TensorBoard()
    for epoch in (0, 1):  # as two calls of fit do
        sink(RunDirectory(run), open_explanations(run).explanation(epoch, "grad_cam"))
        sink.close()
    assert set(scalars(run, "grad_cam/score")) == {0, 1}
    assert len(list((run / FOLDER).iterdir())) == 2


def test_manifests_read_grow_with_the_epochs_and_not_with_their_square(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    reading = integrity.read_record

    def counted(path: Place) -> bytes:
        read.append(str(path))
        return reading(path)

    monkeypatch.setattr(integrity, "read_record", counted)  # through which each manifest is read

    def n_read(n_epochs: int) -> int:
        """Counts the manifests that are read while so many epochs of an unsigned method are
        committed and shown."""
        run, probe, sink = RunDirectory(tmp_path / str(n_epochs)), make_probe(2), TensorBoard()
        read.clear()
        for epoch in range(n_epochs):
            add_explanation(run.open(), probe, epoch, "grad_cam", (3, 3))
            sink(run, run.explanations().explanation(epoch, "grad_cam"))
        sink.close()
        run.close()
        return len(read)

    # What is committed, and the epoch before that it is compared with.
    assert [n_read(n_epochs) for n_epochs in (10, 20, 40)] == [2 * 10 - 1, 2 * 20 - 1, 2 * 40 - 1]


def test_events_of_another_run_go_beside_that_run(run: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", make_probe(), epochs=[0])
    sink = TensorBoard()
    for path in (run, other):
        sink(RunDirectory(path), open_explanations(path).explanation(0, "grad_cam"))
    sink.close()
    assert set(scalars(run, "grad_cam/score")) == set(scalars(other, "grad_cam/score")) == {0}


def test_neither_tensorflow_nor_mpi_is_loaded(run: Path) -> None:
    script = (
        "import json, sys; from hvd_xai.sinks.tensorboard import TensorBoard; from hvd_xai import"
        f" RunDirectory\nrun, sink = RunDirectory({str(run)!r}), TensorBoard(); [sink(run,"
        " explanation) for explanation in run.explanations()];"
        " sink.close()\nprint(json.dumps(sorted({name.split('.')[0] for name in sys.modules} &"
        " {'tensorflow', 'keras', 'mpi4py', 'horovod'})))"
    )
    said = processes.run([sys.executable, "-W", "error", "-c", script])
    assert said.code == 0, said.stderr
    assert json.loads(said.stdout) == []
