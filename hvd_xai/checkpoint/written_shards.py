"""Writes Zarr shards of a checkpoint on the ranks that hold their rows; says what was written."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from hvd_xai.storage.arrays import ArrayWriter, shard_key, shard_rows
from hvd_xai.storage.durable import FileEntry, fsync_directory, fsync_file, writing


@dataclass(frozen=True, slots=True)
class Written:
    """The files of a checkpoint that one rank wrote, and counts of the attributions in them.

    Args:
        files: files that the rank wrote.
        nonfinite: number of attribution values that are NaN or infinite.
        negative: number of attribution values below zero.
    """

    files: tuple[FileEntry, ...]
    nonfinite: int
    negative: int


def write_shards(
    staged: Path,
    name: str,
    shape: tuple[int, ...],
    first: int,
    blocks: Iterable[Shaped[np.ndarray, "n ..."]],
) -> Written:
    """Writes Zarr shards of one array into a checkpoint that another process commits.

    The shards are durable when this returns.

    Args:
        staged: folder of the unfinished checkpoint, which is the `staged` of its `Writer`.
        name: name of the array.
        shape: shape of the whole array.
        first: row of the array at which the blocks begin; a Zarr shard must begin there.
        blocks: consecutive rows, up to the end of a Zarr shard or of the array.

    Raises:
        CheckpointError: if the shards cannot be written.
    """
    writer, nonfinite, negative = None, 0, 0
    with writing(staged / name):
        for values in blocks:
            # The first block tells the dtype; a rank that has no rows makes no file.
            writer = writer or ArrayWriter(staged / name, shape, values.dtype, first=first)
            writer.append(values)
            if name == "attributions":
                nonfinite += int(np.count_nonzero(~np.isfinite(values)))
                negative += int(np.count_nonzero(values < 0))
        files = writer.close() if writer is not None else []
        # The root flushes all files when it commits, but on a filesystem that hosts share, only the
        # host that wrote a file can flush it.
        for file in files:
            fsync_file(staged / file.key)
        # The folders as well: after a crash a file is found only if all folders above it were
        # flushed.
        for directory in {
            parent for file in files for parent in (staged / file.key).relative_to(staged).parents
        }:
            fsync_directory(staged / directory)
    return Written(tuple(files), nonfinite, negative)


def shard_keys(name: str, shape: tuple[int, ...], dtype: np.dtype) -> list[str]:
    """Returns the paths of an array's Zarr shards within the checkpoint."""
    return [
        shard_key(name, index, len(shape))
        for index in range(-(-shape[0] // shard_rows(shape, dtype)))
    ]
