"""Brings the rows of all ranks to those that write them, in order, in bounded memory.

Each rank spools the rows of its shard while it computes them. Once all ranks have agreed that theirs are there, the rows travel in rounds
of some megabytes, so that nobody holds more than a round however many ranks and rows there are.

There are two ways. Everything goes to the root, which writes it; this needs nothing but the ranks. Or, where they share a filesystem, each
rank keeps its rows of the large arrays and writes their Zarr shards itself: what travels is the rest of a Zarr shard that another rank
began, and the small arrays, which the root writes. The bytes on disk are the same.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, ParamSpec, TypeVar

import numpy as np
from jaxtyping import Int64, Shaped

from hvd_xai.checkpoint.commit import writing
from hvd_xai.transports import ROOT
from hvd_xai.world import World

ROUND_BYTES = 4 * 2**20
SPOOL_BYTES = 4 * 2**20

_PHASE = "merging rows"

Args = ParamSpec("Args")
Value = TypeVar("Value")


class Spool:
    """Rows that wait to be merged or written: in memory while they are few, in temporary files beyond `memory_bytes`.

    Each field has a file of its own, so that one can be read without the others. It is a context manager; leaving it closes them.

    Args:
        dtype: of a row, with fields.
        memory_bytes: how much is held in memory.
        path: a folder whose files keep the rows, also those of a job that is killed; the spool begins with the whole rows that are in it.
    """

    def __init__(self, dtype: np.dtype, memory_bytes: int = SPOOL_BYTES, path: Path | None = None) -> None:
        self.dtype = dtype
        self._n_rows = 0
        self._place = path or Path(tempfile.gettempdir())
        self._files: dict[str, IO[bytes] | tempfile.SpooledTemporaryFile[bytes]] = {}
        if path is None:
            in_memory = memory_bytes // dtype.itemsize
            for name in dtype.names or ():
                n_bytes = max(1, in_memory * dtype[name].itemsize)
                self._files[name] = tempfile.SpooledTemporaryFile(max_size=n_bytes, prefix="hvd_xai-")  # noqa: SIM115 - `close`
        else:
            with writing(path):
                path.mkdir(parents=True, exist_ok=True)
                for name in dtype.names or ():
                    (path / name).touch()
                    self._files[name] = (path / name).open("r+b")
            self.truncate(count_rows(path, dtype))

    def __len__(self) -> int:
        return self._n_rows

    def append(self, rows: np.ndarray) -> None:
        """Adds rows at the end.

        Raises:
            TypeError: if they are of another dtype.
            CheckpointError: if the disk is full.
        """
        if rows.dtype != self.dtype:
            raise TypeError(f"the spool holds rows of {self.dtype}; got {rows.dtype}")
        with writing(self._place):
            for name, file in self._files.items():
                file.seek(self._n_rows * self.dtype[name].itemsize)
                file.write(np.ascontiguousarray(rows[name]).data)
                file.flush()
        self._n_rows += len(rows)

    def truncate(self, n_rows: int) -> None:
        """Drops the rows after the first `n_rows`."""
        for name, file in self._files.items():
            file.truncate(n_rows * self.dtype[name].itemsize)
        self._n_rows = n_rows

    def read(self, start: int, stop: int, names: Sequence[str] | None = None) -> np.ndarray:
        """Returns rows `start` to `stop`, with the fields of these names, or all."""
        rows = np.empty(stop - start, self.dtype if names is None else fields_of(self.dtype, names))
        for name in rows.dtype.names or ():
            rows[name] = self.column(name, start, stop)
        return rows

    def column(self, name: str, start: int, stop: int) -> Shaped[np.ndarray, "n ..."]:
        """Returns one field of rows `start` to `stop`."""
        field, file = self.dtype[name], self._files[name]
        if start == stop:  # none of some other range
            return np.empty((0, *field.shape), field.base)
        file.seek(start * field.itemsize)
        return np.frombuffer(file.read((stop - start) * field.itemsize), field.base).reshape(stop - start, *field.shape)

    def blocks(self, n_bytes: int = ROUND_BYTES) -> Iterator[np.ndarray]:
        """Goes through all rows in blocks of `n_bytes` at most, or one row."""
        size = max(1, n_bytes // self.dtype.itemsize)
        for start in range(0, len(self), size):
            yield self.read(start, min(len(self), start + size))

    def close(self) -> None:
        """Frees memory and files. Safe to call twice."""
        for file in self._files.values():
            with suppress(OSError):  # of a write that `append` has raised already
                file.close()

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one field that this rank writes: whole Zarr shards.

    Attributes:
        name: of the field.
        first: the row, of all ranks' rows, that it begins with; a Zarr shard begins there.
        mine: this rank's rows, of which those from `start` on belong to it.
        start: see `mine`; in rows of this rank.
        theirs: rows of later ranks that follow.
    """

    name: str
    first: int
    mine: Spool
    start: int
    theirs: Spool

    def blocks(self, n_bytes: int = ROUND_BYTES) -> Iterator[Shaped[np.ndarray, "n ..."]]:
        """Goes through the values in blocks of `n_bytes` at most, or one row; there may be none."""
        size = max(1, n_bytes // self.theirs.dtype.itemsize)
        for spool, begin in ((self.mine, self.start), (self.theirs, 0)):
            for start in range(begin, len(spool), size):
                yield spool.column(self.name, start, min(len(spool), start + size))


@dataclass(frozen=True, slots=True)
class Merged:
    """What this rank writes. Closing it frees all memory and files.

    Attributes:
        rows: on the root the rows of all ranks, of those fields that no rank writes for itself; elsewhere none.
        parts: one for each field that the ranks write themselves.
        mine: the spool that was merged.
    """

    rows: Spool
    parts: tuple[Part, ...]
    mine: Spool

    def close(self) -> None:
        """Frees memory and files. Safe to call twice."""
        for spool in (self.rows, self.mine, *(part.theirs for part in self.parts)):
            spool.close()


def merge(world: World, spool: Spool, shards: Mapping[str, int] | None = None, *, round_bytes: int = ROUND_BYTES) -> Merged:
    """Brings the rows of all ranks, in the order of ranks, to those that write them. Collective: every rank must call this.

    Args:
        world: the ranks.
        spool: this rank's rows, which may be none; all ranks' are of one dtype. What is returned goes on reading it.
        shards: rows of a Zarr shard, for each field whose shards the ranks write themselves; all others go to the root.
        round_bytes: how much one rank receives at a time.

    Raises:
        PeerError: on every rank, if a spool failed, or the ranks' rows differ in dtype. Nothing hangs: the rounds go on without effect to
            their end.
    """
    starts = _starts(world, spool)
    shards = shards or {}
    attempts = _Attempts()
    rows = Spool(fields_of(spool.dtype, [name for name in spool.dtype.names or () if name not in shards]))
    merged = Merged(rows, tuple(_part(world, spool, starts, name, size) for name, size in shards.items()), spool)
    _gather(world, spool, starts, rows, attempts, round_bytes)
    for part in merged.parts:
        _complete(world, starts, part, shards[part.name], attempts, round_bytes)
    try:
        world.agree(_PHASE, attempts.error)
    except Exception:
        merged.close()
        raise
    return merged


def count_rows(path: Path, dtype: np.dtype) -> int:
    """Returns how many whole rows a spool has in its folder: those of which every field is there.

    Raises:
        FileNotFoundError: if there is no such spool.
    """
    return min((path / name).stat().st_size // dtype[name].itemsize for name in dtype.names or ())


def fields_of(dtype: np.dtype, names: Sequence[str]) -> np.dtype:
    """Returns a dtype of some of another's fields."""
    return np.dtype([(name, dtype[name]) for name in names])


class _Attempts:
    """Takes local steps between collectives, until one fails; what is returned then lets the ranks go on to where they agree."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __call__(self, otherwise: Value, step: Callable[Args, Value], *args: Args.args, **kwargs: Args.kwargs) -> Value:
        if self.error is None:
            try:
                return step(*args, **kwargs)
            except Exception as caught:  # noqa: BLE001 - raised on every rank by the agreement at the end
                self.error = caught
        return otherwise


def _starts(world: World, spool: Spool) -> Int64[np.ndarray, "p"]:
    """Returns the row that each rank's begin at, and last how many there are in all. Collective: every rank must call this."""
    theirs = [entry for entry in world.allgather(_PHASE, [len(spool), str(spool.dtype.descr)]) if isinstance(entry, list)]
    kinds = [str(entry[1]) for entry in theirs]
    odd = next((rank for rank, kind in enumerate(kinds) if kind != kinds[ROOT]), None)
    differ = None if odd is None else TypeError(f"the ranks' rows differ: rank 0 has {kinds[ROOT]}, rank {odd} has {kinds[odd]}")
    world.agree(_PHASE, differ)
    return np.concatenate([[0], np.cumsum([int(str(entry[0])) for entry in theirs])]).astype(np.int64)


def _gather(world: World, spool: Spool, starts: np.ndarray, into: Spool, attempts: _Attempts, round_bytes: int) -> None:
    """Gathers fields of all rows at the root. Collective: every rank must call this."""
    per_round = max(1, round_bytes // into.dtype.itemsize)
    for first in range(0, int(starts[-1]), per_round):
        # rows first to last of all, cut at where each rank's begin and end
        edges = np.clip(starts, first, first + per_round)
        begin, end = (int(edge - starts[world.rank]) for edge in edges[world.rank : world.rank + 2])
        rows = attempts(np.zeros(end - begin, into.dtype), spool.read, begin, end, into.dtype.names)
        received = world.gather_rows(_PHASE, rows, np.diff(edges).tolist())
        if received is not None:
            attempts(None, into.append, received)


def _edges(starts: np.ndarray, shard_rows: int) -> Int64[np.ndarray, "p"]:
    """Returns the rows that each rank's Zarr shards begin at: those that begin among its own rows are its."""
    edges: np.ndarray = np.minimum(-(-starts // shard_rows) * shard_rows, starts[-1])
    return edges


def _part(world: World, spool: Spool, starts: np.ndarray, name: str, shard_rows: int) -> Part:
    first = int(_edges(starts, shard_rows)[world.rank])
    return Part(name, first, spool, min(len(spool), first - int(starts[world.rank])), Spool(fields_of(spool.dtype, [name])))


def _complete(world: World, starts: np.ndarray, part: Part, shard_rows: int, attempts: _Attempts, round_bytes: int) -> None:
    """Sends the rows before a rank's first Zarr shard to the rank whose last one they end. Collective: every rank must call this.

    Nobody receives more than the rest of a Zarr shard.
    """
    dtype, edges = part.theirs.dtype, _edges(starts, shard_rows)
    # each rank wants these rows of later ranks, and none where no Zarr shard begins among its own
    wanted = np.stack([np.maximum(starts[1:], edges[:-1]), edges[1:]])
    per_round = max(1, round_bytes // dtype.itemsize)
    for first in range(0, int((wanted[1] - wanted[0]).max()), per_round):
        begins = np.minimum(wanted[0] + first, wanted[1])
        ends = np.minimum(begins + per_round, wanted[1])
        mine = np.clip([begins, ends], starts[world.rank], starts[world.rank + 1])  # of what each rank wants
        theirs = np.clip(starts, begins[world.rank], ends[world.rank])  # of what this rank wants
        # what this rank sends goes to one rank, or to none: it is one range of its rows
        sent = np.diff(mine, axis=0)[0]
        to = int(sent.argmax())
        begin, end = (int(edge - starts[world.rank]) for edge in mine[:, to])
        rows = attempts(np.zeros(end - begin, dtype), part.mine.read, begin, end, dtype.names)
        received = world.exchange_rows(_PHASE, rows, sent.tolist(), np.diff(theirs).tolist())
        attempts(None, part.theirs.append, received)
