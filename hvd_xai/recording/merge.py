"""Brings the rows of all ranks to those that write them, in order, in bounded memory.

Each rank buffers the rows of its shard while it computes them. Once all ranks have agreed that
theirs are there, the rows travel in rounds of some megabytes, so that nobody holds more than a
round however many ranks and rows there are.

There are two ways. Everything goes to the root, which writes it; this needs nothing but the ranks.
Or, where they share a filesystem, each rank keeps its rows of the large arrays and writes their
Zarr shards itself: what travels is the rest of a Zarr shard that another rank began, and the small
arrays, which the root writes. The bytes on disk are the same.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import numpy as np
from jaxtyping import Int64, Shaped

from hvd_xai.ranks.world import World
from hvd_xai.recording.row_buffer import ROUND_BYTES, RowBuffer, fields_of

_PHASE = "merging rows"
Args = ParamSpec("Args")
Value = TypeVar("Value")


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
    mine: RowBuffer
    start: int
    theirs: RowBuffer

    def blocks(self, n_bytes: int = ROUND_BYTES) -> Iterator[Shaped[np.ndarray, "n ..."]]:
        """Goes through the values in blocks of `n_bytes` at most, or one row; there may be none."""
        size = max(1, n_bytes // self.theirs.dtype.itemsize)
        for buffer, begin in ((self.mine, self.start), (self.theirs, 0)):
            for start in range(begin, len(buffer), size):
                yield buffer.column(self.name, start, min(len(buffer), start + size))


@dataclass(frozen=True, slots=True)
class Merged:
    """What this rank writes. Closing it frees all memory and files.

    Attributes:
        rows: on the root the rows of all ranks, of those fields that no rank writes for itself;
            elsewhere none.
        parts: one for each field that the ranks write themselves.
        mine: the buffer that was merged.
    """

    rows: RowBuffer
    parts: tuple[Part, ...]
    mine: RowBuffer

    def close(self) -> None:
        """Frees memory and files. Safe to call twice."""
        for buffer in (self.rows, self.mine, *(part.theirs for part in self.parts)):
            buffer.close()


def merge(
    world: World,
    buffer: RowBuffer,
    shards: Mapping[str, int] | None = None,
    *,
    round_bytes: int = ROUND_BYTES,
) -> Merged:
    """Brings the rows of all ranks, in the order of ranks, to those that write them.

    Collective: every rank must call this.

    Args:
        world: the ranks.
        buffer: this rank's rows, which may be none; all ranks' are of one dtype. What is returned
            goes on reading it.
        shards: rows of a Zarr shard, for each field whose shards the ranks write themselves; all
            others go to the root.
        round_bytes: how much one rank receives at a time.

    Raises:
        PeerError: on every rank, if a buffer failed. Nothing hangs: the rounds go on without
            effect to their end.
        ValueError: on every rank, if the ranks' rows differ in dtype; no row has travelled then.
    """
    starts = _starts(world, buffer)
    shards = shards or {}
    attempts = _Attempts()
    rows = RowBuffer(
        fields_of(buffer.dtype, [name for name in buffer.dtype.names or () if name not in shards])
    )
    merged = Merged(
        rows,
        tuple(_part(world, buffer, starts, name, size) for name, size in shards.items()),
        buffer,
    )
    _gather(world, buffer, starts, rows, attempts, round_bytes)
    for part in merged.parts:
        _complete(world, starts, part, shards[part.name], attempts, round_bytes)
    try:
        world.agree(_PHASE, attempts.error)
    except Exception:
        merged.close()
        raise
    return merged


class _Attempts:
    """Takes local steps between collectives, until one fails; what is returned then lets the ranks
    go on to where they agree.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __call__(
        self, otherwise: Value, step: Callable[Args, Value], *args: Args.args, **kwargs: Args.kwargs
    ) -> Value:
        if self.error is None:
            try:
                return step(*args, **kwargs)
            except Exception as caught:  # noqa: BLE001
                self.error = caught
        return otherwise


def _starts(world: World, buffer: RowBuffer) -> Int64[np.ndarray, "p"]:
    """Returns the row that each rank's begin at, and last how many there are in all.

    Collective: every rank must call this.
    """
    world.same(
        _PHASE,
        str(buffer.dtype.descr),
        "its rows have other fields. Give every rank the same methods and the same probe.",
    )
    return np.concatenate([[0], np.cumsum(world.allgather(_PHASE, len(buffer)))]).astype(np.int64)


def _gather(
    world: World,
    buffer: RowBuffer,
    starts: np.ndarray,
    into: RowBuffer,
    attempts: _Attempts,
    round_bytes: int,
) -> None:
    """Gathers fields of all rows at the root. Collective: every rank must call this."""
    per_round = max(1, round_bytes // into.dtype.itemsize)
    for first in range(0, int(starts[-1]), per_round):
        # rows first to last of all, cut at where each rank's begin and end
        edges = np.clip(starts, first, first + per_round)
        begin, end = (int(edge - starts[world.rank]) for edge in edges[world.rank : world.rank + 2])
        rows = attempts(
            np.zeros(end - begin, into.dtype), buffer.read, begin, end, into.dtype.names
        )
        received = world.gather_rows(_PHASE, rows, np.diff(edges).tolist())
        if received is not None:
            attempts(None, into.append, received)


def _edges(starts: np.ndarray, shard_rows: int) -> Int64[np.ndarray, "p"]:
    """Returns the rows that each rank's Zarr shards begin at: those that begin among its own rows
    are its.
    """
    edges: np.ndarray = np.minimum(-(-starts // shard_rows) * shard_rows, starts[-1])
    return edges


def _part(world: World, buffer: RowBuffer, starts: np.ndarray, name: str, shard_rows: int) -> Part:
    first = int(_edges(starts, shard_rows)[world.rank])
    return Part(
        name,
        first,
        buffer,
        min(len(buffer), first - int(starts[world.rank])),
        RowBuffer(fields_of(buffer.dtype, [name])),
    )


def _complete(
    world: World,
    starts: np.ndarray,
    part: Part,
    shard_rows: int,
    attempts: _Attempts,
    round_bytes: int,
) -> None:
    """Sends the rows before a rank's first Zarr shard to the rank whose last one they end.

    Collective: every rank must call this.

    Nobody receives more than the rest of a Zarr shard.
    """
    dtype, edges = part.theirs.dtype, _edges(starts, shard_rows)
    # each rank wants these rows of later ranks, and none where no Zarr shard begins among its own
    wanted = np.stack([np.maximum(starts[1:], edges[:-1]), edges[1:]])
    per_round = max(1, round_bytes // dtype.itemsize)
    for first in range(0, int((wanted[1] - wanted[0]).max()), per_round):
        begins = np.minimum(wanted[0] + first, wanted[1])
        ends = np.minimum(begins + per_round, wanted[1])
        # of what each rank wants
        mine = np.clip([begins, ends], starts[world.rank], starts[world.rank + 1])
        theirs = np.clip(starts, begins[world.rank], ends[world.rank])  # of what this rank wants
        # what this rank sends goes to one rank, or to none: it is one range of its rows
        sent = np.diff(mine, axis=0)[0]
        to = int(sent.argmax())
        begin, end = (int(edge - starts[world.rank]) for edge in mine[:, to])
        rows = attempts(np.zeros(end - begin, dtype), part.mine.read, begin, end, dtype.names)
        received = world.exchange_rows(_PHASE, rows, sent.tolist(), np.diff(theirs).tolist())
        attempts(None, part.theirs.append, received)
