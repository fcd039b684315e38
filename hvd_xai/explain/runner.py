"""Explains the probe at an epoch: shares it out, computes, merges, commits and shows the result."""

import logging
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hvd_xai import provenance
from hvd_xai.analysis.doubts import Tally
from hvd_xai.checkpoint.manifest import Header
from hvd_xai.checkpoint.rows import row_dtype
from hvd_xai.checkpoint.run_directory import RunDirectory
from hvd_xai.compute.attribute import Compute
from hvd_xai.compute.predict import Predicted
from hvd_xai.explain.compiled_methods import CompiledMethods
from hvd_xai.explain.not_finite import NotFinite
from hvd_xai.explain.recorded_metrics import recorded_metrics
from hvd_xai.explain.rows import compute_rows
from hvd_xai.explain.same_outputs import check_same_outputs, compare_early
from hvd_xai.explain.share import ProbeShare
from hvd_xai.explain.summary import Summary
from hvd_xai.explain.told_doubts import ToldDoubts
from hvd_xai.protocols import Json, Progress, Silent
from hvd_xai.ranks.launcher import is_elastic
from hvd_xai.ranks.world import World
from hvd_xai.recording.recorder import Recorder, Recording
from hvd_xai.recording.row_buffer import RowBuffer
from hvd_xai.recording.sink_calls import check_sinks, close_sinks
from hvd_xai.recording.unfinished_rows import UnfinishedRows, is_committed
from hvd_xai.sinks import Sink
from hvd_xai.views.kind import check_kind

log = logging.getLogger(__name__)


