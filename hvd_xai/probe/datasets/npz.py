"""`.npz`: the arrays `inputs` and `targets`, and `labels` and `sample_ids` if they are there.

For a model of several inputs it has, in place of `inputs`, an array for each by its name.

The arrays `class_names`, `feature_names` and `vocabulary` of strings are taken as well.
"""

import zipfile
from collections.abc import Callable
from pathlib import Path

from hvd_xai.probe.dataset_format import Hints, Match
from hvd_xai.probe.reading import check_room, map_array, reading
from hvd_xai.probe.unpacked import ARRAYS, BLOCK_BYTES, LISTS, array_file, write_names
from hvd_xai.storage.durable import writing

ACCEPTS = ".npz"


def match(source: Path) -> Match:
    """Recognizes an `.npz` file by its name."""
    return Match.CERTAIN if source.suffix == ".npz" else Match.NO


def unpack(source: Path, folder: Path, hints: Hints) -> None:
    """Copies the arrays out of the archive, whose members are `.npy` files."""
    with reading(source), zipfile.ZipFile(source) as archive:
        members = archive.namelist()
        several = hints.find_several([name.removesuffix(".npy") for name in members])
        for name in dict.fromkeys((*several, *ARRAYS, *LISTS)):
            if f"{name}.npy" not in members:
                continue
            path = array_file(folder, name, several)
            _copy(archive, f"{name}.npy", path, source)
            # Looked at here, where the archive is known: what is wrong is wrong with its member.
            values = map_array(path, source / f"{name}.npy")
            if name in LISTS:
                write_names(folder, name, values.tolist())
                path.unlink()


def _copy(archive: zipfile.ZipFile, member: str, path: Path, source: Path) -> None:
    """Copies a member of an archive to a file."""
    with reading(source / member):
        check_room(source, path.parent, archive.getinfo(member).file_size)
        with archive.open(member) as packed, writing(path), path.open("wb") as file:
            while block := _read_block(packed.read, source / member):
                file.write(block)


def _read_block(read: Callable[[int], bytes], named: Path) -> bytes:
    # Within this, a decompressor's `OSError` is not taken for one of the disk that is written.
    with reading(named):
        return read(BLOCK_BYTES)
