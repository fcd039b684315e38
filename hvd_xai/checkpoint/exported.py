"""Writes explanations into one file of another format, whole or not at all.

Formats are the modules of `hvd_xai/checkpoint/export/`. Each says by `SUFFIX` how its files end,
and by `write` how explanations get into one, in blocks, so that memory stays bounded.
"""

import importlib
import pkgutil
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

from hvd_xai.checkpoint import export as formats
from hvd_xai.checkpoint.epochs import EpochStack
from hvd_xai.protocols import Progress, Silent
from hvd_xai.storage.durable import STAGING, fsync_file, writing


@runtime_checkable
class Format(Protocol):
    """A format of files; a module fills it."""

    SUFFIX: str

    def write(self, stacks: Sequence[EpochStack], destination: Path, progress: Progress, /) -> None:
        """Writes explanations into a file that does not exist yet."""


def load_formats() -> dict[str, Format]:
    """Returns all formats by the ending of their files' names."""
    names = sorted(module.name for module in pkgutil.iter_modules(formats.__path__))
    found = [
        cast("Format", importlib.import_module(f"{formats.__name__}.{name}")) for name in names
    ]
    return {one.SUFFIX: one for one in found}


def export(
    stacks: Sequence[EpochStack], destination: Path, progress: Progress | None = None
) -> None:
    """Writes explanations into one file; the ending of its name says the format.

    Args:
        stacks: explanations of each method.
        destination: the file; a file that exists is replaced.
        progress: told of every block; nobody is told if left out.

    Raises:
        ValueError: if no format has this ending, or there is no such folder.
        CheckpointError: if an explanation is damaged, or the file cannot be written.
        ImportError: if the format needs a library that is not installed.
    """
    known = load_formats()
    if destination.suffix not in known:
        raise ValueError(
            f"the file's ending says the format, one of {', '.join(sorted(known))}; got"
            f" '{destination.name}'"
        )
    if not destination.absolute().parent.is_dir():
        raise ValueError(
            f"the folder '{destination.parent}' does not exist; make it, or choose another"
        )
    progress = progress or Silent()
    n_rows = sum(len(stack.epochs) * len(stack.sample_ids) for stack in stacks)
    progress.start(f"export {destination.name}", n_rows)
    # a file that is not whole never has the name that was asked for
    written = destination.with_name(f"{STAGING}{destination.name}-{secrets.token_hex(4)}")
    try:
        with writing(destination):
            known[destination.suffix].write(stacks, written, progress)
            fsync_file(written)
            written.replace(destination)
    finally:
        written.unlink(missing_ok=True)
