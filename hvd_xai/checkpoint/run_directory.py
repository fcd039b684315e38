"""Starts, resumes and overwrites the explanations of a run, and stores the probe that they
explain.
"""

import fcntl
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import xxhash

from hvd_xai.checkpoint.integrity import find_damage, read_record
from hvd_xai.checkpoint.json_record import SCHEMA, seal, unseal
from hvd_xai.checkpoint.layout import EXPLANATIONS, LOCK, RUN
from hvd_xai.checkpoint.manifest import MANIFEST, Header
from hvd_xai.checkpoint.probe_reader import PROBE, ProbeReader
from hvd_xai.checkpoint.reader import Explanation, Explanations, open_explanations
from hvd_xai.checkpoint.retention import Retention, retain
from hvd_xai.checkpoint.writer import EPOCHS, Writer, Written, sweep
from hvd_xai.errors import CheckpointError, RunExistsError
from hvd_xai.probe.probe import Probe
from hvd_xai.protocols import Json
from hvd_xai.storage import staging
from hvd_xai.storage.arrays import METADATA, ArrayWriter, create_array, group_metadata
from hvd_xai.storage.durable import (
    STAGING,
    FileEntry,
    digest_file,
    fsync_directory,
    remove_durably,
    remove_trash,
    replace_durably,
    writing,
)

Mode: TypeAlias = Literal["new", "resume", "overwrite"]
"""What to do with a folder that holds a run: refuse it, go on with it, or delete its
explanations."""

_BLOCK_BYTES = 16 * 2**20

log = logging.getLogger(__name__)


class RunDirectory:
    """A run on disk: the folder that holds its explanations, its probe and whatever else is written
    for it.

    Making one touches no file, so that every rank may hold it; the root alone opens it and writes.

    Args:
        path: the run's folder.
        mode: "new" refuses a folder that holds a run, "overwrite" deletes its explanations;
            "resume" goes on with it, and an epoch that is explained again replaces the one that is
            there, because its weights were lost with the job that died.
        retention: which epochs stay when a newer one is committed; all of them if None.
        config: what the run is started with, for `run.json`.

    Attributes:
        path: the run's folder.
        retention: which epochs stay when a newer one is committed.

    Example:
        >>> run = RunDirectory(folder / "demo", mode="new", config={"seed": 1})
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
        self._lock: int | None = None
        self._is_rejoined = False

    @property
    def mode(self) -> Mode:
        """What becomes of explanations that the folder holds already."""
        return self._mode

    def __repr__(self) -> str:
        return f"RunDirectory({str(self.path)!r}, mode={self._mode!r})"

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return self.path.resolve().name

    @property
    def explanations_dir(self) -> Path:
        """`<run>/explanations`, as this rank names it."""
        return self.path / EXPLANATIONS

    def check(self) -> None:
        """Refuses a folder that holds a run if the mode is "new".

        It writes nothing: call it before work that may fail.

        Raises:
            RunExistsError: if the folder holds a run and the mode is "new".
        """
        check_run(self.path, self._mode)

    def claim(self) -> None:
        """Makes the run's folder and keeps other jobs out of it until `close`.

        `open` does so too; call this earlier if something else is put there before that.

        Raises:
            RunExistsError: if the folder holds a run and the mode is "new", or another job writes
                to it.
            CheckpointError: if the place cannot be written.
        """
        self.check()
        if self._lock is None and not self._is_rejoined:
            self._lock = claim(self.path)

    def open(self, probe: Probe | None = None, facts: Mapping[str, Json] | None = None) -> Path:
        """Makes the run ready for writers, and stores the probe; a second call does only what the
        first did not.

        Args:
            probe: the examples that will be explained.
            facts: entries that are added to the config in `run.json`.

        Returns:
            `<run>/explanations`.

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
        """Goes on, whatever the mode, with a run that this very job began before its ranks changed;
        another rank may have begun it.

        Args:
            job: the job's name, as the run's config has it.
        """
        if job_of(self.path) == job:
            self.close()
            # The rank that was the root before may live on and hold the lock, so none is taken.
            self._mode, self._opened, self._is_rejoined = "resume", None, True

    def begin(self, header: Header, dtype: np.dtype, *, elsewhere: Sequence[str] = ()) -> Writer:
        """Starts a checkpoint, to which rows are appended.

        A checkpoint in the same place that was begun before and not committed is discarded.

        Args:
            header: what is known before the rows are.
            dtype: dtype of the rows.
            elsewhere: fields whose Zarr shards others write, as `Writer` says.

        Raises:
            CheckpointError: if it cannot be written.
        """
        writer = Writer(self.open(), header, dtype, elsewhere=elsewhere)
        self.discard(writer.destination)
        self._begun[writer.destination] = writer
        return writer

    def commit(self, writer: Writer, written: Iterable[Written] = ()) -> Explanation:
        """Commits a checkpoint that was begun, and returns it opened.

        Args:
            writer: what `begin` returned.
            written: what others wrote of it.

        Raises:
            CheckpointError: if rows are missing, it cannot be written, or another explanation was
                committed in its place first.
        """
        path = writer.commit(replace=self._mode == "resume", written=written)
        del self._begun[writer.destination]
        return Explanation(path)

    def discard(self, destination: Path) -> None:
        """Discards the checkpoint that was begun for this place and not committed, if any."""
        writer = self._begun.pop(destination, None)
        if writer is not None:
            writer.discard()

    def retain(self) -> list[int]:
        """Removes the epochs that the retention does not keep, and returns them.

        Raises:
            CheckpointError: if they cannot be removed.
        """
        return [] if self.retention is None else retain(self.explanations_dir, self.retention)

    def explanations(self) -> Explanations:
        """Opens the explanations that are committed.

        Raises:
            CheckpointError: if the folder holds no run.
        """
        return open_explanations(self.path)

    def close(self) -> None:
        """Discards every checkpoint that was not committed, and lets other jobs write to the run.

        Safe to call twice.
        """
        for destination in list(self._begun):
            self.discard(destination)
        if self._lock is not None:
            os.close(self._lock)
        self._lock = None


