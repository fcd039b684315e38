"""Checks the files of a committed checkpoint against its manifest.

Zarr silently reads a missing file as fill values; therefore every read of a checkpoint goes through
this module.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from hvd_xai.checkpoint.json_record import MAX_BYTES
from hvd_xai.checkpoint.manifest import MANIFEST, Manifest
from hvd_xai.errors import CheckpointError
from hvd_xai.storage.arrays import METADATA, ArrayReader, shard_key
from hvd_xai.storage.durable import FileEntry, digest_file
from hvd_xai.storage.paths import Place, size_of_file

DAMAGED = "the checkpoint is damaged. `hvd-xai verify --deep` lists all that is wrong with the run."


@dataclass(frozen=True, slots=True)
class Problem:
    """A file or folder of a checkpoint that is damaged, and a text that says how."""

    path: Place
    what: str

    def __str__(self) -> str:
        return f"{self.path} {self.what}"


def read_record(path: Place) -> bytes:
    """Reads a manifest or another sealed record, up to the largest size of a record.

    Raises:
        CheckpointError: if the file is missing, too long or no plain file.
    """
    try:
        # Looked at before it is opened: opening a pipe would wait for a writer.
        if isinstance(path, Path) and size_of_file(path) is None:
            raise CheckpointError(f"{path} is no plain file; {DAMAGED}")
        with path.open("rb") as file:
            # One byte more than a record may have tells that it is too long, whatever its length.
            text: bytes = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path.parent} has no {path.name}: it is no checkpoint, or its record was deleted"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(text) > MAX_BYTES:
        raise CheckpointError(
            f"{path} is longer than the {MAX_BYTES} bytes a record of hvd_xai has at most. Is it"
            " another program's file?"
        )
    return text


def read_manifest(directory: Place) -> Manifest:
    """Reads the manifest of a committed checkpoint.

    Raises:
        CheckpointError: if the manifest is missing, damaged or of a higher schema.
    """
    return Manifest.from_json(read_record(directory / MANIFEST), str(directory / MANIFEST))


def find_damage(directory: Place, files: Iterable[FileEntry]) -> list[Problem]:
    """Finds files that are missing, no plain files, or not of the size in the manifest.

    It looks at sizes only, and reads no file.
    """
    problems = []
    for file in files:
        path = directory / file.key
        try:
            size = size_of_file(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            problems.append(Problem(path, f"is missing ({error.strerror or error})"))
            continue
        except OSError as error:
            problems.append(Problem(path, f"cannot be looked at: {error.strerror or error}"))
            continue
        if size is None:
            problems.append(Problem(path, "is no plain file"))
        elif size != file.size:
            problems.append(Problem(path, f"has {size} bytes; the manifest says {file.size}"))
    return problems


def check_staged(directory: Path, files: Iterable[FileEntry]) -> None:
    """Looks at every file that a manifest is going to name; call it before writing the manifest.

    A cleaner of old files, another host's sweep or a person may have removed what was staged.

    Raises:
        CheckpointError: if a file is missing, is no plain file, or has another size than was
            written.
    """
    problems = find_damage(directory, files)
    if problems:
        raise CheckpointError(
            f"cannot commit {directory.name}: {problems[0]}, though this job wrote it. Somebody"
            " moved or removed it meanwhile; nothing was committed."
        )


def find_changes(directory: Place, files: Iterable[FileEntry]) -> list[Problem]:
    """Finds files whose content differs from the manifest; reads every file whole."""
    problems = []
    for file in files:
        path = directory / file.key
        try:
            _, digest = digest_file(path)
        except OSError as error:
            problems.append(Problem(path, f"cannot be read: {error.strerror or error}"))
            continue
        if digest != file.xxh3_128:
            problems.append(
                Problem(
                    path,
                    f"was changed: its xxh3-128 is {digest}, the manifest says {file.xxh3_128}",
                )
            )
    return problems


class CommittedArray:
    """One array of a committed checkpoint, whose files are checked before each read.

    Each read checks that its files exist and have the right size. The first read of a file also
    checks its content: nothing else reveals a whole file of the same size in the place of another.

    Args:
        checkpoint: folder of the checkpoint.
        name: name of the array.
        files: files of the whole checkpoint, by key.
        shape: shape that the array must have.
        dtype: dtype that the array must have.
        reads_whole: whether the content of files is checked. Leave it out for a large array whose
            rows are read singly and have hashes of their own.

    Raises:
        CheckpointError: if the array is missing or damaged.
    """

    def __init__(
        self,
        checkpoint: Place,
        name: str,
        files: dict[str, FileEntry],
        shape: tuple[int, ...],
        dtype: np.dtype,
        *,
        reads_whole: bool = True,
    ) -> None:
        self._reads_whole = reads_whole
        self._met: set[str] = set()
        self._checkpoint = checkpoint
        self._name = name
        self._files = files
        self._shape = shape
        self._dtype = dtype
        self._check([f"{name}/{METADATA}"])
        self._array = ArrayReader(checkpoint / name, shape, dtype)

    def read(self, start: int = 0, stop: int | None = None) -> Shaped[np.ndarray, "n ..."]:
        """Returns rows `start` to `stop`, which count as those of a slice do.

        Raises:
            CheckpointError: if a Zarr shard of these rows is missing or damaged.
        """
        start, stop, _ = slice(start, stop).indices(self._shape[0])
        if start >= stop:
            return np.empty((0, *self._shape[1:]), self._dtype)
        #     rows             0 1 2 3 | 4 5 6 7 | 8 9      shards of 4 rows
        #     start 3, stop 7        ^---------^            shards 0 and 1
        shards = range(start // self._array.shard_rows, (stop - 1) // self._array.shard_rows + 1)
        self._check(shard_key(self._name, index, len(self._shape)) for index in shards)
        return self._array.read(start, stop)

    def _check(self, keys: Iterable[str]) -> None:
        files = []
        # The keys come one by one: a damaged manifest may claim so many rows that the names of all
        # shards would not fit into memory. The first shard that it does not list ends the loop.
        for key in keys:
            if key not in self._files:
                raise CheckpointError(
                    f"the manifest of {self._checkpoint} names no file {key!r}, which the rows of"
                    f" '{self._name}' need"
                )
            files.append(self._files[key])
        problems = find_damage(self._checkpoint, files)
        if not problems:
            # A file is read whole once. Later reads look at its size alone, which is quick.
            new = [
                file
                for file in files
                if file.key not in self._met and (self._reads_whole or file.key.endswith(METADATA))
            ]
            problems = find_changes(self._checkpoint, new)
            self._met.update(file.key for file in files)
        if problems:
            raise CheckpointError(f"{problems[0]}; {DAMAGED}")
