"""From the rows of all ranks to a committed checkpoint that the sinks have seen."""

import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from hvd_xai.checkpoint.arrays import shard_rows
from hvd_xai.checkpoint.commit import STAGING
from hvd_xai.checkpoint.schema import FileEntry, Header
from hvd_xai.checkpoint.writer import Writer, Written, write_shards
from hvd_xai.errors import CheckpointError
from hvd_xai.merge import Merged, Spool, merge
from hvd_xai.sinks import Sink
from hvd_xai.sinks.checkpoint import Checkpoint
from hvd_xai.types import Json
from hvd_xai.world import ROOT, World

Merge: TypeAlias = Literal["auto", "direct", "root"]
"""Who writes the large arrays: the root, each rank its own Zarr shards directly, or that where the ranks share the filesystem."""


@dataclass(frozen=True, slots=True)
class _Unit:
    """A checkpoint on its way: what this rank writes of it, and where; on the root the writer that commits it."""

    header: Header
    merged: Merged
    staged: Path
    writer: Writer | None

    def write(self) -> Written:
        """Writes this rank's part; it touches files only."""
        if self.writer is not None:
            for rows in self.merged.rows.blocks():
                self.writer.append(rows)
        parts = []
        for part in self.merged.parts:
            shape = (self.header.n_samples, *self.merged.mine.dtype[part.name].shape)
            parts.append(write_shards(self.staged, part.name, shape, part.first, part.blocks()))
        self.merged.close()
        return Written(tuple(file for part in parts for file in part.files), sum(part.nonfinite for part in parts))


class Recorder:
    """Merges the ranks' rows, writes them, commits, and shows the sinks. Collective: every rank must make one.

    Args:
        world: the ranks.
        checkpoint: where explanations are committed; the root has opened it.
        sinks: called on the root with each committed explanation.
        merge: who writes the large arrays.

    Raises:
        CheckpointError: on all ranks, if `merge` is "direct" and some cannot write where the root does.
        ValueError: if `merge` is none there is.
    """

    def __init__(self, world: World, checkpoint: Checkpoint, sinks: Sequence[Sink] = (), *, merge: Merge = "auto") -> None:
        if merge not in ("auto", "direct", "root"):
            raise ValueError(f"merge must be 'auto', 'direct' or 'root'; got {merge!r}")
        self._world, self._checkpoint, self._sinks = world, checkpoint, tuple(sinks)
        self._is_direct = merge != "root" and self._share_files(required=merge == "direct")
        self._unit: _Unit | None = None

    def _share_files(self, *, required: bool) -> bool:
        """Returns whether every rank can write where the root does. Collective: every rank must call this."""
        world, folder = self._world, self._checkpoint.explanations_dir
        phase = "finding out who shares the filesystem"
        name = str(world.allgather(phase, f"{STAGING}{secrets.token_hex(8)}")[ROOT])  # nobody else's, and never looked up before
        with world.together(phase):
            if world.is_root:
                (folder / name).mkdir()
        can_write = True
        try:
            (folder / name / str(world.rank)).touch()
        except OSError:
            can_write = False
        answers = world.allgather(phase, can_write)
        with world.together(phase):
            if world.is_root:
                shutil.rmtree(folder / name)
        apart = [rank for rank, answer in enumerate(answers) if not answer]
        if apart and required:
            where = f"rank {apart[0]} on {world.hosts[apart[0]]} cannot write to {folder} of rank 0 on {world.hosts[ROOT]}"
            world.agree(phase, CheckpointError(f"{where}. Give a folder that all hosts share, or merge='root'."))
        return not apart

    def merge(self, header: Header, spool: Spool) -> None:
        """Brings all ranks' rows to those that write them. Collective: every rank must call this.

        Args:
            header: of the checkpoint.
            spool: this rank's rows; closed when they are written.

        Raises:
            PeerError: on all ranks, if any rank failed.
        """
        world, dtype = self._world, spool.dtype
        large = [name for name in dtype.names or () if dtype[name].shape] if self._is_direct else []
        shards = {name: shard_rows((header.n_samples, *dtype[name].shape), dtype[name].base) for name in large}
        with world.together("beginning an explanation checkpoint"):
            writer = self._checkpoint.begin(header, dtype, elsewhere=large) if world.is_root else None
        try:
            # a name that means the same folder on every rank, wherever each of them stands
            named = None if writer is None else str(writer.staged.relative_to(self._checkpoint.explanations_dir))
            staged = self._checkpoint.explanations_dir / str(world.allgather("naming the staging folder", named)[ROOT])
            self._unit = _Unit(header, merge(world, spool, shards), staged, writer)
        except BaseException:
            if writer is not None:
                self._checkpoint.discard(writer.destination)
            raise

    def commit(self) -> None:
        """Writes what was merged, commits it and shows it to the sinks. Collective: every rank must call this.

        Raises:
            PeerError: on all ranks, if any rank failed; nothing is committed then.
        """
        unit, world = self._unit, self._world
        if unit is None:
            return
        mine: list[Json] = []
        with world.together("writing an explanation checkpoint"):
            mine = _to_json(unit.write())
        written = [_from_json(part) for part in world.allgather("gathering what was written", mine)]
        with world.together("committing an explanation checkpoint"):
            if unit.writer is not None:
                committed = self._checkpoint.commit(unit.writer, written)
                for sink in self._sinks:
                    sink(committed)
        self._unit = None

    def discard(self) -> None:
        """Discards what was not committed; each rank may do it by itself."""
        if self._unit is not None:
            self._unit.merged.close()
            if self._unit.writer is not None:
                self._checkpoint.discard(self._unit.writer.destination)
        self._unit = None


def _to_json(written: Written) -> list[Json]:
    return [written.nonfinite, [[file.key, file.size, file.xxh3_128] for file in written.files]]


def _from_json(message: Any) -> Written:
    nonfinite, files = message
    return Written(tuple(FileEntry(*file) for file in files), nonfinite)
