"""Explains the probe while a model trains, as a Keras callback."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from hvd_xai.checkpoint.run_directory import RunDirectory
from hvd_xai.explain.compiled_methods import CompiledMethods
from hvd_xai.explain.estimate import Estimate, estimate
from hvd_xai.explain.runner import Runner
from hvd_xai.explain.summary import Summary
from hvd_xai.lookup.resolve import resolve
from hvd_xai.probe.probe import Probe
from hvd_xai.protocols import Methods, Progress, Sink
from hvd_xai.ranks.world import World
from hvd_xai.recording.recorder import Recording
from hvd_xai.tracing.precision import Precision, check_precision


class Explain(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
    """Explains the probe at the end of epochs and commits the result; training goes on unchanged.

    While the next epoch trains, a thread writes the files. They are committed some batches later,
    the last ones when training ends. If an uncaught error ends the job, explanations on their way
    are still committed where all ranks raise that error, as a `PeerError`; where one rank alone
    raises it, only those that the root knows to be written are. They are lost if the script catches
    the error, or if ranks are killed, as launchers do when they are told to end.

    Put it after the callbacks that make the ranks' state equal. It adds `convergence_delta` to the
    epoch's logs, the mean magnitude over methods that have one, the same on every rank, so that
    later callbacks can decide by it.

    Args:
        probe: the examples; the same on every rank.
        methods: names of methods or functions with options bound by `functools.partial`, each
            committed under its own name; or a mapping from the names to commit under.
        world: the ranks, as `hvd_xai.keras.init()` returned them.
        run: run to commit to: a `RunDirectory`, or the path of a folder that must not hold a run
            yet.
        sinks: called on the root with the run and each committed explanation, by the thread that
            writes: they must touch files only.
        every: number of epochs from one explanation to the next. The last epoch is explained too,
            and where training stops early, with the weights that it ends with.
        recording: how rows are written, and what a failed explanation does to training.
        progress: where the root says how far it is; `hvd_xai.cli.console.progress()`, a context
            manager, gives a bar.
        precision: `bfloat16` to explain in it, faster and by some percent less exactly. How far the
            probe's first examples are off is recorded with each explanation.

    Attributes:
        every: number of epochs from one explanation to the next.
        summary: what the epoch's explanation came to; None for an epoch that is not explained.

    Raises:
        RecipeError: if no method has a given name.
        TypeError: if a method does not take the options that are bound to it.
        ValueError: if a method cannot be told from another or named, `every` is less than 1, or
            there is no such precision.

    Example:
        >>> explain = Explain(probe, ["integrated_gradients"], world=world, run="runs/mine")
        >>> history = model.fit(inputs, targets, epochs=2, verbose=0, callbacks=[explain])
        >>> sorted(history.history)
        ['accuracy', 'convergence_delta', 'loss']
        >>> RunDirectory("runs/mine").explanations().epochs
        [0, 1]
    """

    def __init__(  # noqa: PLR0913  # the public callback says all there is to say, once
        self,
        probe: Probe,
        methods: Methods,
        *,
        world: World,
        run: RunDirectory | str | Path,
        sinks: Sequence[Sink] = (),
        every: int = 1,
        recording: Recording = Recording(),
        progress: Progress | None = None,
        precision: Precision | None = None,
    ) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"every must be 1 or more epochs; got {every}")
        check_precision(precision)
        self.every = every
        self.summary: Summary | None = None
        self._probe, self._methods, self._world = probe, resolve(methods), world
        self._run = run if isinstance(run, RunDirectory) else RunDirectory(run)
        self._sinks, self._recording, self._progress = tuple(sinks), recording, progress
        self._precision = precision
        self._runner: Runner | None = None
        self._left_out: int | None = None
        self._n_batches = 0

    def has_settled(self, epoch: int) -> bool:
        """Returns whether all epochs up to this one are committed or given up; the root knows."""
        return self._runner is None or self._runner.has_settled(epoch)

    def estimate(self, model: "keras.Model") -> list[Estimate]:
        """Estimates what explaining an epoch will take, and explains nothing.

        Collective: every rank must call this.
        """
        return estimate(
            model, self._probe, self._methods, world=self._world, precision=self._precision
        )

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Checks everything before the first epoch. Collective: every rank must call this."""
        if self._runner is not None:
            # The last fit was broken off, as when an elastic job loses a host.
            self._runner.connect()
            return
        self._runner = Runner(
            CompiledMethods(self.model, self._probe, self._methods, precision=self._precision),
            world=self._world,
            run=self._run,
            sinks=self._sinks,
            recording=self._recording,
            progress=self._progress,
        )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Counts batches anew."""
        self._n_batches = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Commits what all ranks have written by now. Collective: every rank must call this.

        The ranks ask each other after 1, 2, 4, 8, ... batches: seldom enough to cost nothing, and
        often enough that no more than half an epoch is lost with a job that dies.
        """
        self._n_batches += 1
        # a power of two has a single bit
        if self._runner is not None and self._n_batches & (self._n_batches - 1) == 0:
            self._runner.advance()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Explains every `every`-th epoch, and the last. Collective: every rank must call this."""
        self.summary = None
        last = epoch + 1 == self.params.get("epochs")
        self._left_out = None if last or (epoch + 1) % self.every == 0 else epoch
        if self._runner is None or self._left_out is not None:
            return
        self.summary = self._runner.run(epoch, int(self.model.optimizer.iterations), logs)
        if logs is not None and self.summary.convergence_delta:
            logs["convergence_delta"] = float(
                np.mean(list(self.summary.convergence_delta.values()))
            )

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Explains an epoch that training stopped at early, and waits until all is committed.

        Collective: every rank must call this.
        """
        if self._runner is None:
            return
        if self._left_out is not None:
            step = int(self.model.optimizer.iterations)
            self.summary = self._runner.run(self._left_out, step)
            self._left_out = None
        self._runner.close()
        self._runner = None
