"""Zarr: an array, which is the inputs, or a group of arrays with the names that `.npz` has.

For a model of several inputs the group has, in place of `inputs`, an array for each by its name.

The attributes `class_names`, `feature_names` and `vocabulary` are lists of strings.
"""

import math
from pathlib import Path

from hvd_xai.probe.dataset_format import Hints, Match
from hvd_xai.probe.reading import check_room, read_json, reading
from hvd_xai.probe.unpacked import (
    ARRAYS,
    BLOCK_BYTES,
    LISTS,
    GrowingArray,
    array_file,
    write_names,
)
from hvd_xai.storage.arrays import METADATA
from hvd_xai.storage.foreign_arrays import open_array

ACCEPTS = "a Zarr array or group"


def match(source: Path) -> Match:
    """Recognizes an array or group by the metadata that lie in its folder."""
    return Match.CERTAIN if (source / METADATA).is_file() else Match.NO


def unpack(source: Path, folder: Path, hints: Hints) -> None:
    """Copies the arrays in blocks of rows."""
    metadata = read_json(source / METADATA)
    metadata = metadata if isinstance(metadata, dict) else {}
    attributes = metadata.get("attributes")
    with reading(source / METADATA):
        for name in LISTS:
            if isinstance(attributes, dict) and name in attributes:
                write_names(folder, name, attributes[name])
    several: tuple[str, ...] = ()
    if metadata.get("node_type") == "array":
        members = {"inputs": source}
    else:
        there = sorted(path.parent.name for path in source.glob(f"*/{METADATA}"))
        several = hints.find_several(there)
        names = dict.fromkeys((*several, *ARRAYS))
        members = {name: source / name for name in names if name in there}
    for name, path in members.items():
        _copy(path, array_file(folder, name, several))


def _copy(source: Path, path: Path) -> None:
    """Copies an array into a `.npy` file."""
    array = open_array(source)
    with reading(source):
        if not array.shape:
            raise ValueError("it is a single value, and has no rows")
        row_bytes = array.dtype.itemsize * math.prod(array.shape[1:])
        # What was never written reads as fill values: an empty folder may announce terabytes.
        check_room(source, path.parent, array.shape[0] * row_bytes)
        size = max(1, BLOCK_BYTES // max(1, row_bytes))
        with GrowingArray(path) as file:
            for start in range(0, array.shape[0], size):
                file.append(array[start : start + size])
