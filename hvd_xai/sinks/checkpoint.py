"""Explanation checkpoints as a sink: where merged rows are committed, and where any explanation can
be copied to.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from hvd_xai.checkpoint.manifest import Header
from hvd_xai.checkpoint.reader import Explanation
from hvd_xai.checkpoint.run_directory import (
    EXPLANATIONS,
    Mode,
    add_to_config,
    check_run,
    claim,
    job_of,
    open_run,
    probe_digest,
    write_probe,
)
from hvd_xai.checkpoint.writer import Writer, Written
from hvd_xai.probe.probe import Probe
from hvd_xai.protocols import Json

_BLOCK_BYTES = 16 * 2**20


class Checkpoint:
    """Keeps a run's explanation checkpoints.

    Making one touches no file, so that every rank may hold it; the root alone opens it.

    Args:
        run_dir: the run's folder.
        config: what the run is started with, for `run.json`.
        mode: "new" refuses a folder that holds a run, "overwrite" deletes its explanations;
            "resume" goes on with it, and an epoch that is explained again takes the place of what
            was there, for the weights it was of were lost with the job that died.
    """

    def __init__(
        self, run_dir: str | Path, config: Mapping[str, Json] | None = None, mode: Mode = "new"
    ) -> None:
        self._run_dir = Path(run_dir)
        self._config = config or {}
        self._mode: Mode = mode
        self._opened: Path | None = None
        self._begun: dict[Path, Writer] = {}
        self._lock: int | None = None
        self._is_rejoined = False

    @property
    def run(self) -> str:
        """The run's name: that of its folder."""
        return self._run_dir.resolve().name

    @property
    def explanations_dir(self) -> Path:
        """`<run>/explanations`, as this rank names it."""
        return self._run_dir / EXPLANATIONS

    def check(self) -> None:
        """Refuses a folder that holds a run where the mode is "new".

        It writes nothing: call it before work that may fail.

        Raises:
            RunExistsError: if the folder holds a run and the mode is "new".
        """
        check_run(self._run_dir, self._mode)

    def claim(self) -> None:
        """Makes the run's folder and keeps other jobs out of it, for work that puts something there
        before `open` does this.

        Raises:
            RunExistsError: if the folder holds a run and the mode is "new", or another job writes
                to it.
            CheckpointError: if the place cannot be written.
        """
        self.check()
        if self._lock is None and not self._is_rejoined:
            self._lock = claim(self._run_dir)

    def open(self, probe: Probe | None = None, facts: Mapping[str, Json] | None = None) -> Path:
        """Makes the run ready and stores the probe; what was done by an earlier call is not done
        again.

        Args:
            probe: the examples that will be explained.
            facts: added to the config in `run.json`.

        Returns:
            `<run>/explanations`.

        Raises:
            RunExistsError: if the folder holds a run and the mode is "new", or another job writes
                to it.
            CheckpointError: if the place cannot be written, or the run is of another probe.
        """
        if self._opened is None:
            self.claim()
            self._opened = open_run(self._run_dir, config=self._config, mode=self._mode)
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
        if job_of(self._run_dir) == job:
            self.close()
            # the rank that was the root may live on, and hold the lock
            self._mode, self._opened, self._is_rejoined = "resume", None, True

    def begin(self, header: Header, dtype: np.dtype, *, elsewhere: Sequence[str] = ()) -> Writer:
        """Starts a checkpoint, to which rows are appended.

        One in the same place that was begun before and not committed is discarded.

        Args:
            header: what is known beforehand.
            dtype: of the rows.
            elsewhere: fields whose Zarr shards are written by others, as `Writer` says.

        Raises:
            CheckpointError: if it cannot be written.
        """
        writer = Writer(self.open(), header, dtype, elsewhere=elsewhere)
        self.discard(writer.destination)
        self._begun[writer.destination] = writer
        return writer

    def commit(self, writer: Writer, written: Iterable[Written] = ()) -> Explanation:
        """Commits what was begun, with what others wrote of it, and returns it opened.

        Raises:
            CheckpointError: if rows are missing, it cannot be written, or another explanation was
                committed in its place first.
        """
        path = writer.commit(replace=self._mode == "resume", written=written)
        del self._begun[writer.destination]
        return Explanation(path)

    def __call__(self, explanation: Explanation, /) -> None:
        """Copies an explanation into this run, in bounded blocks and to the bit; does nothing for
        one of this run itself.

        Raises:
            CheckpointError: if it is damaged, cannot be written, or another one stands in its
                place.
        """
        if self.open().resolve() in explanation.path.resolve().parents:
            return
        writer = self.begin(explanation.manifest.header(), explanation.manifest.dtype)
        size = max(1, _BLOCK_BYTES // explanation.manifest.dtype.itemsize)
        try:
            for start in range(0, explanation.n_samples, size):
                writer.append(explanation.rows(start, start + size))
            self.commit(writer)
        finally:
            self.discard(writer.destination)

    def discard(self, destination: Path) -> None:
        """Discards what was begun for this place and not committed, if there is any."""
        writer = self._begun.pop(destination, None)
        if writer is not None:
            writer.discard()

    def close(self) -> None:
        """Discards all that was begun and not committed, and lets other jobs write to the run.

        Safe to call twice.
        """
        for destination in list(self._begun):
            self.discard(destination)
        if self._lock is not None:
            os.close(self._lock)
        self._lock = None
