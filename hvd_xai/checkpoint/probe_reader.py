"""Reads the probe that is stored beside the explanations."""

import functools
import math

import numpy as np
import numpy.typing as npt
import xxhash
from jaxtyping import Shaped

from hvd_xai.checkpoint.integrity import CommittedArray, read_record
from hvd_xai.checkpoint.json_record import Fields, unseal
from hvd_xai.checkpoint.listing import is_present
from hvd_xai.checkpoint.manifest import MANIFEST, read_files
from hvd_xai.errors import CheckpointError
from hvd_xai.probe.facts import ProbeFacts
from hvd_xai.probe.packing import Packing
from hvd_xai.probe.window import Window, check_window
from hvd_xai.storage.paths import Place

PROBE = "probe"
ARRAYS = ("inputs", "targets", "labels", "sample_id")
"""Arrays of a stored probe, in the order in which its digest takes them in."""

_BLOCK_BYTES = 16 * 2**20


class ProbeReader:
    """Reads a stored probe.

    Args:
        path: folder of the probe.

    Attributes:
        packing: layout of several inputs in one row; None for a model of one input. Its
            `taken_apart` unpacks rows of inputs, and attributions of the same shape.
        vocabulary: words by token id; empty if the probe has none.
        window: values of the inputs that are drawn darkest and brightest; None if the run, which
            may be old, records none.
        kind: name of the kind of data, if the probe says it.

    Raises:
        CheckpointError: if the probe is missing or damaged.
    """

    def __init__(self, path: Place) -> None:
        self.path = path
        record = unseal(read_record(path / MANIFEST), str(path / MANIFEST))
        self.n_samples = record.integer("n_samples")
        self.digest = record.digest("probe_digest")
        self.class_names = record.names("class_names")
        self.files = read_files(record)
        self._shape = record.integers("input_shape")
        self._dtypes = {name: _dtype(record, text) for name, text in record.texts("dtypes").items()}
        self._where = record.where
        if self.n_samples < 1 or 0 in self._shape:
            raise CheckpointError(
                f"{record.where} must have 1 row or more and no empty axis; got {self.n_samples} of"
                f" {self._shape}"
            )
        self.packing = _packing(record) if "packing" in record.values else None
        self._feature_names = (
            record.names("feature_names") if "feature_names" in record.values else None
        )
        self.vocabulary = record.names("vocabulary") if "vocabulary" in record.values else ()
        self.window = _window(record) if "window" in record.values else None
        self.kind = record.optional("kind", record.text)
        self._check_names()

    def _check_names(self) -> None:
        """Raises `CheckpointError` if names and values of the inputs differ in number."""
        if self.packing is not None and (self.packing.n_features,) != self._shape:
            raise CheckpointError(
                f"{self._where} must have inputs of {self.packing.n_features} packed values; got"
                f" shape {self._shape}"
            )
        names = self._feature_names or ()
        if names and ((len(names),) != self._shape or len(set(names)) < len(names)):
            raise CheckpointError(
                f"{self._where} must have a name of its own for each value of inputs of shape"
                f" {self._shape}; got {len(names)}"
            )
        if self.vocabulary and len(self._shape) != 1:
            raise CheckpointError(
                f"{self._where} has a vocabulary, which is of token ids [T]; got inputs of shape"
                f" {self._shape}"
            )

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the values of one input; empty if the probe has none."""
        of_packing = () if self.packing is None else self.packing.feature_names
        return of_packing if self._feature_names is None else self._feature_names

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return self._shape

    @property
    def facts(self) -> ProbeFacts:
        """Shape, dtype and names of the inputs, and what decides how they are drawn."""
        return ProbeFacts(
            self._shape,
            self._dtypes["inputs"],
            self.feature_names,
            self.vocabulary,
            self.packing,
            self.window,
            self.kind,
        )

    def inputs(self, rows: slice | npt.ArrayLike) -> Shaped[np.ndarray, "m ..."]:
        """Returns the inputs of some rows: a slice, or row numbers in any order."""
        array = self._array("inputs", self._shape)
        if isinstance(rows, slice):
            start, stop, step = rows.indices(self.n_samples)
            # Rows that follow one another are read at once, others one by one: what lies between
            # them may not fit into memory.
            if step == 1:
                return array.read(start, stop)
            rows = range(start, stop, step)
        numbers = np.asarray(rows, np.int64).reshape(-1)
        if np.any((numbers < 0) | (numbers >= self.n_samples)):
            raise IndexError(
                f"the probe has rows 0 to {self.n_samples - 1}; got {numbers.tolist()[:10]}"
            )
        return np.concatenate(
            # The empty read comes first: it gives shape and dtype where no row is asked for.
            [array.read(0, 0), *(array.read(number, number + 1) for number in numbers.tolist())]
        )

    def column(self, name: str) -> Shaped[np.ndarray, "N"]:
        """Returns the column `targets`, `labels` or `sample_id`, one value for each input."""
        return self._array(name, ()).read()

    def compute_digest(self) -> str:
        """Returns the digest of the stored examples, and reads them in bounded blocks.

        It is the one that `probe_digest` returns of the probe that was stored.

        Raises:
            CheckpointError: if an array is missing or damaged.
        """
        digest = xxhash.xxh3_128()
        for name in ARRAYS:
            shape = self._shape if name == "inputs" else ()
            array = self._array(name, shape)
            dtype = self._dtypes[name]
            digest.update(digest_head(name, dtype, (self.n_samples, *shape)))
            size = max(1, _BLOCK_BYTES // max(1, dtype.itemsize * math.prod(shape)))
            for start in range(0, self.n_samples, size):
                digest.update(array.read(start, start + size).tobytes())
        return digest.hexdigest()

    def _array(self, name: str, shape: tuple[int, ...]) -> CommittedArray:
        if name not in self._dtypes:
            raise CheckpointError(
                f"{self._where} names no array '{name}'; it has {', '.join(self._dtypes)}"
            )
        files = {file.key: file for file in self.files}
        return CommittedArray(self.path, name, files, (self.n_samples, *shape), self._dtypes[name])


class LazyProbe:
    """The probe of a run, opened when it is first asked for, because its vocabulary may be large.

    Args:
        explanations_dir: folder of the run's explanations.
    """

    def __init__(self, explanations_dir: Place) -> None:
        self._path = explanations_dir / PROBE

    @functools.cached_property
    def reader(self) -> ProbeReader | None:
        """The stored probe; None if the run stores none.

        Raises:
            CheckpointError: if the probe is damaged, or cannot be looked at.
        """
        return ProbeReader(self._path) if is_present(self._path) else None


def digest_head(name: str, dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """Returns what a probe's digest takes in before the values of an array."""
    return f"{name} {dtype.str} {shape};".encode()


