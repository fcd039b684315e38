"""Explains the probe while a model trains, as a Keras callback."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from hvd_xai.checkpoint.run_directory import RunDirectory
from hvd_xai.explain.compiled_methods import CompiledMethods
from hvd_xai.explain.estimate import Estimate, estimate
from hvd_xai.explain.lost_epochs import Beginning, explain_lost
from hvd_xai.explain.runner import Runner
from hvd_xai.explain.summary import Summary
from hvd_xai.lookup.resolve import resolve
from hvd_xai.probe.probe import Probe
from hvd_xai.protocols import Methods, Progress
from hvd_xai.ranks.world import World
from hvd_xai.recording.recorder import OnError, Recording
from hvd_xai.recording.sink_calls import check_sinks
from hvd_xai.sinks import Sink
from hvd_xai.tracing.precision import Precision, check_precision


class Explain(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
    """Explains the probe at the end of epochs and commits the result; training goes on unchanged.

    While the next epoch trains, a thread writes the files. They are committed some batches later,
    the last of them when training ends.

    If an uncaught error ends the job, unfinished explanations are still committed, provided that
    all ranks raise the error, as they do a `PeerError`. If a single rank raises it, only
    explanations that the root knows to be written are committed. Unfinished explanations are lost
    if the script catches the error, or if ranks are killed, which launchers do when they are told
    to end. When training goes on, in a run whose mode is "resume", a lost epoch is explained again
    if its weights are those that training goes on with, as they are with BackupAndRestore;
    otherwise a warning names it, and so do `hvd-xai verify` and `show`.

    Put `Explain` after the callbacks that make the ranks' state equal. It adds `convergence_delta`
    to the epoch's logs: the mean magnitude over all methods that have one. The number is the same
    on every rank, so that later callbacks can base decisions on it.

    Args:
        probe: examples to explain; the same on every rank.
        methods: names of methods, or functions with options bound by `functools.partial`, each
            committed under its own name; or a mapping from names to commit under to such methods.
        world: ranks that train, from `hvd_xai.keras.init()`.
        run: run to commit to: a `RunDirectory`, or the path of a folder that must not hold a run
            yet.
        sinks: functions to call on the root with the run and each committed explanation, or objects
            that are called so; their `close`, if they have one, is called at the end. The thread
            that writes calls them, so they must touch files only.
        every: number of epochs from one explanation to the next. The last epoch is always
            explained. If training stops early, its last epoch is explained with the final weights.
        recording: settings of how rows are written, and of what a failed explanation does to
            training.
        progress: object that the root tells how far it is; `hvd_xai.cli.console.progress()`, a
            context manager, makes a progress bar.
        precision: `bfloat16` to explain in it, which is faster and some percent less exact; None
            for the model's own precision. The error on the probe's first examples is recorded with
            each explanation.

    Attributes:
        every: number of epochs from one explanation to the next.
        summary: summary of the epoch's explanation; None for an epoch that is not explained.

    Raises:
        RecipeError: if no method has a given name.
        TypeError: if a method does not take the options that are bound to it, or a sink cannot be
            called with a run and an explanation.
        ValueError: if a method has no name, two methods have the same name, `every` is less than 1,
            or there is no such precision.

    Example:
        >>> explain = Explain(probe, ["integrated_gradients"], world=world, run="runs/mine")
        >>> history = model.fit(inputs, targets, epochs=2, verbose=0, callbacks=[explain])
        >>> sorted(history.history)
        ['accuracy', 'convergence_delta', 'loss']
        >>> RunDirectory("runs/mine").explanations().epochs
        [0, 1]
    """

    def __init__(  # noqa: PLR0913  # users give all of this to one callback
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
        self._sinks, self._recording, self._progress = check_sinks(sinks), recording, progress
        self._precision = precision
        self._runner: Runner | None = None
        self._left_out: int | None = None
        self._n_batches = 0
        self._begins = False

    @property
    def on_error(self) -> OnError:
        """What an explanation that fails does to training, as `Recording` says."""
        return self._recording.on_error

    def has_settled(self, epoch: int) -> bool:
        """Returns whether all epochs up to this one are committed or given up; ask the root."""
        return self._runner is None or self._runner.has_settled(epoch)

    def estimate(self, model: "keras.Model") -> list[Estimate]:
        """Estimates time and size of explaining one epoch, and explains nothing.

        Collective: every rank must call this.
        """
        return estimate(
            model, self._probe, self._methods, world=self._world, precision=self._precision
        )

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Checks everything before the first epoch. Collective: every rank must call this.

        A model that has no weights yet is checked after its first batch.
        """
        self._begins = True
        # Asked on all ranks: some may have joined an elastic job that others were in before.
        built = all(self._world.allgather("looking at the model", bool(self.model.built)))
        if self._runner is not None:
            # The last `fit` was broken off, which happens when an elastic job loses a host.
            self._runner.connect()
        elif built:
            self._open()

    def _open(self) -> Runner:
        """Checks methods, probe and run. Collective: every rank must call this."""
        self._runner = Runner(
            CompiledMethods(self.model, self._probe, self._methods, precision=self._precision),
            world=self._world,
            run=self._run,
            sinks=self._sinks,
            recording=self._recording,
            progress=self._progress,
        )
        return self._runner

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts to count batches at zero; before the first epoch, explains what was lost.

        Collective: every rank must call this.
        """
        self._n_batches = 0
        if self._begins and self._runner is not None:
            self._begins = False
            step, n_steps = int(self.model.optimizer.iterations), self.params.get("steps")
            beginning = Beginning(epoch, step, None if n_steps is None else int(n_steps))
            explain_lost(self._runner, self._run, beginning, every=self.every, world=self._world)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Commits what all ranks have written so far. Collective: every rank must call this.

        The ranks compare notes after 1, 2, 4, 8, ... batches. That is too seldom to cost time, and
        often enough that a job that dies loses at most the work of half an epoch.
        """
        # A model that `fit` builds begins anew: no explanations of before were lost.
        self._begins = False
        runner = self._runner or self._open()
        self._n_batches += 1
        # n & (n - 1) clears the lowest bit of n: the rest is 0 if n is a power of two.
        if self._n_batches & (self._n_batches - 1) == 0:
            runner.advance()

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
        """Explains the epoch at which training stopped early, and waits for all commits.

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
