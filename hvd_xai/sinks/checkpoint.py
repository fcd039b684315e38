"""Copies explanations into another run."""

from pathlib import Path

from hvd_xai.checkpoint.explanation import Explanation
from hvd_xai.checkpoint.run_directory import Mode, RunDirectory

BLOCK_BYTES = 16 * 2**20


class Checkpoint:
    """Copies each committed explanation into another run, to the bit.

    It touches no file before the first explanation.

    Args:
        path: folder of the run that receives the copies.
        mode: what to do with a folder that holds a run: refuse it ("new"), continue the run
            ("resume"), or delete its explanations ("overwrite").

    Example:
        >>> run, sink = RunDirectory("runs/example"), Checkpoint("runs/copies")
        >>> for explanation in run.explanations():
        ...     sink(run, explanation)
        >>> sink.close()
        >>> RunDirectory("runs/copies").explanations().epochs
        [0, 1, 2]
    """

    def __init__(self, path: str | Path, *, mode: Mode = "new") -> None:
        self._copies = RunDirectory(path, mode=mode)

    def __call__(self, run: RunDirectory, explanation: Explanation, /) -> None:
        """Copies an explanation in bounded blocks.

        An explanation that already lies in the receiving run is not copied.

        Raises:
            RunExistsError: if the receiving folder holds a run and the mode is "new".
            CheckpointError: if the explanation is damaged or cannot be written, or another
                explanation stands in its place.
        """
        if self._copies.explanations_dir.resolve() in explanation.path.resolve().parents:
            return
        manifest = explanation.manifest
        writer = self._copies.begin(manifest.header(), manifest.dtype)
        size = max(1, BLOCK_BYTES // manifest.dtype.itemsize)
        try:
            for start in range(0, explanation.n_samples, size):
                writer.append(explanation.rows(start, start + size))
            self._copies.commit(writer)
        finally:
            self._copies.discard(writer.destination)

    def close(self) -> None:
        """Closes the receiving run, so that other jobs can write to it."""
        self._copies.close()