def _dtype(record: Fields, text: str) -> np.dtype:
    try:
        dtype = np.dtype(text)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{record.where} names a dtype that there is not: {error}") from error
    if dtype.kind not in "biuf":
        raise CheckpointError(
            f"{record.where} must name dtypes of booleans, integers or floating values; got"
            f" {text!r}"
        )
    return dtype


def _window(record: Fields) -> Window:
    try:
        return check_window(record.values["window"])
    except ValueError as error:
        raise CheckpointError(f"{record.where}: {error}") from error


def _packing(record: Fields) -> Packing:
    packed = Fields(record.mapping("packing"), f"{record.where}, packing")
    shapes = packed.values.get("shapes")
    if not isinstance(shapes, list) or not all(
        isinstance(shape, list) and all(isinstance(n, int) for n in shape) for shape in shapes
    ):
        raise CheckpointError(
            f"{packed.where} must have a list of shapes under 'shapes'; got {shapes!r}"
        )
    names, dtypes = packed.names("names"), packed.names("dtypes")
    if not len(names) == len(dtypes) == len(shapes) or any(
        n < 0 for shape in shapes for n in shape
    ):
        raise CheckpointError(
            f"{packed.where} must have a name, a dtype and a shape for each input; got {names},"
            f" {dtypes} and {shapes}"
        )
    return Packing(names, tuple(map(tuple, shapes)), dtypes, packed.values.get("keyed") is True)
