"""Explanation checkpoints as a sink: where merged rows are committed, and where any explanation can be copied to."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hvd_xai.checkpoint.reader import Explanation
from hvd_xai.checkpoint.run import Mode, add_to_config, check_run, job_of, open_run, probe_digest, write_probe
from hvd_xai.checkpoint.schema import Header
from hvd_xai.checkpoint.writer import Writer
from hvd_xai.types import Json, Probe

_BLOCK_BYTES = 16 * 2**20


class Checkpoint:
    """Keeps a run's explanation checkpoints. Making one touches no file, so that every rank may hold it; the root alone opens it.

    Args:
        run_dir: the run's folder.
        config: what the run is started with, for `run.json`.
        mode: "new" refuses a folder that holds a run, "overwrite" deletes its explanations; "resume" goes on with it, and an epoch that is
            explained again takes the place of what was there, for the weights it was of were lost with the job that died.
    """

    def __init__(self, run_dir: str | Path, config: Mapping[str, Json] | None = None, mode: Mode = "new") -> None:
        self._run_dir = Path(run_dir)
        self._config = config or {}
        self._mode: Mode = mode
        self._explanations_dir: Path | None = None
        self._writer: Writer | None = None

    @property
    def run(self) -> str:
        """The run's name: that of its folder."""
        return self._run_dir.resolve().name

    def check(self) -> None:
        """Refuses a folder that holds a run where the mode is "new". It writes nothing: call it before work that may fail.

        Raises:
            RunExistsError: if the folder holds a run and the mode is "new".
        """
        check_run(self._run_dir, self._mode)

    def open(self, probe: Probe | None = None, facts: Mapping[str, Json] | None = None) -> Path:
        """Makes the run ready and stores the probe; what was done by an earlier call is not done again.

        Args:
            probe: the examples that will be explained.
            facts: added to the config in `run.json`.

        Returns:
            `<run>/explanations`.

        Raises:
            RunExistsError: if the folder holds a run and the mode is "new".
            CheckpointError: if the place cannot be written, or the run is of another probe.
        """
        if self._explanations_dir is None:
            self._explanations_dir = open_run(self._run_dir, config=self._config, mode=self._mode)
        if probe is not None:
            write_probe(self._explanations_dir, probe)
            facts = {**(facts or {}), "probe_digest": probe_digest(probe)}
        if facts:
            add_to_config(self._explanations_dir, facts)
        return self._explanations_dir

    def rejoin(self, job: str) -> None:
        """Goes on, whatever the mode, with a run that this very job began before its ranks changed; another rank may have begun it.

        Args:
            job: the job's name, as the run's config has it.
        """
        if job_of(self._run_dir) == job:
            self.close()
            self._mode, self._explanations_dir = "resume", None

    def begin(self, header: Header, dtype: np.dtype) -> Writer:
        """Starts a checkpoint, to which rows are appended. One that was begun before and not committed is discarded.

        Raises:
            CheckpointError: if it cannot be written.
        """
        self.close()
        self._writer = Writer(self.open(), header, dtype)
        return self._writer

    def commit(self, writer: Writer) -> Explanation:
        """Commits what was begun, and returns it opened.

        Raises:
            CheckpointError: if rows are missing, it cannot be written, or another explanation was committed in its place first.
        """
        return Explanation(writer.commit(replace=self._mode == "resume"))

    def __call__(self, explanation: Explanation, /) -> None:
        """Copies an explanation into this run, in bounded blocks and to the bit; does nothing for one of this run itself.

        Raises:
            CheckpointError: if it is damaged, cannot be written, or another one stands in its place.
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
            self.close()

    def close(self) -> None:
        """Discards what was begun and not committed. Safe to call twice."""
        if self._writer is not None:
            self._writer.discard()
            self._writer = None
