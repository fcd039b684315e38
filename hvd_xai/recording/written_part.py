"""Writes one rank's part of a checkpoint, and tells the other ranks what was written."""

from pathlib import Path
from typing import TypeAlias

from hvd_xai.checkpoint.manifest import Header
from hvd_xai.checkpoint.writer import Writer
from hvd_xai.checkpoint.written_shards import Written, write_shards
from hvd_xai.recording.merge import Merged
from hvd_xai.storage.durable import FileEntry

# what `allgather` carries: non-finite values, negative values, each file's key, size and hash
WrittenMessage: TypeAlias = tuple[int, int, tuple[tuple[str, int, str], ...]]


def write_part(header: Header, merged: Merged, staged: Path, writer: Writer | None) -> Written:
    """Writes this rank's part of a checkpoint; it touches files only, for it runs in the thread."""
    if writer is not None:
        for rows in merged.rows.blocks():
            writer.append(rows)
    parts = []
    for part in merged.parts:
        shape = (header.n_samples, *merged.mine.dtype[part.name].shape)
        parts.append(write_shards(staged, part.name, shape, part.first, part.blocks()))
    merged.close()
    files = tuple(file for part in parts for file in part.files)
    return Written(
        files, sum(part.nonfinite for part in parts), sum(part.negative for part in parts)
    )


def to_message(written: Written) -> WrittenMessage:
    """Returns what a rank wrote as other ranks receive it."""
    files = tuple((file.key, file.size, file.xxh3_128) for file in written.files)
    return (written.nonfinite, written.negative, files)


def from_message(message: WrittenMessage) -> Written:
    """Returns what another rank wrote."""
    nonfinite, negative, files = message
    return Written(tuple(FileEntry(*file) for file in files), nonfinite, negative)
