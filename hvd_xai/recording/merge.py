"""Brings the rows of all ranks to the ranks that write them, in order, in bounded memory.

Each rank buffers the rows of its share while it computes them. Once all ranks have agreed that
their rows are there, the rows travel in rounds of some megabytes, so that no rank holds more than a
round, however many ranks and rows there are.

There are two ways. Either everything goes to the root, which writes it; this needs nothing but the
ranks. Or, where the ranks share a filesystem, each rank keeps its rows of the large arrays and
writes their Zarr shards itself: then the rest of a Zarr shard that another rank began travels, and
the small arrays, which the root writes. The bytes on disk are the same.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import numpy as np
from jaxtyping import Int64, Shaped

from hvd_xai.ranks.world import World
from hvd_xai.recording.row_buffer import ROUND_BYTES, RowBuffer, select_fields

_PHASE = "merging rows"
Args = ParamSpec("Args")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one field that this rank writes: whole Zarr shards.

    Attributes:
        name: name of the field.
        first: number, among all ranks' rows, of the first row; a Zarr shard begins there.
        mine: buffer of this rank's rows; those from `start` on belong to the part.
        start: number, in this rank's buffer, of the first row that belongs to the part.
        theirs: rows of later ranks that follow, up to the end of a Zarr shard.
    """

    name: str
    first: int
    mine: RowBuffer
    start: int
    theirs: RowBuffer

    def blocks(self, n_bytes: int = ROUND_BYTES) -> Iterator[Shaped[np.ndarray, "n ..."]]:
        """Yields the values in order, in blocks of at most `n_bytes`, or of one row."""
        size = max(1, n_bytes // self.theirs.dtype.itemsize)
        for buffer, begin in ((self.mine, self.start), (self.theirs, 0)):
            for start in range(begin, len(buffer), size):
                yield buffer.column(self.name, start, min(len(buffer), start + size))


@dataclass(frozen=True, slots=True)
class Merged:
    """Everything that this rank writes. Closing it frees all memory and files.

    Attributes:
        rows: on the root all ranks' rows, with the fields that no rank writes for itself; empty
            elsewhere.
        parts: one part for each field that the ranks write themselves.
        mine: the buffer that was merged, from which the parts go on reading.
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
    """Brings all ranks' rows, in the order of ranks, to the ranks that write them.

    Collective: every rank must call this.

    Args:
        world: the ranks.
        buffer: this rank's rows, which may be none, of the same dtype on all ranks; closed by
            `Merged.close`.
        shards: number of rows in a Zarr shard, for each field whose Zarr shards the ranks write
            themselves; all other fields go to the root.
        round_bytes: most bytes that one rank receives at a time.

    Raises:
        PeerError: on every rank, if a buffer failed. Nothing hangs: the rounds go on without
            effect to their end.
        ValueError: on every rank, if the ranks' rows differ in dtype; no row has travelled then.

    Example:
        >>> buffer = RowBuffer(np.dtype([("sample_id", "<i8")]))
        >>> buffer.append(np.zeros(3, buffer.dtype))
        >>> merged = merge(World.alone(), buffer)
        >>> len(merged.rows)
        3
        >>> merged.close()
    """
    starts = _share_starts(world, buffer)
    shards = shards or {}
    to_root = [name for name in buffer.dtype.names or () if name not in shards]
    rows = RowBuffer(select_fields(buffer.dtype, to_root))
    parts = tuple(
        _make_part(world, buffer, starts, name, shard_rows) for name, shard_rows in shards.items()
    )
    merged = Merged(rows, parts, buffer)
    # every rank goes through the same rounds in the same order: their number follows from `starts`
    # and the dtype, which are the same everywhere, and never from what failed
    steps = _LocalSteps()
    _gather_at_root(world, starts, merged, steps, round_bytes)
    for part in parts:
        _complete_last_shard(world, starts, part, shards[part.name], steps, round_bytes)
    try:
        world.agree(_PHASE, steps.error)
    except Exception:
        merged.close()
        raise
    return merged


class _LocalSteps:
    """Takes local steps between collectives, until one fails.

    After a failure it takes no further step and returns a stand-in, so that this rank keeps
    company in the collectives until the ranks agree on the error.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None

    def take(
        self, otherwise: Value, step: Callable[Args, Value], *args: Args.args, **kwargs: Args.kwargs
    ) -> Value:
        """Returns what a step returns; the stand-in `otherwise` if it, or one before, fails."""
        if self.error is None:
            try:
                return step(*args, **kwargs)
            except Exception as caught:  # noqa: BLE001
                self.error = caught
        return otherwise


# The index algebra below counts rows through all ranks, in the order of ranks. Three ranks with 3,
# 3 and 4 rows, and Zarr shards of 4 rows:
#
#     row            0   1   2   3 | 4   5   6   7 | 8   9
#     rank           0   0   0   1   1   1   2   2   2   2
#     starts         0           3           6               10
#     shard_starts   0               4               8       10
#
#     rank 0 writes rows 0 to 3, and needs row 3 of rank 1
#     rank 1 writes rows 4 to 7, and needs rows 6 and 7 of rank 2
#     rank 2 writes rows 8 and 9


def _share_starts(world: World, buffer: RowBuffer) -> Int64[np.ndarray, "p"]:
    """Returns the row at which each rank's share begins, and last the number of rows.

    Collective: every rank must call this.
    """
    complaint = "its rows have other fields. Give every rank the same methods and the same probe."
    world.same(_PHASE, str(buffer.dtype.descr), complaint)
    counts = world.allgather(_PHASE, len(buffer))
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _shard_starts(starts: Int64[np.ndarray, "p"], shard_rows: int) -> Int64[np.ndarray, "p"]:
    """Returns the row at which the Zarr shards of each rank begin, and last the number of rows.

    A Zarr shard belongs to the rank among whose rows it begins; a rank may have none.
    """
    # rounded up to the first row of a Zarr shard; the last Zarr shard may be short
    edges: np.ndarray = np.minimum(-(-starts // shard_rows) * shard_rows, starts[-1])
    return edges


def _make_part(
    world: World, buffer: RowBuffer, starts: np.ndarray, name: str, shard_rows: int
) -> Part:
    first = int(_shard_starts(starts, shard_rows)[world.rank])
    # where no Zarr shard begins among this rank's rows, `first` lies behind all of them
    start = min(len(buffer), first - int(starts[world.rank]))
    return Part(name, first, buffer, start, RowBuffer(select_fields(buffer.dtype, [name])))


def _gather_at_root(
    world: World, starts: np.ndarray, merged: Merged, steps: _LocalSteps, round_bytes: int
) -> None:
    """Gathers at the root the fields that it writes. Collective: every rank must call this."""
    dtype = merged.rows.dtype
    per_round = max(1, round_bytes // dtype.itemsize)
    for first in range(0, int(starts[-1]), per_round):
        # the round of 4 rows from row 4 on, for the ranks drawn above:
        #
        #     row       4   5   6   7
        #     rank      1   1   2   2
        #     edges     4       6       8     rank r sends rows edges[r] to edges[r + 1],
        #                                     and rank 0, of edges 4 and 4, sends none
        edges = np.clip(starts, first, first + per_round)
        begin, end = (int(edge - starts[world.rank]) for edge in edges[world.rank : world.rank + 2])
        nothing = np.zeros(end - begin, dtype)
        rows = steps.take(nothing, merged.mine.read, begin, end, dtype.names)
        received = world.gather_rows(_PHASE, rows, np.diff(edges).tolist())
        if received is not None:
            steps.take(None, merged.rows.append, received)


def _complete_last_shard(
    world: World,
    starts: np.ndarray,
    part: Part,
    shard_rows: int,
    steps: _LocalSteps,
    round_bytes: int,
) -> None:
    """Sends the rows before a rank's first Zarr shard to the rank whose last Zarr shard they end.

    Collective: every rank must call this.

    No rank receives more than the rest of one Zarr shard.
    """
    dtype, edges = part.theirs.dtype, _shard_starts(starts, shard_rows)
    # the rows of later ranks that each rank wants: from the end of its own rows to the end of its
    # last Zarr shard, and none where it has no Zarr shard. For the ranks drawn above:
    #
    #     rank           0   1   2
    #     wanted from    3   6   10
    #     wanted to      4   8   10
    wanted = np.stack([np.maximum(starts[1:], edges[:-1]), edges[1:]])
    per_round = max(1, round_bytes // dtype.itemsize)
    # as many rounds on every rank as the rank needs that wants most
    for first in range(0, int((wanted[1] - wanted[0]).max()), per_round):
        begins = np.minimum(wanted[0] + first, wanted[1])
        ends = np.minimum(begins + per_round, wanted[1])
        # of what each rank wants in this round, the rows that this rank has; and of what this rank
        # wants, the rows that each rank has
        mine = np.clip([begins, ends], starts[world.rank], starts[world.rank + 1])
        theirs = np.clip(starts, begins[world.rank], ends[world.rank])
        # rows before this rank's first Zarr shard all lie in one Zarr shard, of one other rank: so
        # this rank sends one range of rows, to one rank or, where all counts are 0, to none
        sent = np.diff(mine, axis=0)[0]
        to = int(sent.argmax())
        begin, end = (int(edge - starts[world.rank]) for edge in mine[:, to])
        rows = steps.take(np.zeros(end - begin, dtype), part.mine.read, begin, end, dtype.names)
        received = world.exchange_rows(_PHASE, rows, sent.tolist(), np.diff(theirs).tolist())
        steps.take(None, part.theirs.append, received)
