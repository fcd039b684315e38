"""Explains a model's probe on all ranks: shard, compute, agree, merge, commit, show. As a function, and as a Keras callback."""

import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from jaxtyping import Float32

from hvd_xai import provenance, rows
from hvd_xai.checkpoint.arrays import shard_rows
from hvd_xai.checkpoint.retention import Retention
from hvd_xai.checkpoint.run import probe_digest
from hvd_xai.checkpoint.schema import Header, RankRows, encode, row_dtype
from hvd_xai.compute import Compute, Predict, Predicted
from hvd_xai.loading import load_method
from hvd_xai.merge import Spool
from hvd_xai.recording import Merge, OnError, Recorder
from hvd_xai.sinks import Sink
from hvd_xai.sinks.checkpoint import Checkpoint
from hvd_xai.types import Attribution, Json, Probe, Progress, Score, Silent
from hvd_xai.world import World, is_elastic

log = logging.getLogger(__name__)

BLOCK_BYTES = 32 * 2**20
BLOCK_SAMPLES = 64  # of one step of the progress bar, at most
SHARDS_A_RANK = 16  # Zarr shards, from which on ranks are cut between them: then none has a sixteenth more to compute than another


@dataclass(slots=True)
class Summary:
    """What one explanation of the probe came to; the same on every rank.

    Attributes:
        convergence_delta: mean magnitude of each method's convergence delta over the probe, by method; of those that have one.
        seconds: this rank's seconds by stage: attributing, merging, writing.
    """

    convergence_delta: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: {"attributing": 0.0, "merging": 0.0, "writing": 0.0})

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the seconds that a block takes to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started


def _agree_on(world: World, phase: str, digest: str, complaint: str) -> None:
    """Raises on every rank unless all have the same digest. Collective: every rank must call this."""
    digests = world.allgather(phase, digest)
    odd = next((rank for rank, theirs in enumerate(digests) if theirs != digests[0]), None)
    world.agree(phase, None if odd is None else ValueError(f"rank {odd} differs from rank 0: {complaint}"))


