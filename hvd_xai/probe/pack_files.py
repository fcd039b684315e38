"""Packs the several inputs of an unpacked data set into one array of rows, in bounded memory."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from hvd_xai.probe.dataset_format import ModelInputs
from hvd_xai.probe.packing import pack
from hvd_xai.probe.reading import map_array
from hvd_xai.probe.unpacked import BLOCK_BYTES, PACKING, SEVERAL, GrowingArray
from hvd_xai.storage.durable import writing


def pack_files(folder: Path, inputs: ModelInputs) -> None:
    """Packs the inputs that a format has unpacked, if the model takes several.

    Args:
        folder: folder of the unpacked data set.
        inputs: what the model says of its inputs.

    Raises:
        ValueError: if an input is missing, has another shape than the model says, is no array of
            numbers, or the inputs differ in length.

    Example:
        >>> Path("several").mkdir()
        >>> np.save("several/age.npy", np.array([41, 35]))
        >>> np.save("several/history.npy", np.zeros((2, 3)))
        >>> pack_files(Path(), ModelInputs())
        >>> np.load("inputs.npy").shape
        (2, 4)
    """
    there = {path.stem: path for path in sorted((folder / SEVERAL).glob("*.npy"))}
    absent = [name for name in inputs.names if name not in there]
    if absent:
        raise ValueError(
            f"the data set has no array {', '.join(map(repr, absent))}; the model takes {inputs}:"
            " give one array for each of these inputs, by its name"
        )
    if not there:
        return
    names = inputs.names or _order(list(there))
    arrays = {name: _load(there[name], name) for name in names}
    _check_shapes(arrays, inputs)
    longest = max(len(values) for values in arrays.values())
    row_bytes = sum(values[:1].nbytes for values in arrays.values())
    size = max(1, BLOCK_BYTES // max(1, row_bytes))
    keyed = inputs.keyed if inputs.names else not names[0].isdecimal()
    with GrowingArray(folder / "inputs.npy") as file:
        # Of arrays that differ in length a last block does too, which `pack` refuses.
        for start in range(0, max(1, longest), size):
            block = {name: values[start : start + size] for name, values in arrays.items()}
            rows, packing = pack(block)
            file.append(rows)
    with writing(folder / PACKING):
        (folder / PACKING).write_text(json.dumps(asdict(replace(packing, keyed=keyed))))
    shutil.rmtree(folder / SEVERAL)


def _order(names: list[str]) -> tuple[str, ...]:
    """Returns names in order: "0", "1", ... by number, and others as they are."""
    are_numbers = all(name.isdecimal() for name in names)
    return tuple(sorted(names, key=int) if are_numbers else names)


def _load(path: Path, name: str) -> np.ndarray:
    values = map_array(path)
    if values.dtype.kind not in "fiub" or values.ndim == 0:
        raise ValueError(
            f"input '{name}' must be numbers [n, ...]; got dtype {values.dtype}, shape"
            f" {values.shape}. Number words and categories first."
        )
    return values


def _check_shapes(arrays: dict[str, np.ndarray], inputs: ModelInputs) -> None:
    for name, shape in zip(inputs.names, inputs.shapes, strict=True):
        got = arrays[name].shape[1:]
        # Keras takes [n] where a model takes [n, 1].
        if not any(
            len(given) == len(shape)
            and all(want in (None, have) for want, have in zip(shape, given, strict=True))
            for given in (got, (*got, 1))
        ):
            raise ValueError(
                f"input '{name}' of the model has shape {(None, *shape)}; the data set's has"
                f" {arrays[name].shape}. Reshape it."
            )
