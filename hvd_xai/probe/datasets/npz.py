"""`.npz`: the arrays `inputs` and `targets`, and `labels` and `sample_ids` if they are there.

For a model of several inputs it has, in place of `inputs`, an array for each by its name.

The arrays `class_names`, `feature_names` and `vocabulary` of strings are taken as well.
"""

import shutil
import zipfile
from pathlib import Path

import numpy as np

from hvd_xai.probe.dataset_format import Hints, Match
from hvd_xai.probe.unpacked import ARRAYS, BLOCK_BYTES, LISTS, array_file, write_names
from hvd_xai.storage.durable import writing

ACCEPTS = ".npz"


def match(source: Path) -> Match:
    """Recognizes an `.npz` file by its name."""
    return Match.CERTAIN if source.suffix == ".npz" else Match.NO


def unpack(source: Path, folder: Path, hints: Hints) -> None:
    """Copies the arrays out of the archive, whose members are `.npy` files."""
    try:
        with zipfile.ZipFile(source) as archive:
            members = archive.namelist()
            several = hints.find_several([name.removesuffix(".npy") for name in members])
            for name in dict.fromkeys((*several, *ARRAYS)):
                if f"{name}.npy" in members:
                    path = array_file(folder, name, several)
                    with (
                        writing(path),
                        archive.open(f"{name}.npy") as member,
                        path.open("wb") as file,
                    ):
                        shutil.copyfileobj(member, file, BLOCK_BYTES)
            for name in LISTS:
                if f"{name}.npy" in members:
                    with archive.open(f"{name}.npy") as member:
                        names = np.lib.format.read_array(member, allow_pickle=False)
                    write_names(folder, name, names.tolist())
    except zipfile.BadZipFile as error:
        raise ValueError(f"'{source}' is damaged, or no .npz file: {error}") from error