class Runner:
    """Explains the probe at one epoch after another, and records the result.

    Collective: every rank must make one. Making it checks the methods, the probe and the run.

    Args:
        compiled: compiled methods, with the model and the probe.
        world: ranks that share the work.
        run: run to commit to.
        sinks: functions to call on the root with the run and each committed explanation.
        recording: settings of how rows are written, and of what a failed explanation does.
        progress: object that the root tells how far it is; None for silence.
        row_files: files that keep rows until they are committed, so that a later job can continue a
            killed one; None to keep no rows. With such files, each method is committed before the
            next one begins.

    Attributes:
        compiled: compiled methods.

    Raises:
        PeerError: on all ranks, if the probe or a method does not fit the model, the ranks' probes
            differ, or the run cannot be opened.
        TypeError: if a sink cannot be called with a run and an explanation.
    """

    def __init__(
        self,
        compiled: CompiledMethods,
        *,
        world: World,
        run: RunDirectory,
        sinks: Sequence[Sink] = (),
        recording: Recording = Recording(),
        progress: Progress | None = None,
        row_files: UnfinishedRows | None = None,
    ) -> None:
        self.compiled = compiled
        self._world, self._run, self._sinks = world, run, check_sinks(sinks)
        self._recording, self._row_files = recording, row_files
        self._shown = progress if progress is not None else Silent()
        # Only the root sets these, because only the root writes manifests.
        self._git_commit: str | None = None
        self._facts: dict[str, Json] = {}
        self._doubts = ToldDoubts()
        self._recorder = self._open()

    def connect(self) -> None:
        """Shares the probe out anew, after a reset of an elastic job has changed the ranks.

        Collective: every rank must call this. A rank that has just joined makes its runner at the
        same time, which takes the same collective steps. Compiled methods are kept.

        Raises:
            PeerError: on all ranks, if the probe does not fit, the ranks' probes differ, or the run
                cannot be opened.
        """
        self._recorder.close()
        self._recorder = self._open()

    def _open(self) -> Recorder:
        """Shares the probe out, checks the methods, opens the run, and returns its recorder.

        Collective: every rank must call this.
        """
        world = self._world
        self._progress: Progress = self._shown if world.is_root else Silent()
        self._share = ProbeShare.cut(self.compiled.probe, world).agree(world)
        with world.together("compiling the methods"):
            check_kind(self.compiled.probe.facts)
            self.compiled.check(self._share)
        # once here, before anything is trained, and once before the first explanation
        self._compared: str | None = compare_early(self.compiled.model, self._share.probe, world)
        if world.is_root:
            self.compiled.tell_without_names()
        with world.together("opening the run"):
            if world.is_root:
                if world.resets:
                    self._run.rejoin(world.job)
                self._git_commit = provenance.git_commit()
                self._run.open(self.compiled.probe, {"job": world.job})
                self._facts = self._describe()
        return Recorder(world, self._run, self._sinks, self._recording)

    def run(
        self,
        epoch: int,
        step: int,
        metrics: Mapping[str, Any] | None = None,
        *,
        methods: Collection[str] | None = None,
    ) -> Summary:
        """Waits until earlier explanations are committed, then explains the probe by every method.

        Collective: every rank must call this.

        Args:
            epoch: epoch to commit under, 0-based.
            step: number of optimizer updates so far.
            metrics: logs of the epoch, for the manifest, which keeps finite numbers, and arrays of
                numbers as lists.
            methods: names of the methods that explain; None for all.

        Returns:
            A summary of the explanation.

        Raises:
            PeerError: on all ranks, if any rank failed; nothing half-written becomes visible.
        """
        world, summary = self._world, Summary()
        with summary.timed("writing"):
            self._recorder.settle()
        with summary.timed("attributing"):
            with world.together("digesting the weights"):
                weights = provenance.weights_digest(self.compiled.model)
            world.same(
                "comparing the weights",
                weights,
                "the ranks hold different weights, so their explanations would not belong together."
                " Put BroadcastGlobalVariablesCallback before Explain, and train with a"
                " DistributedOptimizer.",
            )
            if self._compared not in {None, weights}:
                check_same_outputs(self.compiled.model, self._share.probe, world)
            self._compared = None
            with world.together("predicting the probe"):
                predicted = self.compiled.predict(self._share)
        recorded = recorded_metrics(metrics or {})
        for name in self.compiled.computes if methods is None else methods:
            compute = self.compiled.computes[name]
            header = self._header(compute, epoch, step, weights, recorded)
            self._explain(compute, header, predicted[compute.method.recorded_score], summary)
        if not self._overlaps:
            with summary.timed("writing"):
                self._recorder.settle()
        return summary

    def advance(self) -> None:
        """Commits every checkpoint that all ranks have finished writing; does not block.

        Collective: every rank must call this.

        Raises:
            PeerError: on all ranks, if any rank could not write.
        """
        self._recorder.advance()

    def has_settled(self, epoch: int) -> bool:
        """Returns whether all epochs up to this one are committed or given up; ask the root."""
        return self._recorder.has_settled(epoch)

    def close(self) -> None:
        """Waits until everything is committed, and closes the sinks and the run.

        Collective: every rank must call this.

        Raises:
            PeerError: on all ranks, if any rank could not write.
        """
        self._recorder.settle()
        self._recorder.close()
        with self._world.together("closing the sinks"):
            if self._world.is_root:
                close_sinks(self._sinks)
                self._run.close()

    @property
    def _overlaps(self) -> bool:
        # In elastic jobs the ranks that hold rows may be gone before these are committed.
        return self._recording.overlap and not is_elastic(os.environ)

    def _describe(self) -> dict[str, Json]:
        """Returns the facts that repeat the run, together with each manifest."""
        return {
            "methods": self.compiled.describe(),
            "versions": provenance.versions(),
            "hosts": sorted(set(self._world.hosts)),
            "git_commit": self._git_commit,
        }

    def _header(
        self, compute: Compute, epoch: int, step: int, weights: str, metrics: Mapping[str, Json]
    ) -> Header:
        """Returns the facts about a method's explanation that are known before its rows."""
        return Header(
            run=self._run.name,
            epoch=epoch,
            step=step,
            method=compute.method.name,
            function=compute.method.function,
            options=compute.method.options,
            n_samples=len(self._share.probe),
            sample_shape=compute.sample_shape,
            world_size=self._world.size,
            ranks=self._share.ranks,
            weights_digest=weights,
            probe_digest=self._share.digest,
            versions={**provenance.versions(), **compute.method.sources},
            metrics=metrics,
            git_commit=self._git_commit,
            attributed_to=compute.attributed_to,
            signed=compute.signed,
            score_facts=self.compiled.score_facts(compute.method.recorded_score),
            channels=self.compiled.channels(compute.method),
            precision=compute.precision,
        )

    def _explain(
        self, compute: Compute, header: Header, predicted: Predicted, summary: Summary
    ) -> None:
        """Attributes with one method and merges; if rows are kept in files, commits at once.

        Collective: every rank must call this.
        """
        world = self._world
        try:
            if compute.precision is not None:
                with summary.timed("attributing"):
                    header = self._with_precision_error(header)
            if self._row_files is not None and self._is_committed(header):
                self._progress.say(f"{header.method} was committed already")
                return
            self._record(compute, header, predicted, summary)
        except Exception as error:  # noqa: BLE001  # the recorder raises it, or bears the loss
            self._recorder.lose(header, error)
            return
        if self._row_files is not None:
            with summary.timed("writing"):
                self._recorder.settle()
            with world.together("removing the rows that are committed"):
                self._row_files.remove()

    def _record(
        self, compute: Compute, header: Header, predicted: Predicted, summary: Summary
    ) -> None:
        """Attributes with one method, and hands the rows to the recorder.

        Collective: every rank must call this.
        """
        world, method, share = self._world, header.method, self._share
        dtype = row_dtype(
            compute.sample_shape,
            target=share.probe.targets.dtype,
            prediction=predicted.predictions.dtype,
            per_sample=compute.per_sample,
            channels_first=header.channels_first,
        )
        with world.together("opening the buffer"):
            # Facts are written once the first method starts: a run that cannot be continued stays
            # as it is.
            if self._facts:
                self._run.open(facts=self._facts)
                self._facts = {}
            buffer = (
                RowBuffer(dtype)
                if self._row_files is None
                else self._row_files.open(header, dtype, world.rank)
            )
        try:
            with summary.timed("attributing"), world.together(f"attributing with {method}"):
                deltas, tally, not_finite = self._fill(buffer, compute, header, predicted)
            mine = [float(len(deltas)), float(np.abs(deltas).sum()), *tally.numbers()]
            numbers = world.allgather("gathering convergence deltas and doubts", mine)
            n_deltas, total = np.array([of_rank[:2] for of_rank in numbers]).sum(axis=0)
            if n_deltas > 0:
                summary.convergence_delta[method] = float(total / n_deltas)
            tally = Tally.of_all([of_rank[2:] for of_rank in numbers])
            header = self._doubts.tell(header, tally, is_root=world.is_root)
            not_finite.warn(header, world)
            with summary.timed("merging"):
                self._recorder.merge(header, buffer)
        except BaseException:
            buffer.close()
            raise

    def _fill(
        self, buffer: RowBuffer, compute: Compute, header: Header, predicted: Predicted
    ) -> tuple[np.ndarray, Tally, NotFinite]:
        """Computes this rank's rows into the buffer; returns convergence deltas and doubts."""
        share, method, not_finite = self._share, header.method, NotFinite()
        tally = Tally(self.compiled.explained_facts(compute.method))
        # Rows that are kept on disk tell the root how far all ranks are, others how far it is.
        n_rows = len(share) if self._row_files is None else len(share.probe)
        self._progress.start(f"epoch {header.epoch}  {method}", n_rows)
        if len(buffer):
            log.info("%d of %d rows of %s are there already", len(buffer), len(share), method)
        n_shown = 0

        def report(n_mine: int) -> None:
            nonlocal n_shown
            n_done = n_mine if self._row_files is None else self._row_files.n_rows()
            self._progress.advance(n_done - n_shown)
            n_shown = n_done

        deltas = compute_rows(
            compute,
            share,
            predicted,
            buffer,
            report,
            tally.add,
            not_finite=not_finite,
            channels_first=header.channels_first,
        )
        return deltas, tally, not_finite

    def _is_committed(self, header: Header) -> bool:
        """Returns whether the root finds this same explanation committed and undamaged.

        Collective: every rank must call this.
        """
        found = False
        with self._world.together("looking for what is committed"):
            if self._world.is_root:
                found = is_committed(self._run.open(), header)
        return self._world.from_root("telling what is committed", found)

    def _with_precision_error(self, header: Header) -> Header:
        """Returns the header with the relative L2 error of the precision.

        Collective: every rank must call this. An error that is not finite is recorded as None.
        """
        mine = (0.0, 0.0)
        with self._world.together("measuring the error of the precision"):
            mine = self.compiled.precision_errors(header.method, self._share)
        squares = self._world.allgather("gathering the error of the precision", mine)
        distance, norm = np.array(squares, np.float64).sum(axis=0)
        error = float(np.sqrt(distance / norm)) if norm > 0 else 0.0
        return replace(header, precision_error=error if math.isfinite(error) else None)
