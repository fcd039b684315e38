"""What an explanation of a probe is made of: shard, compute, agree, merge, commit, show."""

import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import keras
import numpy as np
from jaxtyping import Float32

from hvd_xai import provenance
from hvd_xai.checkpoint.manifest import Header, RankRows
from hvd_xai.checkpoint.rows import encode, row_dtype
from hvd_xai.checkpoint.run_directory import RunDirectory, probe_digest
from hvd_xai.compute.attribute import Compute
from hvd_xai.compute.predict import Predict, Predicted
from hvd_xai.lookup.resolve import Method
from hvd_xai.probe.probe import Probe
from hvd_xai.protocols import Json, Progress, Score, Silent, Sink
from hvd_xai.ranks.launcher import is_elastic
from hvd_xai.ranks.shares import shares
from hvd_xai.ranks.world import World
from hvd_xai.recording.recorder import Recorder
from hvd_xai.recording.row_buffer import RowBuffer
from hvd_xai.recording.unfinished_rows import RowFiles, is_committed, kept_rows
from hvd_xai.tracing import micro_batches
from hvd_xai.tracing.packed_model import of_rows
from hvd_xai.tracing.precision import Precision

log = logging.getLogger(__name__)

BLOCK_BYTES = 32 * 2**20
BLOCK_SAMPLES = 64  # of one step of the progress bar, at most
N_MEASURED = (
    8  # examples whose error is measured, the first of the probe, however many ranks there are
)


@dataclass(slots=True)
class Summary:
    """What one explanation of the probe came to; the same on every rank.

    Attributes:
        convergence_delta: mean magnitude of each method's convergence delta over the probe, by what
            it is committed under; of those that have one.
        seconds: this rank's seconds by stage: attributing, merging, writing.
    """

    convergence_delta: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(
        default_factory=lambda: {"attributing": 0.0, "merging": 0.0, "writing": 0.0}
    )

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the seconds that a block takes to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started


def _agree_on(world: World, phase: str, digest: str, complaint: str) -> None:
    """Raises on every rank unless all have the same digest.

    Collective: every rank must call this.
    """
    digests = world.allgather(phase, digest)
    odd = next((rank for rank, theirs in enumerate(digests) if theirs != digests[0]), None)
    world.agree(
        phase, None if odd is None else ValueError(f"rank {odd} differs from rank 0: {complaint}")
    )


