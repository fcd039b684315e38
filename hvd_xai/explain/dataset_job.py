"""Explains a saved model over a whole data set, on all ranks and in bounded memory."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import keras

from hvd_xai.checkpoint.run_directory import RunDirectory
from hvd_xai.compute.model_inputs import read_inputs
from hvd_xai.explain.compiled_methods import CompiledMethods
from hvd_xai.explain.estimate import Estimate, estimate
from hvd_xai.explain.runner import Runner
from hvd_xai.explain.targets import predict_targets
from hvd_xai.lookup.resolve import Method
from hvd_xai.probe.dataset_format import Feature, Hints
from hvd_xai.probe.probe import Probe
from hvd_xai.probe.unpack import unpack
from hvd_xai.probe.unpacked import open_unpacked
from hvd_xai.protocols import Progress
from hvd_xai.ranks.world import World
from hvd_xai.recording.recorder import Recording
from hvd_xai.recording.unfinished_rows import UnfinishedRows
from hvd_xai.tracing.precision import Precision, check_precision

UNFINISHED = "unfinished"
"""Folder of a run that holds the data set as it is read, and the rows that are not committed yet;
removed at the end."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set on disk, and how to read it.

    Args:
        path: file or folder that holds it.
        targets: `.npy` file of what to explain of each input, where the data set does not say.
        features: where TFRecord examples hold something, by what that is.

    Example:
        >>> Dataset(Path("x.npy"), targets=Path("y.npy")).features
        {}
    """

    path: Path
    targets: Path | None = None
    features: Mapping[str, Feature] = field(default_factory=dict)


class DatasetJob:
    """Explains a data set once, or estimates what that will take.

    Args:
        model: a built Keras model. For one of several inputs the data set has, in place of
            `inputs`, an array for each by its name.
        methods: resolved methods.
        dataset: the data set. It needs no targets if no method reads them: the model's predictions
            are then taken for target and label.
        run: run to commit to; one whose mode is "resume" goes on behind the rows that a job left
            which was killed.
        world: the ranks.
        precision: `bfloat16` to explain in it; None for the model's own precision.

    Raises:
        ValueError: if there is no such precision.

    Example:
        >>> from hvd_xai.lookup.resolve import resolve
        >>> np.savez("data.npz", inputs=inputs, targets=targets)
        >>> dataset, run = Dataset(Path("data.npz")), RunDirectory("runs/data")
        >>> job = DatasetJob(model, resolve(["saliency"]), dataset, run, world=world)
        >>> len(job.explain())
        4
    """

    def __init__(
        self,
        model: "keras.Model",
        methods: Sequence[Method],
        dataset: Dataset,
        run: RunDirectory,
        *,
        world: World,
        precision: Precision | None = None,
    ) -> None:
        self._precision = check_precision(precision)
        self._model, self._methods, self._dataset = model, tuple(methods), dataset
        self._run, self._world = run, world

    def explain(self, progress: Progress | None = None) -> Probe:
        """Explains the data set and commits the result as epoch 0 of the run.

        Collective: every rank must call this.

        A job that fails leaves what it has computed in the run's folder `unfinished`, so that one
        that resumes the run goes on behind it.

        Args:
            progress: where the root says how far it is; nowhere by default.

        Returns:
            The data set as a probe, on every rank.

        Raises:
            PeerError: on all ranks, if the data set cannot be read or does not fit the model, or
                the run cannot be written. What all ranks meet alike keeps its type.
        """
        world, run = self._world, self._run
        unfinished = run.path / UNFINISHED
        with world.together("looking for a run"):
            if world.is_root:
                run.claim()
                if run.mode == "overwrite":
                    shutil.rmtree(unfinished, ignore_errors=True)
        probe, has_targets = self._read_into(unfinished)
        if not has_targets:
            score = self._methods[0].recorded_score
            probe = predict_targets(self._model, probe, score, world=world)
        runner = Runner(
            CompiledMethods(self._model, probe, self._methods, precision=self._precision),
            world=world,
            run=run,
            recording=Recording(overlap=False),
            progress=progress,
            row_files=UnfinishedRows(unfinished / "rows"),
        )
        runner.run(epoch=0, step=0)
        runner.close()
        self._remove(unfinished)
        return probe

    def estimate(self) -> list[Estimate]:
        """Estimates what explaining the data set will take; explains nothing and leaves nothing.

        Collective: every rank must call this.

        Returns:
            One estimate for each method; the same on every rank.

        Raises:
            PeerError: on all ranks, as `explain` raises it.
        """
        world, run = self._world, self._run
        with world.together("looking for a run"):
            if world.is_root:
                run.check()
        # Beside the run, which must not be made: in the nearest folder that is there.
        above = next(path for path in run.path.absolute().parents if path.is_dir())
        unfinished = above / f".{run.path.name}-{world.job}"
        try:
            probe, _ = self._read_into(unfinished)
            estimates = estimate(
                self._model, probe, self._methods, world=world, precision=self._precision
            )
        except BaseException:
            # The ranks may not be together any more, so each removes what it can.
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        self._remove(unfinished)
        return estimates

    def _read_into(self, unfinished: Path) -> tuple[Probe, bool]:
        """Unpacks the data set once on each host, and opens it on every rank, mapped into memory.

        Collective: every rank must call this.

        Returns:
            The data set as a probe, and whether it has targets.
        """
        world = self._world
        # Hosts may share the folder, so the data of each have a folder of their own.
        unpacked = unfinished / f"data-{_unpacking_rank(world)}"
        has_targets = True
        with world.together("unpacking the data set"):
            if world.local_rank == 0:
                has_targets = unpack(
                    self._dataset.path,
                    unpacked,
                    targets=self._dataset.targets,
                    hints=Hints(self._dataset.features, read_inputs(self._model)),
                    needs_targets=any(method.reads_targets for method in self._methods),
                )
        with world.together("loading the data set"):
            probe = open_unpacked(unpacked)
        return probe, all(world.allgather("asking for targets", has_targets))

    def _remove(self, unfinished: Path) -> None:
        """Removes what was unpacked. Collective: every rank must call this."""
        with self._world.together("removing what was unpacked"):
            if self._world.local_rank == 0:
                # Hosts that share the folder remove it at the same time, and on a network disk,
                # files that are mapped somewhere stay a little longer.
                shutil.rmtree(unfinished, ignore_errors=True)


def _unpacking_rank(world: World) -> int:
    """Returns the rank that unpacks for this one: the first on its host.

    Collective: every rank must call this.
    """
    local_ranks = world.allgather("asking who unpacks", world.local_rank)
    # Several hosts may have one name, as containers do; then it is the nearest such rank before.
    return max(
        rank
        for rank in range(world.rank + 1)
        if local_ranks[rank] == 0 and world.hosts[rank] == world.host
    )
