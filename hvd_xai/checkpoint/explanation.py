"""Reads one explanation checkpoint, without TensorFlow or MPI."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Int64, Shaped

from hvd_xai.checkpoint.epochs import EpochStack, load_xarray_view
from hvd_xai.checkpoint.integrity import read_manifest
from hvd_xai.checkpoint.manifest import Manifest
from hvd_xai.checkpoint.probe_reader import LazyProbe, ProbeReader
from hvd_xai.checkpoint.rows import decode
from hvd_xai.checkpoint.stored_rows import StoredRows
from hvd_xai.errors import CheckpointError
from hvd_xai.storage.paths import Place

if TYPE_CHECKING:
    import xarray


class Explanation:
    """One committed explanation: a method's attributions of the probe at one epoch.

    Args:
        path: folder of the checkpoint.
        probe: probe of the run that it belongs to; found from the folder if None.

    Raises:
        CheckpointError: if the manifest is missing, damaged or of a higher schema.

    Example:
        >>> from hvd_xai import open_explanations
        >>> explanation = open_explanations("runs/example").explanation(2, "integrated_gradients")
        >>> explanation
        Explanation('integrated_gradients', epoch 2, ... samples of (8, 8, 1))
        >>> explanation.attributions(0, 2).shape
        (2, 8, 8, 1)
    """

    def __init__(self, path: Place, probe: LazyProbe | None = None) -> None:
        self.path = path
        self._lazy_probe = probe
        self.manifest: Manifest = read_manifest(path)
        self._stored = StoredRows(path, self.manifest)

    def __repr__(self) -> str:
        manifest = self.manifest
        return (
            f"Explanation({manifest.method!r}, epoch {manifest.epoch}, {manifest.n_samples} samples"
            f" of {manifest.sample_shape})"
        )

    @property
    def n_samples(self) -> int:
        """Number of samples, each of which is one row."""
        return self.manifest.n_samples

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample's attributions."""
        return self.manifest.sample_shape

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features, if each feature has one attribution; otherwise empty.

        Only a table has names, and only attributions to the inputs belong to its features.

        Raises:
            CheckpointError: if the probe, which holds the names, is damaged.
        """
        if self._probe is None or self.manifest.attributed_to != "inputs":
            # A layer may have as many units as the inputs have features: the shape proves nothing.
            return ()
        names = self._probe.feature_names
        return names if self.sample_shape == (len(names),) else ()

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Words by token id, if each token of the inputs has one attribution; otherwise empty.

        It is empty also if the probe has no vocabulary.

        Raises:
            CheckpointError: if the probe, which holds the words, is damaged.
        """
        if self._probe is None or self.manifest.attributed_to not in ("inputs", "places"):
            return ()
        # A class token, or a layer that leaves fewer places, gives another shape than the inputs'.
        return self._probe.vocabulary if self.sample_shape == self._probe.input_shape else ()

    @property
    def _probe(self) -> ProbeReader | None:
        """The probe of the run; None if the explanation lies in no run or the run stores none."""
        if self._lazy_probe is None:
            # <explanations>/epochs/<epoch>/<method>
            above = self.path.resolve().parents[2:3]
            self._lazy_probe = LazyProbe(above[0] if above else self.path)
        return self._lazy_probe.reader

    @property
    def columns(self) -> list[str]:
        """Names of the columns, which have one number a sample; the method's own come last."""
        return self._stored.columns

    def column(self, name: str, start: int = 0, stop: int | None = None) -> Shaped[np.ndarray, "b"]:
        """Returns rows `start` to `stop` of a column, which has one number a sample.

        Raises:
            CheckpointError: if there is no such column, or it is damaged.
        """
        if name not in self.columns:
            raise CheckpointError(
                f"{self.path} has no column '{name}'; it has {', '.join(self.columns)}"
            )
        return self._stored.array(name).read(start, stop)

    def attributions(self, start: int = 0, stop: int | None = None) -> Float32[np.ndarray, "b ..."]:
        """Returns the attributions of rows `start` to `stop`, `[b, *sample_shape]`.

        Use `blocks` to go through all attributions in bounded memory.

        Raises:
            CheckpointError: if a file of these rows is missing or damaged.
        """
        rows = self._stored.read(("attributions", "scale", "content_hash"), start, stop)
        self._stored.check(rows, start)
        return decode(rows)

    def standard_errors(
        self, start: int = 0, stop: int | None = None
    ) -> Float32[np.ndarray, "b ..."] | None:
        """Returns the attributions' standard errors in rows `start` to `stop`; None without any."""
        return self._stored.standard_errors(start, stop)

    def attributions_of(self, sample_ids: npt.ArrayLike) -> Float32[np.ndarray, "m ..."]:
        """Returns the attributions of samples, in the order of the ids given.

        Raises:
            CheckpointError: if the explanation lacks one of the sample ids, or a file with their
                rows is missing or damaged.
        """
        rows = self.rows_of(sample_ids).tolist()
        return np.concatenate(
            # The empty read comes first: it gives the shape where no sample is asked for.
            [self.attributions(0, 0), *(self.attributions(row, row + 1) for row in rows)]
        )

    def blocks(
        self, n_bytes: int = 32 * 2**20
    ) -> Iterator[tuple[int, Float32[np.ndarray, "b ..."]]]:
        """Yields all attributions in blocks, each with the number of its first row.

        A block has at most `n_bytes`, or one sample.
        """
        size = max(1, n_bytes // (4 * math.prod(self.sample_shape)))
        for start in range(0, self.n_samples, size):
            yield start, self.attributions(start, start + size)

    def thumbnails(self, start: int = 0, stop: int | None = None) -> Float32[np.ndarray, "b ..."]:
        """Returns the block means of rows `start` to `stop`."""
        return self._stored.array("thumbnail").read(start, stop)

    def rows(self, start: int = 0, stop: int | None = None, *, checked: bool = True) -> np.ndarray:
        """Returns rows `start` to `stop` as they are stored, `[b]` of the dtype `manifest.dtype`.

        Raises:
            CheckpointError: if a file of these rows is missing or damaged, or if `checked` is True
                and a row does not fit its hash.
        """
        rows = self._stored.read(self._stored.dtype.names or (), start, stop)
        if checked:
            self._stored.check(rows, start)
        return rows

    def rows_of(self, sample_ids: npt.ArrayLike) -> Int64[np.ndarray, "m"]:
        """Returns the row numbers of samples, in the order of the ids given.

        Raises:
            CheckpointError: if the explanation lacks one of the sample ids.
        """
        wanted, stored = np.asarray(sample_ids, np.int64).reshape(-1), self.column("sample_id")
        rows = np.searchsorted(stored, wanted).astype(np.int64)
        # An id past the last one is searched to a row that does not exist.
        absent = wanted[stored[np.minimum(rows, len(stored) - 1)] != wanted]
        if len(absent):
            ids = f"{stored[0]} to {stored[-1]}, {len(stored)} of them"
            raise CheckpointError(
                f"{self.path} has no sample ids"
                f" {absent[:10].tolist()}{' ...' * (len(absent) > 10)}; its ids are {ids}"
            )
        return rows

    def to_xarray(self) -> "xarray.Dataset":
        """Opens the explanation as an `xarray.Dataset`, which reads values when asked for them.

        Its `attributions` have their scale applied. Choose samples by `dataset.sel(sample_id=17)`.
        A missing or damaged file raises `CheckpointError` when its rows are asked for.

        Raises:
            CheckpointError: if the sample ids cannot be read.
            ImportError: if xarray is not installed.
        """
        labelled = load_xarray_view()
        dataset: xarray.Dataset = labelled.dataset(EpochStack([self])).isel(epoch=0)
        return dataset