class Plan:
    """What is explained, with what, and where it goes; checked and compiled once, run at every
    epoch. Collective: every rank must make one.

    Args:
        model: a built Keras model; every rank's has the same weights.
        probe: the examples; the same on every rank, each computes its share.
        methods: names of methods, or functions of `hvd_xai.attributions` with options bound by
            `functools.partial`. Each is committed under its own name; to have one several times,
            with other options, pass a mapping of names to them, and those are taken.
        world: the ranks.
        run: the run that explanations are committed to: a `RunDirectory`, or the path of one that
            must not hold a run yet.
        sinks: called on the root with the run and each committed explanation.
        progress: where the root says how far it is.
        precision: `bfloat16` to explain in it, faster and by some percent less exactly; training is
            not touched. How far the first examples of the probe are off is recorded with each
            explanation, as `precision_error`: the relative L2 distance of their
            attributions from those in the model's own precision.
        row_files: where rows are kept until they are committed, so that a job that was killed goes
            on behind them; nowhere if left out. Each method is committed before the next one begins
            then.
        recorder: `Recorder` with options bound by `functools.partial`: who writes, what is kept,
            and what an explanation that fails does. What is found out before the first one is
            always raised.
        overlap: files are written, and sinks called, by a thread, until the next `run` or `close`.
            In elastic jobs, whose ranks may be gone by then, never.

    Attributes:
        computes: the compiled methods, by what they are committed under, in the order given.

    Raises:
        PeerError: on all ranks, if the probe or a method is not right for the model, the ranks'
            probes differ, or the run cannot be opened.
    """

    def __init__(
        self,
        model: "keras.Model",
        probe: Probe,
        methods: Sequence[Method],
        *,
        world: World,
        run: RunDirectory | str | Path,
        sinks: Sequence[Sink] = (),
        progress: Progress | None = None,
        precision: Precision | None = None,
        row_files: RowFiles | None = None,
        recorder: Callable[[World, RunDirectory, Sequence[Sink]], Recorder] = Recorder,
        overlap: bool = False,
    ) -> None:
        self._model, self._probe, self._world = of_rows(model, probe.packing), probe, world
        self._precision, self._row_files = precision, row_files
        self._methods = methods
        self._micro_batch = micro_batches.fitting(probe.inputs.shape[1:])
        self._run = run if isinstance(run, RunDirectory) else RunDirectory(run)
        self._sinks, self._recorder_of = tuple(sinks), recorder
        self._overlaps = overlap and not is_elastic(os.environ)
        self._recorder: Recorder
        self._git_commit: str | None = None  # known on the root, which writes manifests
        self._untold: dict[str, Json] = {}  # what the root is still to add to the run's config
        self._watched = progress if progress is not None else Silent()
        self.computes: dict[str, Compute] = {}
        self._exact: dict[str, Compute] = {}
        self._predicts: dict[str | Score, Predict] = {}
        self.connect()

    def connect(self) -> None:
        """Shares the probe among the ranks that there are now, after a reset of an elastic job.

        Collective: every rank must call this.

        What was compiled is kept. A rank that has joined makes its plan meanwhile, in the same
        steps.

        Raises:
            PeerError: as making a plan.
        """
        probe, world = self._probe, self._world
        if self.computes:  # the ranks are others than those that it was made with
            self._recorder.close()
        self._progress = self._watched if world.is_root else Silent()
        edges = shares(probe, world.size)
        self._start, self._stop = edges[world.rank : world.rank + 2]
        self._ranks = tuple(
            RankRows(rank, world.hosts[rank], edges[rank], edges[rank + 1])
            for rank in range(world.size)
        )
        with world.together("checking the probe"):
            probe.check_finite(self._start, self._stop)
            self._digest = probe_digest(probe)
        _agree_on(
            world,
            "comparing the probes",
            self._digest,
            "the ranks were given different probes; load the same one on every rank.",
        )
        with world.together("compiling the methods"):
            mine = slice(self._start, self._stop)
            shard = (probe.inputs[mine], probe.targets[mine], probe.sample_ids[mine])
            if not self.computes:
                compiled = partial(Compute, self._model, micro_batch=self._micro_batch)
                self.computes = {
                    method.name: compiled(method, precision=self._precision)
                    for method in self._methods
                }
                self._exact = (
                    {}
                    if self._precision is None
                    else {method.name: compiled(method) for method in self._methods}
                )
                # one pass through the model for each score that is explained, not for each method
                scores = dict.fromkeys(method.recorded_score for method in self._methods)
                is_binary = np.issubdtype(probe.targets.dtype, np.integer) and bool(
                    np.isin(probe.targets, (0, 1)).all()
                )
                predicting = partial(
                    Predict, self._model, micro_batch=self._micro_batch, is_binary=is_binary
                )
                self._predicts = {score: predicting(score=score) for score in scores}
            for compute in self.computes.values():
                with compute.method.named_in_errors():
                    compute.check(*shard)
            for predict in self._predicts.values():
                predict.check(*shard)
        with world.together("opening the run"):
            if world.is_root:
                if world.resets:
                    self._run.rejoin(world.job)
                self._git_commit = provenance.git_commit()
                self._run.open(probe, {"job": world.job})
                self._untold = self._facts()
        self._recorder = self._recorder_of(world, self._run, self._sinks)

    def _facts(self) -> dict[str, Json]:
        """Returns what somebody needs to repeat the run, beside what each manifest says."""
        described = {
            name: (compute.method.function, dict(compute.method.options))
            for name, compute in self.computes.items()
        }
        return {
            "methods": {
                name: options if function == name else {function: options}
                for name, (function, options) in described.items()
            },
            "versions": provenance.versions(),
            "hosts": sorted(set(self._world.hosts)),
            "git_commit": self._git_commit,
        }

    def run(self, epoch: int, step: int, metrics: Mapping[str, float] | None = None) -> Summary:
        """Explains the probe with every method, once what was explained before is committed.

        Collective: every rank must call this.

        Args:
            epoch: 0-based.
            step: optimizer updates so far.
            metrics: of the epoch, for the manifest; what is not finite is left out.

        Raises:
            PeerError: on all ranks, if any rank failed; nothing half-written is visible.
        """
        summary = Summary()
        with summary.timed("writing"):
            self._recorder.settle()
        with summary.timed("attributing"):
            with self._world.together("digesting the weights"):
                weights = provenance.weights_digest(self._model)
            _agree_on(
                self._world,
                "comparing the weights",
                weights,
                "the ranks hold different weights, so their explanations would not belong together."
                " Put BroadcastGlobalVariablesCallback before Explain, and train with a"
                " DistributedOptimizer.",
            )
            with self._world.together("predicting the probe"):
                predicted = {
                    score: self._predicted(predict) for score, predict in self._predicts.items()
                }
        for name, compute in self.computes.items():
            header = self._header(name, epoch, step, weights, metrics or {})
            values = predicted[compute.method.recorded_score]
            self._explain(compute, self._exact.get(name), header, values, summary)
        if not self._overlaps:
            with summary.timed("writing"):
                self._recorder.settle()
        return summary

    def advance(self) -> None:
        """Has committed what is written by now; waits for nothing.

        Collective: every rank must call this.

        Raises:
            PeerError: on all ranks, if any rank could not write.
        """
        self._recorder.advance()

    def has_settled(self, epoch: int) -> bool:
        """Returns whether all of epochs up to this one is committed, or given up; known on the
        root, as soon as it is so.
        """
        return self._recorder.has_settled(epoch)

    def close(self) -> None:
        """Waits until all is committed, and closes the sinks.

        Collective: every rank must call this.

        Raises:
            PeerError: on all ranks, if any rank could not write.
        """
        self._recorder.settle()
        self._recorder.close()
        with self._world.together("closing the sinks"):
            if self._world.is_root:
                for sink in self._sinks:
                    sink.close()
                self._run.close()

    def _predicted(self, predict: Predict) -> Predicted:
        probe = self._probe
        blocks = [
            predict(probe.inputs[start:stop], probe.targets[start:stop])
            for start, stop in self._blocks(probe.inputs.shape[1:], predict.micro_batch)
        ]
        return Predicted(
            np.concatenate([block.predictions for block in blocks]),
            np.concatenate([block.scores for block in blocks]),
        )

    def _blocks(self, sample_shape: tuple[int, ...], micro_batch: int) -> list[tuple[int, int]]:
        """Cuts this rank's rows into micro-batches, as many as make a step of the bar; one empty
        range where it has no rows.
        """
        whole = min(micro_batch, BLOCK_SAMPLES)
        fitting = BLOCK_BYTES // (4 * whole * max(1, math.prod(sample_shape)))
        step = whole * max(1, min(fitting, BLOCK_SAMPLES // whole))
        return [
            (start, min(start + step, self._stop)) for start in range(self._start, self._stop, step)
        ] or [(self._start, self._start)]

    def _header(
        self, name: str, epoch: int, step: int, weights: str, metrics: Mapping[str, float]
    ) -> Header:
        compute = self.computes[name]
        return Header(
            run=self._run.name,
            epoch=epoch,
            step=step,
            method=name,
            function=compute.method.function,
            options=compute.method.options,
            n_samples=len(self._probe),
            sample_shape=compute.sample_shape,
            world_size=self._world.size,
            ranks=self._ranks,
            weights_digest=weights,
            probe_digest=self._digest,
            versions={**provenance.versions(), **compute.method.sources},
            metrics={name: float(value) for name, value in metrics.items() if math.isfinite(value)},
            git_commit=self._git_commit,
            attributed_to=compute.attributed_to,
            signed=compute.signed,
            precision=compute.precision,
        )

    def _explain(
        self,
        compute: Compute,
        exact: Compute | None,
        header: Header,
        predicted: Predicted,
        summary: Summary,
    ) -> None:
        """Attributes with one method and merges, and commits at once where rows are kept.

        Collective: every rank must call this.
        """
        try:
            if exact is not None:
                with summary.timed("attributing"):
                    error = self._precision_error(compute, exact)
                    header = replace(header, precision_error=error)
            if self._row_files is not None and self._is_committed(header):
                self._progress.say(f"{header.method} was committed already")
                return
            self._record(compute, header, predicted, summary)
        except Exception as error:  # noqa: BLE001
            self._recorder.lose(header, error)
            return
        if self._row_files is not None:
            with summary.timed("writing"):
                self._recorder.settle()
            with self._world.together("removing the rows that are committed"):
                self._row_files.remove()

    def _record(
        self, compute: Compute, header: Header, predicted: Predicted, summary: Summary
    ) -> None:
        """Attributes with one method, and hands the rows to the recorder.

        Collective: every rank must call this.
        """
        world, method = self._world, header.method
        dtype = row_dtype(
            compute.sample_shape,
            target=self._probe.targets.dtype,
            prediction=predicted.predictions.dtype,
            per_sample=compute.per_sample,
        )
        with world.together("opening the buffer"):
            # not before something is explained: a run that refuses to go on stays as it is
            if self._untold:
                self._run.open(facts=self._untold)
                self._untold = {}
            buffer = (
                RowBuffer(dtype)
                if self._row_files is None
                else self._row_files.open(header, dtype, world.rank)
            )
        try:
            mine: list[Json] = []
            with summary.timed("attributing"), world.together(f"attributing with {method}"):
                n_rows = self._stop - self._start if self._row_files is None else len(self._probe)
                self._progress.start(f"epoch {header.epoch}  {method}", n_rows)
                if len(buffer):
                    log.info(
                        "%d of %d rows of %s are there already",
                        len(buffer),
                        self._stop - self._start,
                        method,
                    )
                gaps = self._attribute(compute, buffer, predicted)
                mine = [len(gaps), float(np.abs(gaps).sum())]
            n_gaps, total = np.array(
                world.allgather("gathering convergence deltas", mine), np.float64
            ).sum(axis=0)
            if n_gaps > 0:
                summary.convergence_delta[method] = float(total / n_gaps)
            with summary.timed("merging"):
                self._recorder.merge(header, buffer)
        except BaseException:
            buffer.close()
            raise

    def _is_committed(self, header: Header) -> bool:
        """Returns whether the root finds this very explanation.

        Collective: every rank must call this.
        """
        found: list[Json] = []
        with self._world.together("looking for what is committed"):
            if self._world.is_root and is_committed(self._run.open(), header):
                found = [True]
        return bool(self._world.allgather("telling what is committed", found)[0])

    def _precision_error(self, compute: Compute, exact: Compute) -> float | None:
        """Returns what the precision does to the probe's first examples: the relative L2 distance;
        None if it is not finite.

        Collective: every rank must call this.
        """
        mine: list[Json] = [0.0, 0.0]
        with self._world.together("measuring the error of the precision"):
            first = slice(self._start, min(self._stop, N_MEASURED))
            if first.start < first.stop:
                examples = (
                    self._probe.inputs[first],
                    self._probe.targets[first],
                    self._probe.sample_ids[first],
                )
                got, want = (
                    one(*examples).attributions.astype(np.float64) for one in (compute, exact)
                )
                mine = [float(((got - want) ** 2).sum()), float((want**2).sum())]
        squares = self._world.allgather("gathering the error of the precision", mine)
        distance, norm = np.array(squares, np.float64).sum(axis=0)
        error = float(np.sqrt(distance / norm)) if norm > 0 else 0.0
        return error if math.isfinite(error) else None

    def _attribute(
        self, compute: Compute, buffer: RowBuffer, predicted: Predicted
    ) -> Float32[np.ndarray, "g"]:
        """Computes this rank's rows into the buffer; returns their convergence deltas, none where
        the method has none.
        """
        probe, gaps, n_said = self._probe, [np.empty(0, np.float32)], 0
        labels = probe.targets if probe.labels is None else probe.labels
        for start, stop in self._blocks(compute.sample_shape, compute.micro_batch):
            among_mine = slice(start - self._start, stop - self._start)
            encoded = kept_rows(buffer, among_mine.start, probe.sample_ids[start:stop])
            if encoded is None:
                computed = compute(
                    probe.inputs[start:stop],
                    probe.targets[start:stop],
                    probe.sample_ids[start:stop],
                )
                columns = {
                    "sample_id": probe.sample_ids[start:stop],
                    "target": probe.targets[start:stop],
                    "label": labels[start:stop],
                    "prediction": predicted.predictions[among_mine],
                    "score": predicted.scores[among_mine],
                    **computed.per_sample,
                }
                encoded = encode(
                    buffer.dtype, computed.attributions, rank=self._world.rank, **columns
                )
                buffer.append(encoded)
            if "convergence_delta" in compute.per_sample:
                gaps.append(np.asarray(encoded["convergence_delta"], np.float32))
            n_done = stop - self._start if self._row_files is None else self._row_files.n_rows()
            self._progress.advance(n_done - n_said)
            n_said = n_done
        return np.concatenate(gaps)
