"""Shows explanations in TensorBoard.

TensorBoard shows pictures of a fixed panel of samples, the distribution of attributions, and
statistics by epoch and method.

This module writes events with TensorBoard's record writer and messages, but not with its file
writer. The file writer uses `tensorboard.compat.tf`, which loads the whole of TensorFlow where that
is installed, and reading checkpoints must not need it.
"""

import itertools
import os
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float32

from hvd_xai.analysis.statistics import Statistics, compute_statistics
from hvd_xai.checkpoint.explanation import Explanation
from hvd_xai.checkpoint.reader import Explanations
from hvd_xai.checkpoint.run_directory import RunDirectory
from hvd_xai.errors import CheckpointError
from hvd_xai.storage.durable import writing
from hvd_xai.views import layout
from hvd_xai.views.contact_sheet import contact_sheet
from hvd_xai.views.samples import read_samples

try:
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary
    from tensorboard.summary.writer.record_writer import RecordWriter
except ImportError as error:
    raise ImportError(
        "the TensorBoard sink needs TensorBoard; install it with: pip install"
        " 'hvd-xai[tensorboard]'"
    ) from error

FOLDER = Path("tensorboard", "explanations")
BLOCK_BYTES = 8 * 2**20

# Two sinks that one process opens within a second need two file names.
_OPENED = itertools.count()
# One bit of sign, 8 of exponent and 3 of mantissa: 8 bins in an octave.
_LEADING_BITS = 12
# The bin of 2 ** -40: smaller magnitudes count as zero. TensorFlow's histograms draw the line at
# 1e-12.
_SMALLEST_BIN = (127 - 40) << 3
_NOT_FINITE_BIN = 255 << 3


class TensorBoard:
    """Shows each committed explanation in TensorBoard: `tensorboard --logdir RUN`.

    Tags begin with the method's name, and the step is the epoch. Each explanation has

    - the scalars `convergence_delta` (mean magnitude), `score` (mean) and, for class ids,
      `accuracy` (share of predictions that are the target);
    - the scalars `drift/cosine`, `drift/relative_l2` and `drift/changed_predictions` since the
      newest earlier epoch, whose checkpoint is read, so that drift goes on in a resumed run;
    - the histogram `attributions`;
    - the image `panel`.

    Events go to `tensorboard/explanations/` in the run. The sink makes no file before the first
    explanation.

    Args:
        n_panel: number of samples that the panel shows; they are spread evenly over the probe and
            are the same at every epoch.

    Raises:
        ValueError: if `n_panel` is negative.

    Example:
        >>> run, sink = RunDirectory("runs/example"), TensorBoard(n_panel=2)
        >>> sink(run, run.explanations().explanation(2, "grad_cam"))
        >>> sink.close()
        >>> [path.name for path in (run.path / "tensorboard").iterdir()]
        ['explanations']
    """

    def __init__(self, *, n_panel: int = 16) -> None:
        if n_panel < 0:
            raise ValueError(f"n_panel must be 0 or more samples; got {n_panel}")
        self._directory: Path | None = None
        self._n_panel = n_panel
        self._events: RecordWriter | None = None

    def __call__(self, run: RunDirectory, explanation: Explanation, /) -> None:
        """Writes the events of an explanation, which are in the file when this returns.

        Raises:
            CheckpointError: if the explanation cannot be read, or its events cannot be written.
        """
        method, epoch = explanation.manifest.method, explanation.manifest.epoch
        explanations = run.explanations()
        summary = Summary()
        for name, value in _scalars(compute_statistics(explanations, explanation)).items():
            summary.value.add(tag=f"{method}/{name}", simple_value=value)
        summary.value.add(
            tag=f"{method}/attributions",
            histo=histogram(block for _, block in explanation.blocks(BLOCK_BYTES)),
        )
        if self._n_panel:
            summary.value.add(
                tag=f"{method}/panel", image=_panel(explanations, explanation, self._n_panel)
            )
        if self._directory != run.path / FOLDER:
            self.close()
            self._directory = run.path / FOLDER
        if self._events is None:
            self._events = self._open(self._directory, epoch)
        self._write(Event(wall_time=time.time(), step=epoch, summary=summary))

    def close(self) -> None:
        """Closes the file of events, if it is open; a later explanation begins a new file."""
        if self._events is not None:
            self._events.close()
            self._events = None

    def _open(self, directory: Path, epoch: int) -> RecordWriter:
        with writing(directory):
            directory.mkdir(parents=True, exist_ok=True)
        who = f"{socket.gethostname()}.{os.getpid()}.{next(_OPENED)}"
        name = f"events.out.tfevents.{int(time.time()):010d}.{who}"
        with writing(directory):
            file: BinaryIO = (directory / name).open("xb")
        self._events = RecordWriter(file)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        # A session that starts at this epoch makes TensorBoard drop what earlier files say of this
        # and later epochs, which a resumed or overwritten run explains again.
        self._write(
            Event(
                wall_time=time.time(), step=epoch, session_log=SessionLog(status=SessionLog.START)
            )
        )
        return self._events

    def _write(self, event: Event) -> None:
        if self._events is None or self._directory is None:
            return
        try:
            with writing(self._directory):
                self._events.write(event.SerializeToString())
                self._events.flush()
        except CheckpointError:
            # TensorBoard reads a file up to a record that a full disk cut off, and nothing behind
            # it: the next explanation begins a new file. Closing writes the rest once more.
            events, self._events = self._events, None
            with suppress(OSError):
                events.close()
            raise


