"""Reads explanation checkpoints, without TensorFlow or MPI."""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Int64, Shaped

from hvd_xai.checkpoint.epochs import EpochStack, load_xarray_view
from hvd_xai.checkpoint.gaps import read_gaps
from hvd_xai.checkpoint.integrity import DAMAGED, read_manifest, read_record
from hvd_xai.checkpoint.json_record import unseal
from hvd_xai.checkpoint.layout import EPOCHS, EXPLANATIONS, RUN
from hvd_xai.checkpoint.listing import is_present, list_committed, list_epochs
from hvd_xai.checkpoint.manifest import MANIFEST, Manifest
from hvd_xai.checkpoint.probe_reader import PROBE, ProbeReader
from hvd_xai.checkpoint.rows import decode
from hvd_xai.checkpoint.stored_rows import StoredRows
from hvd_xai.errors import CheckpointError, write_ranges
from hvd_xai.protocols import Json
from hvd_xai.storage.paths import Place, place

if TYPE_CHECKING:
    import xarray


def open_explanations(run: str | Place) -> "Explanations":
    """Opens the explanations of a run.

    Args:
        run: folder of the run, its folder `explanations`, or the URL of either, such as
            `s3://bucket/runs/demo`. A URL needs the extra `remote`, and the package by which fsspec
            reads such URLs (s3fs, gcsfs, ...).

    Raises:
        CheckpointError: if the folder holds no run.
        ImportError: if a package that the URL needs is not installed.
        OSError: if the store that the URL names cannot be reached.

    Example:
        >>> open_explanations("runs/example").epochs
        [0, 1, 2]
    """
    path = place(run)
    for explanations_dir in (path / EXPLANATIONS, path):
        if is_present(explanations_dir / RUN) or is_present(explanations_dir / EPOCHS):
            return Explanations(explanations_dir)
    why = f"it has no folder '{EXPLANATIONS}'" if path.is_dir() else "there is no such folder"
    raise CheckpointError(
        f"{path} is no run of hvd_xai: {why}. Give the folder that was the --output of `hvd-xai"
        " train`."
    )


