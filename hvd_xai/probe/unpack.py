"""Unpacks a data set of any format into a folder of `.npy` files.

A data set is unpacked once a host; the host's ranks map the files into memory and read what they
need. The formats are the modules of `hvd_xai/probe/datasets/`.
"""

import importlib
import pkgutil
import shutil
from pathlib import Path
from typing import cast

from hvd_xai.errors import advise
from hvd_xai.probe import datasets
from hvd_xai.probe.dataset_format import Format, Hints, Match
from hvd_xai.probe.pack_files import pack_files
from hvd_xai.probe.reading import check_plain, map_array
from hvd_xai.storage.durable import writing


def load_formats() -> list[Format]:
    """Returns all data set formats, in the order of their modules' names."""
    names = sorted(module.name for module in pkgutil.iter_modules(datasets.__path__))
    return [
        cast("Format", importlib.import_module(f"{datasets.__name__}.{name}")) for name in names
    ]


def unpack(
    source: Path,
    folder: Path,
    *,
    targets: Path | None = None,
    hints: Hints | None = None,
    needs_targets: bool = True,
) -> bool:
    """Unpacks a data set into a folder, in bounded memory, and replaces what the folder held.

    Args:
        source: file or folder that holds the data set, in one of the formats.
        folder: folder to unpack into.
        targets: `.npy` file of targets, which replace those of the data set.
        hints: what the data set itself does not say.
        needs_targets: whether a data set without targets is refused.

    Returns:
        Whether there are targets.

    Raises:
        ValueError: if no format can read the data set, it is damaged, holds anything but plain
            files, or lacks inputs or targets.
        OSError: if the data set cannot be read.
        CheckpointError: if the folder cannot be written.

    Example:
        >>> np.savez("data.npz", inputs=inputs, targets=targets)
        >>> unpack(Path("data.npz"), Path("unpacked"))
        True
        >>> sorted(path.name for path in Path("unpacked").iterdir())
        ['inputs.npy', 'targets.npy']
    """
    for path, what in ((source, "data set"), (targets, "file of targets")):
        if path is not None and not path.exists():
            raise ValueError(f"there is no {what} '{path}'")
    with writing(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    hints = hints or Hints()
    check_plain(source)
    _choose_format(source).unpack(source, folder, hints)
    pack_files(folder, hints.inputs)
    if (folder / "inputs.npy").exists() and not (folder / "inputs.npy").stat().st_size:
        raise ValueError(f"'{source}' holds no examples")
    if targets is not None:
        check_plain(targets)
        map_array(targets)
        with writing(folder / "targets.npy"):
            (folder / "targets.npy").unlink(missing_ok=True)
            (folder / "targets.npy").symlink_to(targets.resolve(strict=True))
    absent = [name for name in ("inputs", "targets") if not (folder / f"{name}.npy").exists()]
    if absent and (needs_targets or absent != ["targets"]):
        without = (
            advise(
                script="give Dataset(targets=...), or bind score='predicted' to the methods",
                command="give --targets FILE.npy, or --set score=predicted",
            )
            + " to explain the class that the model finds most likely"
        )
        remedy = without if absent == ["targets"] else "they are found by these names"
        raise ValueError(f"'{source}' has no {' and no '.join(absent)}; {remedy}")
    return not absent


def _choose_format(source: Path) -> Format:
    """Returns the format that matches most surely; of equals, the first by its module's name."""
    formats = load_formats()
    chosen = max(formats, key=lambda one: one.match(source))
    if chosen.match(source) is Match.NO:
        # ".npy" sorts before "a folder ...", so that the endings come first
        *most, last = sorted(one.ACCEPTS for one in formats)
        raise ValueError(f"'{source}' is no data set: give {', '.join(most)}, or {last}")
    return chosen