def histogram(blocks: Iterable[Float32[np.ndarray, "..."]]) -> HistogramProto:
    """Counts values in bins an eighth of an octave wide, in one pass and bounded memory.

    Values that are not finite are left out.

    The leading bits of a float are its sign, its exponent and the first bits of its mantissa. They
    serve as the number of its bin: the width of bins grows with magnitude, and no search or
    logarithm is needed.
    """
    counts = np.zeros(1 << _LEADING_BITS, np.int64)
    low, high, total, squares = np.inf, -np.inf, 0.0, 0.0
    for block in blocks:
        values = np.ascontiguousarray(block, np.float32).reshape(-1)
        values = values[np.isfinite(values)]
        if not values.size:
            continue
        bins = (values.view(np.uint32) >> (32 - _LEADING_BITS)).astype(np.uint16)
        counts += np.bincount(bins, minlength=len(counts))
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        total += float(values.sum(dtype=np.float64))
        squares += float(np.square(values, dtype=np.float64).sum())
    positive, negative = np.split(counts, 2)
    zeros = int(positive[:_SMALLEST_BIN].sum() + negative[:_SMALLEST_BIN].sum())
    sized = slice(_SMALLEST_BIN, _NOT_FINITE_BIN)
    edges = (
        (np.arange(_SMALLEST_BIN, _NOT_FINITE_BIN, dtype=np.uint32) << (32 - _LEADING_BITS))
        .view(np.float32)
        .astype(np.float64)
    )
    # Bins in rising order, each with its upper limit. The edge of a bin is its end nearer to zero:
    #
    #   bins     ... -b | -a | zero | a | b ...
    #   limits     -edge b  -edge a  edge a  edge b  ...
    limits = np.concatenate([-edges[::-1], edges, [float(np.finfo(np.float32).max)]])
    heights = np.concatenate([negative[sized][::-1], [zeros], positive[sized]])
    if not heights.any():
        return HistogramProto(min=0.0, max=0.0, bucket_limit=[0.0], bucket=[0.0])
    # Of several empty bins in a row only the last is kept: its limit is where the next bin begins.
    shown = (heights > 0) | (np.append(heights[1:], 0) > 0)
    return HistogramProto(
        min=low,
        max=high,
        num=float(heights.sum()),
        sum=total,
        sum_squares=squares,
        bucket_limit=limits[shown].tolist(),
        bucket=heights[shown].astype(float).tolist(),
    )


def _scalars(found: Statistics) -> dict[str, float]:
    scalars = {
        "score": found.score,
        "accuracy": found.accuracy,
        "convergence_delta": found.convergence_delta,
    }
    if found.drift is not None:
        scalars["drift/cosine"] = found.drift.mean_cosine
        scalars["drift/relative_l2"] = found.drift.relative_l2
        scalars["drift/changed_predictions"] = found.drift.changed_predictions
    return {name: value for name, value in scalars.items() if value is not None}


def _panel(run: Explanations, explanation: Explanation, n_panel: int) -> "Summary.Image":
    rows = np.unique(
        np.linspace(0, explanation.n_samples - 1, min(n_panel, explanation.n_samples)).astype(int)
    )
    probe = run.probe()
    names = () if probe is None else probe.class_names
    manifest = explanation.manifest
    samples = read_samples([explanation], explanation.column("sample_id")[rows], probe)
    image = contact_sheet(
        samples, class_names=names, title=f"{manifest.method} · epoch {manifest.epoch}"
    )
    return Summary.Image(
        height=image.shape[0],
        width=image.shape[1],
        colorspace=3,
        encoded_image_string=layout.png(image),
    )
