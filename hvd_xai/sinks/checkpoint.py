"""Copies explanations into another run."""

from pathlib import Path

from hvd_xai.checkpoint.reader import Explanation
from hvd_xai.checkpoint.run_directory import Mode, RunDirectory

BLOCK_BYTES = 16 * 2**20


class Checkpoint:
    """Copies each committed explanation into another run, to the bit.

    Nothing is made before the first explanation.

    Args:
        path: the folder of the run that gets the copies.
        mode: what happens to a run that is there, as for `RunDirectory`.

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
        """Copies an explanation, in bounded blocks.

        It leaves alone an explanation that lies in the run of the copies itself.

        Raises:
            RunExistsError: if the place of the copies holds a run and the mode is "new".
            CheckpointError: if the explanation is damaged, cannot be written, or another one stands
                in its place.
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
        """Lets other jobs write to the run of the copies."""
        self._copies.close()
