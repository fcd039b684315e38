"""A data set that lies unpacked in a folder: `.npy` files that ranks map into memory.

The folder holds `inputs.npy`, and `targets.npy`, `labels.npy` and `sample_ids.npy` if the data set
has them; the names of classes, features and tokens are lists in `.json` files. Several inputs of a
model lie in `inputs.npy` as packed rows, and `packing.json` says how.
"""

import json
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Shaped

from hvd_xai.probe.packing import Packing
from hvd_xai.probe.probe import Probe
from hvd_xai.probe.reading import map_array, read_json
from hvd_xai.storage.durable import writing

ARRAYS = ("inputs", "targets", "labels", "sample_ids")
"""Names of the arrays that are taken from a data set."""
LISTS = ("class_names", "feature_names", "vocabulary")
"""Names of the lists of strings that are taken from a data set."""
PACKING = "packing.json"
"""File that records how several inputs lie in the rows of `inputs.npy`."""
SEVERAL = "several"
"""Folder of the several inputs of a model, a file each, until they are packed."""
BLOCK_BYTES = 16 * 2**20
"""Bytes that a format copies at a time."""
BATCH_ROWS = 64
"""Examples that a format decodes at a time."""


def open_unpacked(folder: Path) -> Probe:
    """Opens an unpacked data set as a probe, with its inputs mapped into memory.

    A data set without targets gets zeros.

    Args:
        folder: folder that `unpack` has filled.

    Returns:
        The data set as a probe.

    Raises:
        ValueError: if an array is damaged, the arrays do not fit each other, or the sample ids do
            not ascend.

    Example:
        >>> np.save("inputs.npy", inputs)
        >>> open_unpacked(Path(".")).targets
        array([0, 0, 0, 0], dtype=int32)
    """
    parts: dict[str, Any] = {}
    for name in ARRAYS:
        path = folder / f"{name}.npy"
        if path.exists():
            values = map_array(path, path.resolve())
            parts[name] = values if name == "inputs" else np.array(values)
    sample_ids = parts.get("sample_ids")
    # A probe sorts its rows by sample id, which would copy the mapped inputs into memory. Ids are
    # compared, not subtracted: a difference of unsigned numbers is never below 0. Ids that are no
    # whole numbers are for the probe to refuse.
    if (
        sample_ids is not None
        and sample_ids.dtype.kind in "iu"
        and np.any(sample_ids[1:] <= sample_ids[:-1])
    ):
        raise ValueError(
            "sample_ids of a data set must ascend, each once: its inputs are read where they lie."
            " Sort the data set by them."
        )
    parts.setdefault("targets", np.zeros(np.shape(parts["inputs"])[:1], np.int32))
    for name in LISTS:
        path = folder / f"{name}.json"
        if path.exists():
            parts[name] = tuple(read_json(path))
    if (folder / PACKING).exists():
        packing = _read_packing(folder / PACKING)
        parts["packing"] = packing
        parts.setdefault("feature_names", packing.feature_names)
    return Probe(**parts)


def _read_packing(path: Path) -> Packing:
    record = read_json(path)
    shapes = tuple(tuple(shape) for shape in record["shapes"])
    return Packing(tuple(record["names"]), shapes, tuple(record["dtypes"]), bool(record["keyed"]))


def array_file(folder: Path, name: str, several: Collection[str] = ()) -> Path:
    """Returns the file of one array in an unpacked data set.

    Args:
        folder: folder of the data set.
        name: name of the array.
        several: names of the arrays that are several inputs of a model.

    Raises:
        ValueError: if the name cannot be the name of a file.

    Example:
        >>> array_file(Path(), "age", several=["age", "history"])
        PosixPath('several/age.npy')
    """
    if name not in several:
        return folder / f"{name}.npy"
    # Names may come from the data set, which must not write where it likes.
    if Path(name).name != name or name.startswith("."):
        raise ValueError(f"'{name}' cannot be the name of an input; rename it in the data set")
    with writing(folder / SEVERAL):
        (folder / SEVERAL).mkdir(exist_ok=True)
    return folder / SEVERAL / f"{name}.npy"


def write_names(folder: Path, name: str, names: object) -> None:
    """Writes one of the lists of names into an unpacked data set.

    Raises:
        ValueError: if it is no list of strings.
        CheckpointError: if the file cannot be written.
    """
    if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
        raise ValueError(
            f"'{name}' of the data set must be a list of strings; got {str(names)[:80]}"
        )
    path = folder / f"{name}.json"
    with writing(path):
        path.write_text(json.dumps(names), "utf-8")


class GrowingArray:
    """Writes a `.npy` file block by block; its number of rows is known when it is closed.

    Args:
        path: the file; a file that exists is replaced.

    Example:
        >>> with GrowingArray(Path("x.npy")) as file:
        ...     file.append(np.zeros((2, 3)))
        ...     file.append(np.ones((5, 3)))
        >>> np.load("x.npy").shape
        (7, 3)
    """

    def __init__(self, path: Path) -> None:
        with writing(path):
            self._file = path.open("wb")
        self._row: tuple[np.dtype, tuple[int, ...]] | None = None
        self._n_rows = 0

    def append(self, values: Shaped[np.ndarray, "n ..."]) -> None:
        """Adds rows, which must have the shape and the dtype of the rows before.

        Raises:
            ValueError: if they do not.
            CheckpointError: if the file cannot be written.
        """
        row = (values.dtype, values.shape[1:])
        if values.dtype.hasobject:
            # Their bytes would be addresses in this process.
            raise ValueError(f"examples must be numbers or texts; got dtype {values.dtype}")
        if self._row is None:
            self._row = row
            with writing(Path(self._file.name)):
                self._write_header()
        if self._row != row:
            raise ValueError(
                f"all examples must have one shape and dtype; got {self._row} and {row}"
            )
        with writing(Path(self._file.name)):
            self._file.write(np.ascontiguousarray(values).tobytes())
        self._n_rows += len(values)

    def close(self) -> None:
        """Writes the number of rows into the header and closes the file."""
        with writing(Path(self._file.name)), self._file:
            self._file.seek(0)
            self._write_header()

    def _write_header(self) -> None:
        if self._row is not None:
            dtype, shape = self._row
            # The header written first has 0 rows. NumPy pads every header for the digits that the
            # first axis may grow by, so the last header has the same length and fits in its place.
            record = {"descr": dtype.str, "fortran_order": False, "shape": (self._n_rows, *shape)}
            np.lib.format.write_array_header_1_0(self._file, record)

    def __enter__(self) -> "GrowingArray":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
