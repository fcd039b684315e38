"""Starts, resumes and overwrites the explanations of a run, and writes to them."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from hvd_xai.checkpoint.explanation import Explanation
from hvd_xai.checkpoint.gaps import GAPS, merge_gaps, prune_gaps
from hvd_xai.checkpoint.integrity import read_record
from hvd_xai.checkpoint.json_record import SCHEMA, seal, unseal
from hvd_xai.checkpoint.layout import EPOCHS, EXPLANATIONS, RUN
from hvd_xai.checkpoint.listing import is_present
from hvd_xai.checkpoint.manifest import Header
from hvd_xai.checkpoint.probe_reader import PROBE
from hvd_xai.checkpoint.probe_writer import another_probe, probe_digest, write_probe
from hvd_xai.checkpoint.reader import Explanations, open_explanations
from hvd_xai.checkpoint.retention import Retention, retain
from hvd_xai.checkpoint.run_lock import RunLock
from hvd_xai.checkpoint.writer import Writer, sweep
from hvd_xai.checkpoint.written_shards import Written
from hvd_xai.errors import CheckpointError, RunExistsError, advise
from hvd_xai.probe.probe import Probe
from hvd_xai.protocols import Json
from hvd_xai.storage.arrays import METADATA, group_metadata
from hvd_xai.storage.durable import (
    STAGING,
    fsync_directory,
    remove_durably,
    remove_trash,
    replace_durably,
    writing,
)

Mode: TypeAlias = Literal["new", "resume", "overwrite"]
"""What to do with a folder that holds a run: refuse it ("new"), continue the run ("resume"), or
delete its explanations ("overwrite")."""


class RunDirectory:
    """A run on disk: the folder with its explanations, its probe and the files of sinks.

    Every rank may hold a `RunDirectory`, because making one touches no file; only the root opens it
    and writes.

    Args:
        path: folder of the run.
        mode: what to do with a folder that holds a run. "new" refuses it, "overwrite" deletes its
            explanations, and "resume" continues it. An epoch that a resumed run explains again
            replaces the committed one, whose weights were lost with the job that died.
        retention: rules by which epochs are kept when a newer one is committed; None keeps all.
        config: settings that the run is started with, stored in `run.json`.

    Attributes:
        path: folder of the run.
        retention: rules by which epochs are kept, or None.

    Example:
        >>> run = RunDirectory("runs/demo", config={"seed": 1})
        >>> run.name
        'demo'
        >>> explanations_dir = run.open()
        >>> run.explanations().config
        {'seed': 1}
        >>> run.close()
    """

    def __init__(
        self,
        path: str | Path,
        *,
        mode: Mode = "new",
        retention: Retention | None = None,
        config: Mapping[str, Json] | None = None,
    ) -> None:
        self.path = Path(path)
        self.retention = retention
        self._mode: Mode = mode
        self._config = config or {}
        self._opened: Path | None = None
        self._begun: dict[Path, Writer] = {}
        self._lock: RunLock | None = None
        self._is_rejoined = False

    @property
    def mode(self) -> Mode:
        """What to do with a folder that holds a run."""
        return self._mode

    def __repr__(self) -> str:
        return f"RunDirectory({str(self.path)!r}, mode={self._mode!r})"

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return self.path.resolve().name

    @property
    def explanations_dir(self) -> Path:
        """Path of `<run>/explanations`; this rank may not be able to see it."""
        return self.path / EXPLANATIONS

    def check(self) -> None:
        """Refuses a folder that holds a run if the mode is "new"; writes nothing.

        Call it before long work that would be in vain.

        Raises:
            RunExistsError: if the folder holds a run and the mode is "new".
        """
        check_run(self.path, self._mode)

    def claim(self) -> None:
        """Makes the run's folder and locks other jobs out of it until `close`.

        `open` does so too; call this earlier if anything else is written to the folder first.

        Raises:
            RunExistsError: if the folder holds a run and the mode is "new", or another job writes
                to it.
            CheckpointError: if the place cannot be written.
        """
        self.check()
        if self._lock is None and not self._is_rejoined:
            self._lock = RunLock(self.path)

    def open(self, probe: Probe | None = None, facts: Mapping[str, Json] | None = None) -> Path:
        """Makes the run ready for writers, and stores the probe.

        It may be called again to add a probe or facts; the rest is done once.

        Args:
            probe: examples that will be explained.
            facts: entries to add to the config in `run.json`.

        Returns:
            The path of `<run>/explanations`.

        Raises:
            RunExistsError: if the folder holds a run and the mode is "new", or another job writes
                to it.
            CheckpointError: if the place cannot be written, or the run is of another probe.
        """
        if self._opened is None:
            self.claim()
            self._opened = open_run(self.path, config=self._config, mode=self._mode)
        if probe is not None:
            write_probe(self._opened, probe)
            facts = {**(facts or {}), "probe_digest": probe_digest(probe)}
        if facts:
            add_to_config(self._opened, facts)
        return self._opened

    def rejoin(self, job: str) -> None:
        """Switches to "resume" if this same job began the run before its ranks changed.

        An elastic job may have a new root, to which the run that it continues would look foreign.

        Args:
            job: name of the job, which the run's config stores.
        """
        if job_of(self.path) == job:
            self.close()
            # The rank that was the root before may live on and hold the lock, so none is taken.
            self._mode, self._opened, self._is_rejoined = "resume", None, True

    def begin(self, header: Header, dtype: np.dtype, *, elsewhere: Sequence[str] = ()) -> Writer:
        """Begins a checkpoint, and returns the writer that takes its rows.

        A checkpoint that was begun in the same place and never committed is discarded.

        Args:
            header: facts of the checkpoint that are known before its rows.
            dtype: dtype of the rows.
            elsewhere: fields whose Zarr shards other ranks write with `write_shards`.

        Raises:
            CheckpointError: if the place cannot be written.
        """
        writer = Writer(self.open(), header, dtype, elsewhere=elsewhere)
        self.discard(writer.destination)
        self._begun[writer.destination] = writer
        return writer

    def commit(self, writer: Writer, written: Iterable[Written] = ()) -> Explanation:
        """Commits a checkpoint, and returns the explanation that it holds.

        Args:
            writer: writer that `begin` returned.
            written: Zarr shards that other ranks wrote.

        Raises:
            CheckpointError: if rows are missing, the checkpoint cannot be written, or another
                explanation was committed in its place first.
        """
        path = writer.commit(replace=self._mode == "resume", written=written)
        del self._begun[writer.destination]
        return Explanation(path)

    def discard(self, destination: Path) -> None:
        """Discards the checkpoint that was begun in this place, unless it has been committed."""
        writer = self._begun.pop(destination, None)
        if writer is not None:
            writer.discard()

    def retain(self) -> list[int]:
        """Removes the epochs that the retention does not keep, and returns their numbers.

        Raises:
            CheckpointError: if an epoch cannot be removed.
        """
        if self.retention is None:
            return []
        removed = retain(self.explanations_dir, self.retention)
        left = prune_gaps(self.explanations_dir, removed)
        if left is not None:
            add_to_config(self.explanations_dir, {GAPS: {**left}})
        return removed

    def add_gaps(self, gaps: Mapping[str, Sequence[int]]) -> None:
        """Notes explanations that are lost, so that the run does not look whole.

        Args:
            gaps: epochs that were due and never committed, by method.

        Raises:
            CheckpointError: if `run.json` is damaged, or cannot be written.
        """
        add_to_config(self.explanations_dir, {GAPS: {**merge_gaps(self.explanations_dir, gaps)}})

    def explanations(self) -> Explanations:
        """Opens the committed explanations.

        Raises:
            CheckpointError: if the folder holds no run.
        """
        return open_explanations(self.path)

    def close(self) -> None:
        """Discards every uncommitted checkpoint, and lets other jobs write to the run.

        It may be called twice.
        """
        for destination in list(self._begun):
            self.discard(destination)
        if self._lock is not None:
            self._lock.close()
        self._lock = None


def check_run(path: str | Path, mode: Mode) -> None:
    """Refuses a folder that holds a run if the mode is "new"; writes nothing.

    Raises:
        RunExistsError: if the folder holds a run and the mode is "new".
        ValueError: if there is no such mode.
    """
    if mode not in ("new", "resume", "overwrite"):
        raise ValueError(f"mode must be 'new', 'resume' or 'overwrite'; got {mode!r}")
    if mode == "new" and is_present(Path(path) / EXPLANATIONS / RUN):
        raise RunExistsError(
            f"{path} holds a run already. "
            + advise(
                script="Pass RunDirectory(..., mode='resume') to go on with it, mode='overwrite' to"
                " delete its explanations, or another folder.",
                command="Add --resume to go on with it, --overwrite to delete its explanations, or"
                " give another --output.",
            )
        )


def open_run(path: str | Path, *, config: Mapping[str, Json], mode: Mode = "new") -> Path:
    """Makes `<run>/explanations` ready for writers.

    A place that cannot be written is refused here, before anything is computed.

    Args:
        path: folder of the run, which is made if it is missing.
        config: settings that the run is started with: options, versions, and the probe's digest
            under `probe_digest`. A resumed run keeps the config that it has.
        mode: what to do with a folder that holds a run: "new" refuses it, "resume" continues the
            run, and "overwrite" deletes its explanations.

    Returns:
        The path of `<run>/explanations`.

    Raises:
        RunExistsError: if the folder holds a run and the mode is "new".
        CheckpointError: if the place cannot be written, or the run to resume is of another probe or
            a higher schema.
        ValueError: if there is no such mode, or the config is not JSON.
    """
    check_run(path, mode)
    explanations_dir = Path(path) / EXPLANATIONS
    record = seal(
        {
            "schema": SCHEMA,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "config": config,
        }
    )
    if mode == "resume" and is_present(explanations_dir / RUN):
        _check_probe(explanations_dir, config)
    with writing(explanations_dir):
        if mode == "overwrite":
            _remove(explanations_dir)
        (explanations_dir / EPOCHS).mkdir(parents=True, exist_ok=True)
        replace_durably(explanations_dir / EPOCHS / METADATA, group_metadata({}))
        replace_durably(explanations_dir / METADATA, group_metadata({"hvd_xai_schema": SCHEMA}))
        # The record comes last: a folder that has it is taken for a run.
        if not is_present(explanations_dir / RUN):
            replace_durably(explanations_dir / RUN, record)
        fsync_directory(Path(path))
        sweep(explanations_dir)
    return explanations_dir


def add_to_config(explanations_dir: Path, facts: Mapping[str, Json]) -> None:
    """Adds entries to the config of a run that is open already.

    An existing entry with the same key is replaced.

    Raises:
        CheckpointError: if `run.json` is damaged, or cannot be written.
    """
    record = unseal(read_record(explanations_dir / RUN), str(explanations_dir / RUN))
    config: Json = {**record.mapping("config"), **facts}
    with writing(explanations_dir / RUN):
        replace_durably(
            explanations_dir / RUN,
            seal({"schema": SCHEMA, "created": record.text("created"), "config": config}),
        )


def job_of(path: str | Path) -> str | None:
    """Returns the name of the job that began a run; None if the run's config has none.

    Raises:
        CheckpointError: if `run.json` is damaged.
    """
    record = Path(path) / EXPLANATIONS / RUN
    if not is_present(record):
        return None
    job = unseal(read_record(record), str(record)).mapping("config").get("job")
    return None if job is None else str(job)


def _check_probe(explanations_dir: Path, config: Mapping[str, Json]) -> None:
    """Raises `CheckpointError` if the config names another probe than the run on disk."""
    before = (
        unseal(read_record(explanations_dir / RUN), str(explanations_dir / RUN))
        .mapping("config")
        .get("probe_digest")
    )
    now = config.get("probe_digest")
    if before is not None and now is not None and before != now:
        raise another_probe(explanations_dir, str(before), str(now))


def _remove(explanations_dir: Path) -> None:
    """Removes a run's explanations, which vanish for readers in one step.

    Raises:
        CheckpointError: if the folder holds anything that hvd_xai did not write.
    """
    run_dir = explanations_dir.parent
    remove_trash(run_dir)
    if not is_present(explanations_dir):
        return
    ours = (METADATA, RUN, EPOCHS, PROBE)
    foreign = sorted(
        entry.name
        for entry in explanations_dir.iterdir()
        if entry.name not in ours and not entry.name.startswith(STAGING)
    )
    if foreign:
        raise CheckpointError(
            f"{explanations_dir} holds {', '.join(foreign[:5])}, which hvd_xai did not write; move"
            " that away to overwrite the run"
        )
    remove_durably(explanations_dir)
