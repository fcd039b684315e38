"""`.npy`: the inputs alone, which are mapped into memory where they lie.

The targets are another `.npy` file.
"""

from pathlib import Path

from hvd_xai.probe.dataset_format import Hints, Match
from hvd_xai.probe.reading import map_array
from hvd_xai.storage.durable import writing

ACCEPTS = ".npy"


def match(source: Path) -> Match:
    """Recognizes a `.npy` file by its name."""
    return Match.CERTAIN if source.suffix == ".npy" else Match.NO


def unpack(source: Path, folder: Path, _hints: Hints) -> None:
    """Links to the file; copies nothing."""
    map_array(source)
    with writing(folder / "inputs.npy"):
        (folder / "inputs.npy").symlink_to(source.resolve(strict=True))