class Explanations:
    """All committed explanations of a run, each of which is read when it is asked for.

    Args:
        path: folder of the run's explanations.

    Example:
        >>> explanations = open_explanations("runs/example")
        >>> explanations.epochs_by_method
        {'grad_cam': [0, 1, 2], 'integrated_gradients': [0, 1, 2]}
        >>> [one.manifest.step for one in explanations if one.manifest.method == "grad_cam"]
        [10, 20, 30]
    """

    def __init__(self, path: Place) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"Explanations({str(self.path)!r}, {self.epochs_by_method})"

    @property
    def config(self) -> dict[str, Json]:
        """Settings that the run was started with; empty if `run.json` is missing."""
        if not is_present(self.path / RUN):
            return {}
        return dict(unseal(read_record(self.path / RUN), str(self.path / RUN)).mapping("config"))

    @property
    def epochs(self) -> list[int]:
        """Epochs that have an explanation, ascending.

        Raises:
            CheckpointError: if something with the name of an epoch, or of a method, cannot be
                looked at.
        """
        numbers = [int(path.name) for path in list_epochs(self.path).checked()]
        return [number for number in numbers if self.methods(number)]

    def methods(self, epoch: int) -> list[str]:
        """Returns the methods that explain an epoch, sorted by name.

        Raises:
            CheckpointError: if the epoch, or something with the name of a method, cannot be looked
                at.
        """
        return [path.name for path in list_committed(self._epoch_dir(epoch))]

    @property
    def epochs_by_method(self) -> dict[str, list[int]]:
        """Epochs that each method explains, ascending, by the method's name."""
        by_method: dict[str, list[int]] = {}
        for epoch in self.epochs:
            for method in self.methods(epoch):
                by_method.setdefault(method, []).append(epoch)
        return dict(sorted(by_method.items()))

    @property
    def gaps(self) -> dict[str, list[int]]:
        """Epochs by method that a job explained and never committed; empty for most runs."""
        return read_gaps(self.path)

    def explanation(self, epoch: int, method: str) -> "Explanation":
        """Opens one explanation.

        Args:
            epoch: epoch that was explained.
            method: name that the method is committed under.

        Raises:
            CheckpointError: if there is no such explanation, its manifest is damaged, or it was
                moved there from another place.
        """
        path = self._epoch_dir(epoch) / method
        if "/" in method or method.startswith(".") or not is_present(path / MANIFEST):
            there = (
                f"epoch {epoch} has {', '.join(self.methods(epoch))}"
                if self.methods(epoch)
                else f"there are the epochs {write_ranges(self.epochs)}"
            )
            raise CheckpointError(
                f"{self.path} has no explanation '{method}' of epoch {epoch}; {there}"
            )
        explanation = Explanation(path, self)
        said = (explanation.manifest.epoch, explanation.manifest.method)
        if said != (epoch, method):
            raise CheckpointError(
                f"{path} was moved here: its manifest says epoch {said[0]}, {said[1]}; {DAMAGED}"
            )
        return explanation

    def newest_before(self, epoch: int, method: str) -> "Explanation | None":
        """Opens a method's newest explanation of an epoch before this one; None if there is none.

        Raises:
            CheckpointError: if the manifest is damaged, or was moved there from another place.
        """
        # Newest first, up to the first hit: this is called at every epoch, and must not look
        # through the whole of a long run each time.
        for path in reversed(list_epochs(self.path).checked()):
            if int(path.name) < epoch and is_present(path / method / MANIFEST):
                return self.explanation(int(path.name), method)
        return None

    def probe(self) -> ProbeReader | None:
        """Opens the probe; returns None if the run does not store it."""
        return ProbeReader(self.path / PROBE) if is_present(self.path / PROBE) else None

    @functools.cached_property
    def _probe(self) -> ProbeReader | None:
        """The probe, opened once for all explanations, because its vocabulary may be large."""
        return self.probe()

    def stack(self, method: str, epochs: Sequence[int] | None = None) -> EpochStack:
        """Opens one method's explanations of several epochs as arrays `[epoch, sample, ...]`.

        Args:
            method: name that the method is committed under.
            epochs: epochs to take; all that the method explains if None.

        Raises:
            CheckpointError: if the method has no explanation, or the epochs explain different
                samples.
        """
        chosen = self.epochs_by_method.get(method, []) if epochs is None else sorted(set(epochs))
        if not chosen:
            there = ", ".join(self.epochs_by_method) or "none yet"
            raise CheckpointError(
                f"{self.path} has no explanation by '{method}'; methods with one: {there}"
            )
        return EpochStack([self.explanation(epoch, method) for epoch in chosen])

    def to_xarray(self) -> "xarray.DataTree":
        """Opens the run as an `xarray.DataTree`, which reads values when they are asked for.

        Each method is a node with the dimensions `epoch` and `sample`.

        Raises:
            CheckpointError: if a manifest is damaged, or the epochs explain different samples.
            ImportError: if xarray is not installed.

        Example:
            >>> tree = open_explanations("runs/example").to_xarray()
            >>> tree["integrated_gradients"].attributions.sel(epoch=2).sel(sample_id=1).shape
            (8, 8, 1)
        """
        labelled = load_xarray_view()
        opened: xarray.DataTree = labelled.tree(
            [self.stack(method, epochs) for method, epochs in self.epochs_by_method.items()]
        )
        return opened

    def __iter__(self) -> "Iterator[Explanation]":
        """Yields the explanations in order of epoch and method."""
        for epoch in self.epochs:
            for method in self.methods(epoch):
                yield self.explanation(epoch, method)

    def _epoch_dir(self, epoch: int) -> Place:
        return self.path / EPOCHS / f"{epoch:06d}"


class Explanation:
    """One committed explanation: a method's attributions of the probe at one epoch.

    Args:
        path: folder of the checkpoint.
        run: explanations of the run that it belongs to; found from the folder if None.

    Raises:
        CheckpointError: if the manifest is missing, damaged or of a higher schema.

    Example:
        >>> explanation = open_explanations("runs/example").explanation(2, "integrated_gradients")
        >>> explanation
        Explanation('integrated_gradients', epoch 2, ... samples of (8, 8, 1))
        >>> explanation.attributions(0, 2).shape
        (2, 8, 8, 1)
    """

    def __init__(self, path: Place, run: Explanations | None = None) -> None:
        self.path = path
        self._run = run
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

    @functools.cached_property
    def _probe(self) -> ProbeReader | None:
        """The probe of the run; None if the explanation lies in no run or the run stores none."""
        # The path is <explanations>/epochs/<epoch>/<method>.
        above = self.path.resolve().parents[2:3]
        run = self._run or next(map(Explanations, above), None)
        return None if run is None else run._probe

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