def check_run(path: str | Path, mode: Mode) -> None:
    """Refuses a folder that holds a run where a new one was asked for.

    It writes nothing: call it before work that may fail.

    Raises:
        RunExistsError: if the folder holds a run and the mode is "new".
        ValueError: if the mode is none there is.
    """
    if mode not in ("new", "resume", "overwrite"):
        raise ValueError(f"mode must be 'new', 'resume' or 'overwrite'; got {mode!r}")
    if mode == "new" and (Path(path) / EXPLANATIONS / RUN).exists():
        raise RunExistsError(
            f"{path} holds a run already. Add --resume to go on with it, --overwrite to delete its"
            " explanations, or give another --output."
        )


def claim(path: str | Path) -> int:
    """Claims a run for this process, until it ends or closes what is returned.

    Args:
        path: the run's folder, made if it is not there.

    Returns:
        A file descriptor that holds the lock.

    Raises:
        RunExistsError: if another process has claimed it.
        CheckpointError: if the place cannot be written.
    """
    with writing(Path(path)):
        Path(path).mkdir(parents=True, exist_ok=True)
        descriptor = os.open(Path(path) / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        # the system lets go of it when the process dies
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        os.close(descriptor)
        raise RunExistsError(
            f"another job is writing to {path}. Wait until it ends, or give another --output."
        ) from error
    except OSError as error:
        log.warning(
            "%s cannot be locked (%s): see to it that no other job writes there",
            path,
            error.strerror,
        )
    return descriptor


def open_run(path: str | Path, *, config: Mapping[str, Json], mode: Mode = "new") -> Path:
    """Makes `<run>/explanations` ready for writers; that the place can be written is found out
    here, before anything is computed.

    Args:
        path: the run's folder, made if it is not there.
        config: what the run is started with: options, versions, and the probe's digest under
            `probe_digest`. Resuming keeps what is there.
        mode: "new" refuses a folder that holds a run; "resume" goes on with it, or starts it;
            "overwrite" deletes its explanations.

    Returns:
        `<run>/explanations`.

    Raises:
        RunExistsError: if the folder holds a run and the mode is "new".
        CheckpointError: if the place cannot be written, or the run to resume is of another probe or
            a higher schema.
        ValueError: if the mode is none of these, or the config is not JSON.
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
    if (explanations_dir / RUN).exists() and mode == "resume":
        _check_probe(explanations_dir, config)
    with writing(explanations_dir):
        if mode == "overwrite":
            _remove(explanations_dir)
        (explanations_dir / EPOCHS).mkdir(parents=True, exist_ok=True)
        replace_durably(explanations_dir / EPOCHS / METADATA, group_metadata({}))
        replace_durably(explanations_dir / METADATA, group_metadata({"hvd_xai_schema": SCHEMA}))
        if not (explanations_dir / RUN).exists():
            replace_durably(explanations_dir / RUN, record)
        fsync_directory(Path(path))
        sweep(explanations_dir)
    return explanations_dir


def add_to_config(explanations_dir: Path, facts: Mapping[str, Json]) -> None:
    """Adds to a run's config what became known after it was opened; a key that is there gets the
    new value.

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
    """Returns the job that a run's config says explains it; None if there is no run, or it does not
    say.

    Raises:
        CheckpointError: if `run.json` is damaged.
    """
    record = Path(path) / EXPLANATIONS / RUN
    if not record.exists():
        return None
    job = unseal(read_record(record), str(record)).mapping("config").get("job")
    return None if job is None else str(job)


def _check_probe(explanations_dir: Path, config: Mapping[str, Json]) -> None:
    """Refuses to resume what a config says is of another probe."""
    before = (
        unseal(read_record(explanations_dir / RUN), str(explanations_dir / RUN))
        .mapping("config")
        .get("probe_digest")
    )
    now = config.get("probe_digest")
    if before is not None and now is not None and before != now:
        raise _another_probe(explanations_dir, str(before), str(now))


def _another_probe(explanations_dir: Path, before: str, now: str) -> CheckpointError:
    return CheckpointError(
        f"{explanations_dir} explains another probe: its digest is {before}, this one's {now}."
        " Epochs of one run compare only on one probe: resume with the data the run was started"
        " with, or start another run."
    )


def write_probe(explanations_dir: Path, probe: Probe) -> None:
    """Stores the probe beside the explanations, in bounded blocks; one that is stored already gets
    names at most.

    Args:
        explanations_dir: as `open_run` returns it.
        probe: the examples that are explained.

    Raises:
        CheckpointError: if another probe is stored there, or it cannot be written.
        ValueError: if the probe's inputs are not numbers, or its names too long.
    """
    destination, digest = explanations_dir / PROBE, probe_digest(probe)
    if not destination.exists():
        with writing(destination):
            staged = staging.Staging(explanations_dir, PROBE)
            try:
                _fill(staged.directory, probe, digest)
                staged.publish(destination)
            except (
                FileExistsError
            ):  # another job of this run was first; what it stored is checked below
                pass
            finally:
                staged.discard()
    stored = ProbeReader(destination)
    if stored.digest != digest:
        raise _another_probe(explanations_dir, stored.digest, digest)
    damage = find_damage(destination, stored.files)
    if damage:
        raise CheckpointError(f"{damage[0]}; delete {destination} to have the probe stored again")
    names = {name: given for name, given in _names(probe).items() if given != getattr(stored, name)}
    if names:
        _add_names(destination, names)


def probe_digest(probe: Probe) -> str:
    """Returns the xxh3-128 of the probe's examples, read in bounded blocks; names and words do not
    count.
    """
    digest = xxhash.xxh3_128()
    for name, values in _arrays(probe).items():
        digest.update(f"{name} {_little(values.dtype).str} {values.shape};".encode())
        for block in _blocks(values):
            digest.update(block.tobytes())
    return digest.hexdigest()


def _remove(explanations_dir: Path) -> None:
    """Removes a run's explanations, in one step for those who look; refuses a folder with anything
    else in it.
    """
    run_dir = explanations_dir.parent
    remove_trash(run_dir)
    if not explanations_dir.exists():
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


def _arrays(probe: Probe) -> dict[str, np.ndarray]:
    labels = probe.targets if probe.labels is None else probe.labels
    arrays = {
        "inputs": probe.inputs,
        "targets": probe.targets,
        "labels": labels,
        "sample_id": probe.sample_ids,
    }
    for name, values in arrays.items():
        if values.dtype.kind not in "biuf":
            raise ValueError(
                f"'{name}' of the probe must hold booleans, integers or floating values; got dtype"
                f" {values.dtype}"
            )
    return arrays


def _little(dtype: np.dtype) -> np.dtype:
    return dtype.newbyteorder("<")


def _blocks(values: np.ndarray) -> Iterator[np.ndarray]:
    size = max(1, _BLOCK_BYTES * len(values) // max(1, values.nbytes))
    for start in range(0, len(values), size):
        yield values[start : start + size].astype(_little(values.dtype))


def _fill(directory: Path, probe: Probe, digest: str) -> None:
    """Writes the probe's arrays and metadata, and its manifest last."""
    names: Json = list(probe.class_names)
    (directory / METADATA).write_bytes(
        group_metadata({"class_names": names, "hvd_xai_schema": SCHEMA})
    )
    files = [FileEntry(METADATA, *digest_file(directory / METADATA))]
    arrays = _arrays(probe)
    for name, values in arrays.items():
        axes = ("sample", *(f"axis_{axis}" for axis in range(1, values.ndim)))
        files.append(create_array(directory / name, values.shape, _little(values.dtype), axes))
        writer = ArrayWriter(directory / name, values.shape, _little(values.dtype))
        for block in _blocks(values):
            writer.append(block)
        files += writer.close()
    record: dict[str, Json] = {
        "schema": SCHEMA,
        "n_samples": len(probe),
        "input_shape": probe.inputs.shape[1:],
        "probe_digest": digest,
        "class_names": names,
        "dtypes": {name: _little(values.dtype).str for name, values in arrays.items()},
        "files": [asdict(file) for file in files],
    }
    if probe.packing is not None:
        record["packing"] = asdict(probe.packing)
    record |= _names(probe)
    (directory / MANIFEST).write_bytes(seal(record))


def _names(probe: Probe) -> dict[str, tuple[str, ...]]:
    """Returns the names that the probe was given, feature names or a vocabulary.

    Feature names that follow from the packing are not among them: those may be very many, and are
    not stored twice.
    """
    follow = probe.packing is not None and probe.feature_names == probe.packing.feature_names
    names = {"feature_names": () if follow else probe.feature_names, "vocabulary": probe.vocabulary}
    return {name: given for name, given in names.items() if given}


def _add_names(directory: Path, names: Mapping[str, Json]) -> None:
    """Gives a stored probe names, by which a run that was started without them gets them when it is
    resumed.
    """
    record = unseal(read_record(directory / MANIFEST), str(directory / MANIFEST)).values
    # feature names or a vocabulary: what was given last holds
    kept = {
        key: value
        for key, value in record.items()
        if key not in ("digest", "feature_names", "vocabulary")
    }
    with writing(directory):
        replace_durably(directory / MANIFEST, seal({**kept, **names}))