def cut(n_samples: int, size: int, shard: int) -> list[int]:
    """Returns the rows that the ranks' shares begin at, and last `n_samples`: as even as can be, between Zarr shards where those are many.

    A cut between Zarr shards spares moving the rest of one, some milliseconds, but computing is what takes long: it must stay even.

    Args:
        n_samples: of the probe.
        size: ranks.
        shard: rows of a Zarr shard.
    """
    n_shards = -(-n_samples // shard)
    unit = shard if n_shards >= SHARDS_A_RANK * size else 1
    return [min(n_samples, unit * (-(-n_samples // unit) * rank // size)) for rank in range(size + 1)]


class Plan:
    """What is explained, with what, and where it goes; checked and compiled once, run at every epoch. Collective: every rank must make one.

    Args:
        model: a built Keras model; every rank's has the same weights.
        probe: the examples; the same on every rank, each computes its share.
        methods: names of methods, or functions of `hvd_xai.attributions` with options bound by `functools.partial`.
        world: the ranks.
        checkpoint: where explanation checkpoints are committed: a run directory, which must not hold a run yet, or a `Checkpoint`.
        sinks: called on the root with each committed explanation.
        progress: where the root says how far it is.
        merge: who writes the attributions: `root` alone, which then receives them all; each rank its own Zarr shards, `direct`, where they
            share a filesystem; `auto` finds out whether they do. The bytes on disk are the same.
        retention: which epochs are kept when another one is committed; all of them if None.
        overlap: files are written, and sinks called, by a thread, until the next `run` or `close`. In elastic jobs, whose ranks may be gone
            by then, never.
        on_error: what an explanation that fails does on all ranks: "raise", or "warn" on the root and go on. What is found out before the
            first one is always raised.

    Attributes:
        computes: the compiled methods, in the order given.

    Raises:
        PeerError: on all ranks, if the probe or a method is not right for the model, the ranks' probes differ, or the run cannot be opened.
    """

    def __init__(
        self,
        model: "keras.Model",
        probe: Probe,
        methods: Sequence[Attribution | str],
        *,
        world: World,
        checkpoint: Checkpoint | str | Path,
        sinks: Sequence[Sink] = (),
        progress: Progress | None = None,
        merge: Merge = "auto",
        retention: Retention | None = None,
        overlap: bool = False,
        on_error: OnError = "raise",
    ) -> None:
        self._model, self._probe, self._world = model, probe, world
        self._methods = (methods,) if isinstance(methods, str) else tuple(methods)
        self._micro_batch = rows.fitting(probe.inputs.shape[1:])
        self._checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)
        self._sinks, self._merge, self._retention, self._on_error = tuple(sinks), merge, retention, on_error
        self._overlaps = overlap and not is_elastic(os.environ)
        self._recorder: Recorder
        self._watched = progress if progress is not None else Silent()
        self.computes: list[Compute] = []
        self._predicts: dict[str | Score, Predict] = {}
        self.connect()

    def connect(self) -> None:
        """Shares the probe among the ranks that there are now, after a reset of an elastic job. Collective: every rank must call this.

        What was compiled is kept. A rank that has joined makes its plan meanwhile, in the same steps.

        Raises:
            PeerError: as making a plan.
        """
        probe, world = self._probe, self._world
        if self.computes:  # the ranks are others than those that it was made with
            self._recorder.close()
        self._progress = self._watched if world.is_root else Silent()
        attributions = np.dtype("<f2"), (len(probe), *probe.inputs.shape[1:])
        edges = cut(len(probe), world.size, shard_rows(attributions[1], attributions[0]))
        self._start, self._stop = edges[world.rank : world.rank + 2]
        self._ranks = tuple(RankRows(rank, world.hosts[rank], edges[rank], edges[rank + 1]) for rank in range(world.size))
        with world.together("checking the probe"):
            if not self._methods:
                raise ValueError("no method was given to explain with; pass e.g. methods=[integrated_gradients]")
            probe.check_finite(self._start, self._stop)
            self._digest = probe_digest(probe)
        _agree_on(world, "comparing the probes", self._digest, "the ranks were given different probes; load the same one on every rank.")
        with world.together("compiling the methods"):
            mine = slice(self._start, self._stop)
            shard = (probe.inputs[mine], probe.targets[mine], probe.sample_ids[mine])
            if not self.computes:
                functions = [load_method(method) if isinstance(method, str) else method for method in self._methods]
                self.computes = [Compute(self._model, function, micro_batch=self._micro_batch) for function in functions]
                # one pass through the model for each score that is explained, not for each method
                scores = dict.fromkeys(compute.score for compute in self.computes)
                self._predicts = {score: Predict(self._model, score=score, micro_batch=self._micro_batch) for score in scores}
            for compute in self.computes:
                compute.check(*shard)
            for predict in self._predicts.values():
                predict.check(*shard)
            names = [compute.described[0] for compute in self.computes]
            if len(set(names)) < len(names):
                raise ValueError(f"each method is committed under its name, so it can be given once; got {', '.join(names)}")
        with world.together("opening the run"):
            if world.is_root:
                if world.resets:
                    self._checkpoint.rejoin(world.job)
                self._checkpoint.open(probe, {"methods": dict(compute.described for compute in self.computes), "job": world.job})
        self._recorder = Recorder(
            world, self._checkpoint, self._sinks, merge=self._merge, retention=self._retention, on_error=self._on_error
        )

    def run(self, epoch: int, step: int, metrics: Mapping[str, float] | None = None) -> Summary:
        """Explains the probe with every method, once what was explained before is committed. Collective: every rank must call this.

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
                "the ranks hold different weights, so their explanations would not belong together. Put"
                " BroadcastGlobalVariablesCallback before Explain, and train with a DistributedOptimizer.",
            )
            with self._world.together("predicting the probe"):
                predicted = {score: self._predicted(predict) for score, predict in self._predicts.items()}
        for compute in self.computes:
            header = self._header(compute, epoch, step, weights, metrics or {})
            self._explain(compute, header, predicted[compute.score], summary)
        if not self._overlaps:
            with summary.timed("writing"):
                self._recorder.settle()
        return summary

    def advance(self) -> None:
        """Has committed what is written by now; waits for nothing. Collective: every rank must call this.

        Raises:
            PeerError: on all ranks, if any rank could not write.
        """
        self._recorder.advance()

    def has_settled(self, epoch: int) -> bool:
        """Returns whether all of epochs up to this one is committed, or given up; known on the root, as soon as it is so."""
        return self._recorder.has_settled(epoch)

    def close(self) -> None:
        """Waits until all is committed, and closes the sinks. Collective: every rank must call this.

        Raises:
            PeerError: on all ranks, if any rank could not write.
        """
        self._recorder.settle()
        self._recorder.close()
        with self._world.together("closing the sinks"):
            if self._world.is_root:
                for sink in (*self._sinks, self._checkpoint):
                    sink.close()

    def _predicted(self, predict: Predict) -> Predicted:
        probe = self._probe
        blocks = [
            predict(probe.inputs[start:stop], probe.targets[start:stop])
            for start, stop in self._blocks(probe.inputs.shape[1:], predict.micro_batch)
        ]
        return Predicted(np.concatenate([block.predictions for block in blocks]), np.concatenate([block.scores for block in blocks]))

    def _blocks(self, sample_shape: tuple[int, ...], micro_batch: int) -> list[tuple[int, int]]:
        """Cuts this rank's rows into micro-batches, as many as make a step of the bar; one empty range where it has no rows."""
        whole = min(micro_batch, BLOCK_SAMPLES)
        fitting = BLOCK_BYTES // (4 * whole * max(1, math.prod(sample_shape)))
        step = whole * max(1, min(fitting, BLOCK_SAMPLES // whole))
        return [(start, min(start + step, self._stop)) for start in range(self._start, self._stop, step)] or [(self._start, self._start)]

    def _header(self, compute: Compute, epoch: int, step: int, weights: str, metrics: Mapping[str, float]) -> Header:
        method, options = compute.described
        return Header(
            run=self._checkpoint.run,
            epoch=epoch,
            step=step,
            method=method,
            options=options,
            n_samples=len(self._probe),
            sample_shape=compute.sample_shape,
            world_size=self._world.size,
            ranks=self._ranks,
            weights_digest=weights,
            probe_digest=self._digest,
            versions=provenance.versions(),
            metrics={name: float(value) for name, value in metrics.items() if math.isfinite(value)},
        )

    def _explain(self, compute: Compute, header: Header, predicted: Predicted, summary: Summary) -> None:
        """Attributes with one method, and merges. Collective: every rank must call this."""
        world, method = self._world, header.method
        dtype = row_dtype(
            compute.sample_shape,
            target=self._probe.targets.dtype,
            prediction=predicted.predictions.dtype,
            per_sample=compute.per_sample,
        )
        spool = Spool(dtype)
        try:
            mine: list[Json] = []
            with summary.timed("attributing"), world.together(f"attributing with {method}"):
                self._progress.start(f"epoch {header.epoch}  {method}", self._stop - self._start)
                gaps = self._attribute(compute, spool, predicted)
                mine = [len(gaps), float(np.abs(gaps).sum())]
            n_gaps, total = np.array(world.allgather("gathering convergence deltas", mine), np.float64).sum(axis=0)
            if n_gaps > 0:
                summary.convergence_delta[method] = float(total / n_gaps)
            with summary.timed("merging"):
                self._recorder.merge(header, spool)
        except Exception as error:  # noqa: BLE001 - `lose` raises it, or it is logged
            spool.close()
            self._recorder.lose(header, error)

    def _attribute(self, compute: Compute, spool: Spool, predicted: Predicted) -> Float32[np.ndarray, "g"]:
        """Computes this rank's rows into the spool; returns their convergence deltas, none where the method has none."""
        probe, gaps = self._probe, [np.empty(0, np.float32)]
        labels = probe.targets if probe.labels is None else probe.labels
        for start, stop in self._blocks(compute.sample_shape, compute.micro_batch):
            computed = compute(probe.inputs[start:stop], probe.targets[start:stop], probe.sample_ids[start:stop])
            among_mine = slice(start - self._start, stop - self._start)
            columns = {
                "sample_id": probe.sample_ids[start:stop],
                "target": probe.targets[start:stop],
                "label": labels[start:stop],
                "prediction": predicted.predictions[among_mine],
                "score": predicted.scores[among_mine],
                **computed.per_sample,
            }
            spool.append(encode(spool.dtype, computed.attributions, rank=self._world.rank, **columns))
            gaps.append(np.asarray(computed.per_sample.get("convergence_delta", gaps[0]), np.float32))
            self._progress.advance(stop - start)
        return np.concatenate(gaps)


def explain(
    model: "keras.Model",
    probe: Probe,
    methods: Sequence[Attribution | str],
    *,
    world: World,
    checkpoint: Checkpoint | str | Path,
    sinks: Sequence[Sink] = (),
    epoch: int = 0,
    step: int = 0,
    progress: Progress | None = None,
    merge: Merge = "auto",
) -> Summary:
    """Explains a probe once. Collective: every rank must call this.

    Args and errors are those of `Plan` and `Plan.run`.
    """
    plan = Plan(model, probe, methods, world=world, checkpoint=checkpoint, sinks=sinks, progress=progress, merge=merge)
    summary = plan.run(epoch, step)
    plan.close()
    return summary


class Explain(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
    """Explains the probe at the end of epochs and commits the result, while training goes on unchanged.

    While the next epoch trains, a thread writes the files; they are committed some batches later, and the last ones when training ends.
    Where `fit` ends with an error, what was not committed is lost.

    Put it after the callbacks that make the ranks' state equal. It adds `convergence_delta` to the epoch's logs, the mean magnitude over
    methods that have one, the same on every rank, so that later callbacks can decide by it.

    Args:
        probe: the examples; the same on every rank.
        methods: names of methods, or functions of `hvd_xai.attributions` with options bound by `functools.partial`.
        world: the ranks, as `hvd_xai.keras.init()` returned them.
        checkpoint: where explanation checkpoints are committed: a run directory, which must not hold a run yet, or a `Checkpoint`.
        sinks: called on the root with each committed explanation, by the thread that writes: they must touch files only.
        every: explains after each `every`-th epoch, and after the last one, where training stops early too: then with the weights that it
            ends with.
        progress: where the root says how far it is.
        merge: who writes the attributions, as `Plan` says.
        retention: which epochs are kept when another one is committed, such as `Retention(last=5, best=("val_loss", "min"))`; all if None.
        overlap: False has everything written before the next epoch begins, and sinks called in the thread that trains.
        on_error: what an explanation that fails does, as on a full disk: "raise" ends training, "warn" loses it and says so.

    Raises:
        ValueError: if `every` is less than 1.
    """

    def __init__(
        self,
        probe: Probe,
        methods: Sequence[Attribution | str],
        *,
        world: World,
        checkpoint: Checkpoint | str | Path,
        sinks: Sequence[Sink] = (),
        every: int = 1,
        progress: Progress | None = None,
        merge: Merge = "auto",
        retention: Retention | None = None,
        overlap: bool = True,
        on_error: OnError = "raise",
    ) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"every must be 1 or more epochs; got {every}")
        self.every = every
        self.summary: Summary | None = None
        store = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)
        self._plan_of: Callable[[keras.Model], Plan] = lambda model: Plan(
            model,
            probe,
            methods,
            world=world,
            checkpoint=store,
            sinks=sinks,
            progress=progress,
            merge=merge,
            retention=retention,
            overlap=overlap,
            on_error=on_error,
        )
        self._plan: Plan | None = None
        self._left_out: int | None = None
        self._n_batches = 0

    def has_settled(self, epoch: int) -> bool:
        """Returns whether all of epochs up to this one is committed, or given up; known on the root, as soon as it is so."""
        return self._plan is None or self._plan.has_settled(epoch)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002 - Keras calls it so
        """Checks everything before the first epoch. Collective: every rank must call this."""
        if self._plan is None:
            self._plan = self._plan_of(self.model)
        else:  # the last fit was broken off, as when an elastic job loses a host
            self._plan.connect()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Counts batches anew."""
        self._n_batches = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Has committed what was written meanwhile. Collective: every rank must call this.

        The ranks ask each other after 1, 2, 4, 8, ... batches: seldom enough to cost nothing, and often enough that no more than half an
        epoch is lost with a job that dies.
        """
        self._n_batches += 1
        if self._plan is not None and self._n_batches & (self._n_batches - 1) == 0:
            self._plan.advance()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Explains. Collective: every rank must call this."""
        self.summary = None
        last = epoch + 1 == self.params.get("epochs")
        self._left_out = None if last or (epoch + 1) % self.every == 0 else epoch
        if self._plan is None or self._left_out is not None:
            return
        self.summary = self._plan.run(epoch, int(self.model.optimizer.iterations), logs)
        if logs is not None and self.summary.convergence_delta:
            logs["convergence_delta"] = float(np.mean(list(self.summary.convergence_delta.values())))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Explains an epoch that training stopped at early, and waits until all is committed. Collective: every rank must call this."""
        if self._plan is not None:
            if self._left_out is not None:
                self.summary = self._plan.run(self._left_out, int(self.model.optimizer.iterations))
                self._left_out = None
            self._plan.close()
            self._plan = None
