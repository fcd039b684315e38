"""Reads the rows of one committed explanation, field by field, and checks them by their hashes."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from hvd_xai.checkpoint.integrity import DAMAGED, CommittedArray
from hvd_xai.checkpoint.manifest import Manifest
from hvd_xai.checkpoint.rows import STANDARD_ERRORS, content_hashes
from hvd_xai.errors import CheckpointError
from hvd_xai.storage.paths import Place


class StoredRows:
    """The rows of an explanation, each field of which is an array of its own on disk.

    Args:
        path: folder of the checkpoint.
        manifest: manifest of the checkpoint.
    """

    def __init__(self, path: Place, manifest: Manifest) -> None:
        self.dtype = manifest.dtype
        self._path = path
        self._n_samples = manifest.n_samples
        self._files = {file.key: file for file in manifest.files}
        self._arrays: dict[str, CommittedArray] = {}

    @property
    def columns(self) -> list[str]:
        """Names of the fields that have one number a sample."""
        names = self.dtype.names or ()
        return [
            name for name in names if name not in ("attributions", "thumbnail", STANDARD_ERRORS)
        ]

    def array(self, name: str) -> CommittedArray:
        """Returns the array of one field; its metadata are checked when it is first asked for.

        Raises:
            CheckpointError: if its metadata are missing or damaged.
        """
        if name not in self._arrays:
            field = self.dtype[name]
            self._arrays[name] = CommittedArray(
                self._path,
                name,
                self._files,
                (self._n_samples, *field.shape),
                field.base,
                # Attributions have a hash for each row; whatever else is small is hashed whole.
                reads_whole=name != "attributions",
            )
        return self._arrays[name]

    def standard_errors(
        self, start: int = 0, stop: int | None = None
    ) -> Float32[np.ndarray, "b ..."] | None:
        """Returns the standard errors of the attributions of rows `start` to `stop`, or None.

        Raises:
            CheckpointError: if a file of these rows is missing or damaged.
        """
        if STANDARD_ERRORS not in (self.dtype.names or ()):
            return None
        errors: np.ndarray = self.array(STANDARD_ERRORS).read(start, stop)
        return errors.astype(np.float32, copy=False)

    def read(self, names: Sequence[str], start: int, stop: int | None) -> np.ndarray:
        """Returns some fields of rows `start` to `stop`, which count as those of a slice do.

        Raises:
            CheckpointError: if a file of these rows is missing or damaged.
        """
        first, last, _ = slice(start, stop).indices(self._n_samples)
        columns = {name: self.array(name).read(first, last) for name in names}
        rows = np.empty(max(0, last - first), [(name, self.dtype[name]) for name in names])
        for name, values in columns.items():
            rows[name] = values
        return rows

    def check(self, rows: np.ndarray, start: int) -> None:
        """Raises `CheckpointError` if rows, which begin with row `start`, do not fit their hashes.

        A Zarr shard that was swapped for another passes its own checksums, but not these.
        """
        changed = np.flatnonzero(content_hashes(rows) != rows["content_hash"])
        if len(changed):
            # `start` may be negative, as in a slice.
            first = slice(start, None).indices(self._n_samples)[0] + int(changed[0])
            raise CheckpointError(
                f"{self._path} has {len(changed)} rows that do not fit their content hash, the"
                f" first {first}; {DAMAGED}"
            )
