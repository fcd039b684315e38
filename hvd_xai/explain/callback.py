"""Explains a model's probe on all ranks, as a function and as a Keras callback."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from hvd_xai.checkpoint.run_directory import RunDirectory
from hvd_xai.explain.estimate import Estimate, estimate
from hvd_xai.explain.runner import Plan, Summary
from hvd_xai.lookup.resolve import resolve
from hvd_xai.probe.probe import Probe
from hvd_xai.protocols import Methods, Progress, Sink
from hvd_xai.ranks.world import World
from hvd_xai.recording.recorder import Merge, OnError, Recorder, Recording
from hvd_xai.recording.unfinished_rows import RowFiles
from hvd_xai.tracing.precision import Precision


def explain(
    model: "keras.Model",
    probe: Probe,
    methods: Methods,
    *,
    world: World,
    run: RunDirectory | str | Path,
    sinks: Sequence[Sink] = (),
    epoch: int = 0,
    step: int = 0,
    progress: Progress | None = None,
    precision: Precision | None = None,
    row_files: RowFiles | None = None,
    merge: Merge = "auto",
) -> Summary:
    """Explains a probe once. Collective: every rank must call this.

    Args and errors are those of `Plan` and `Plan.run`, and `merge` that of `Recorder`.
    """
    with world.together("resolving the methods"):
        resolved = resolve(methods)
    plan = Plan(
        model,
        probe,
        resolved,
        world=world,
        run=run,
        sinks=sinks,
        progress=progress,
        precision=precision,
        row_files=row_files,
        recorder=partial(Recorder, recording=Recording(merge=merge)),
    )
    summary = plan.run(epoch, step)
    plan.close()
    return summary


class Explain(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
    """Explains the probe at the end of epochs and commits the result, while training goes on
    unchanged.

    While the next epoch trains, a thread writes the files; they are committed some batches later,
    and the last ones when training ends. Where an uncaught error ends the job, what is on its way
    is still committed if all ranks raise that error, as a `PeerError`; if one rank alone does, what
    the root knows to be written is. The rest is lost, as all of it is where the script catches the
    error, or ranks are killed: launchers do so when they are told to end.

    Put it after the callbacks that make the ranks' state equal. It adds `convergence_delta` to the
    epoch's logs, the mean magnitude over methods that have one, the same on every rank, so that
    later callbacks can decide by it.

    Args:
        probe: the examples; the same on every rank.
        methods: names of methods, or functions of `hvd_xai.attributions` with options bound by
            `functools.partial`; or a mapping that says what each is committed under, as `Plan`
            says.
        world: the ranks, as `hvd_xai.keras.init()` returned them.
        run: the run that explanations are committed to: a `RunDirectory`, or the path of one that
            must not hold a run yet.
        sinks: called on the root with the run and each committed explanation, by the thread that writes: they
            must touch files only.
        every: explains after each `every`-th epoch, and after the last one, where training stops
            early too: then with the weights that it ends with.
        progress: where the root says how far it is; `hvd_xai.cli.console.progress()`, a context
            manager, gives a bar.
        precision: `bfloat16` to explain in it, as `Plan` says.
        merge: who writes the attributions, as `Recorder` says.
        overlap: False has everything written, and shown to the sinks, before the next epoch begins.
        on_error: what an explanation that fails does, as on a full disk: "raise" ends training,
            "warn" loses it and says so.

    Raises:
        ValueError: if `every` is less than 1.
    """

    def __init__(
        self,
        probe: Probe,
        methods: Methods,
        *,
        world: World,
        run: RunDirectory | str | Path,
        sinks: Sequence[Sink] = (),
        every: int = 1,
        progress: Progress | None = None,
        precision: Precision | None = None,
        merge: Merge = "auto",
        overlap: bool = True,
        on_error: OnError = "raise",
    ) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"every must be 1 or more epochs; got {every}")
        self.every = every
        resolved = resolve(methods)
        self._estimate_of = partial(
            estimate, probe=probe, methods=resolved, world=world, precision=precision
        )
        self.summary: Summary | None = None
        directory = run if isinstance(run, RunDirectory) else RunDirectory(run)
        self._plan_of: Callable[[keras.Model], Plan] = lambda model: Plan(
            model,
            probe,
            resolved,
            world=world,
            run=directory,
            sinks=sinks,
            progress=progress,
            precision=precision,
            recorder=partial(Recorder, recording=Recording(merge=merge, on_error=on_error)),
            overlap=overlap,
        )
        self._plan: Plan | None = None
        self._left_out: int | None = None
        self._n_batches = 0

    def has_settled(self, epoch: int) -> bool:
        """Returns whether all of epochs up to this one is committed, or given up; known on the
        root, as soon as it is so.
        """
        return self._plan is None or self._plan.has_settled(epoch)

    def estimate(self, model: "keras.Model") -> list[Estimate]:
        """Estimates what explaining an epoch will take, and explains nothing.

        Collective: every rank must call this.
        """
        return self._estimate_of(model)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Checks everything before the first epoch. Collective: every rank must call this."""
        if self._plan is None:
            self._plan = self._plan_of(self.model)
        else:  # the last fit was broken off, as when an elastic job loses a host
            self._plan.connect()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Counts batches anew."""
        self._n_batches = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Has committed what was written meanwhile. Collective: every rank must call this.

        The ranks ask each other after 1, 2, 4, 8, ... batches: seldom enough to cost nothing, and
        often enough that no more than half an epoch is lost with a job that dies.
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
            logs["convergence_delta"] = float(
                np.mean(list(self.summary.convergence_delta.values()))
            )

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Explains an epoch that training stopped at early, and waits until all is committed.

        Collective: every rank must call this.
        """
        if self._plan is not None:
            if self._left_out is not None:
                self.summary = self._plan.run(self._left_out, int(self.model.optimizer.iterations))
                self._left_out = None
            self._plan.close()
            self._plan = None
