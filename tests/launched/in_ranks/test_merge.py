from contextlib import nullcontext

import numpy as np
import pytest

from hvd_xai.errors import PeerError
from hvd_xai.ranks.world import World
from hvd_xai.recording.merge import Merged, merge
from hvd_xai.recording.row_buffer import RowBuffer

DTYPE = np.dtype([("sample_id", "<i8"), ("values", "<f4", (5,))])
EMPTY = ["none", "root", "last", "all but the last", "all but the first", "all"]


def _rows(first: int, n: int) -> np.ndarray:
    rows = np.zeros(n, DTYPE)
    rows["sample_id"] = np.arange(first, first + n)
    rows["values"] = rows["sample_id"][:, None] * 0.5
    return rows


def _counts(world: World, empty: str) -> list[int]:
    counts = [3 + 4 * rank for rank in range(world.size)]
    emptied = {
        "none": [],
        "root": [0],
        "last": [-1],
        "all but the last": range(world.size - 1),
        "all but the first": range(1, world.size),
    }
    for rank in emptied.get(empty, range(world.size)):
        counts[rank] = 0
    return counts


def _buffer(world: World, counts: list[int], memory_bytes: int = 2**20) -> RowBuffer:
    buffer = RowBuffer(DTYPE, memory_bytes)
    first = sum(counts[: world.rank])
    for row in range(counts[world.rank]):
        buffer.append(_rows(first + row, 1))
    return buffer


def _joined(merged: Merged) -> np.ndarray:
    return np.concatenate([np.empty(0, merged.rows.dtype), *merged.rows.blocks(100)])


@pytest.mark.parametrize("round_bytes", [1, 7 * DTYPE.itemsize, 2**20])
@pytest.mark.parametrize("empty", EMPTY)
def test_rows_arrive_at_the_root_whole_and_in_order(
    world: World, empty: str, round_bytes: int
) -> None:
    counts = _counts(world, empty)
    merged = merge(world, _buffer(world, counts), round_bytes=round_bytes)
    np.testing.assert_array_equal(_joined(merged), _rows(0, sum(counts) if world.is_root else 0))
    assert merged.parts == ()
    merged.close()


@pytest.mark.parametrize("shard_rows", [1, 4, 16, 1000])
@pytest.mark.parametrize("empty", EMPTY)
def test_each_rank_writes_the_zarr_shards_that_begin_among_its_rows(
    world: World, empty: str, shard_rows: int
) -> None:
    counts = _counts(world, empty)
    starts = np.concatenate([[0], np.cumsum(counts)])
    merged = merge(
        world,
        _buffer(world, counts),
        {"values": shard_rows},
        round_bytes=3 * DTYPE["values"].itemsize,
    )
    (part,) = merged.parts
    mine = np.concatenate(
        [np.empty((0, 5), np.float32), *part.blocks(2 * DTYPE["values"].itemsize)]
    )
    begun = [
        row for row in range(starts[world.rank], starts[world.rank + 1]) if row % shard_rows == 0
    ]
    wanted = np.arange(begun[0], min(begun[-1] + shard_rows, starts[-1])) if begun else np.arange(0)
    np.testing.assert_array_equal(
        mine, np.broadcast_to(wanted[:, None] * np.float32(0.5), (len(wanted), 5))
    )
    assert part.first == (begun[0] if begun else part.first)
    assert _joined(merged).dtype.names == ("sample_id",)
    assert _joined(merged)["sample_id"].tolist() == (
        list(range(sum(counts))) if world.is_root else []
    )
    merged.close()


def test_a_spool_larger_than_its_memory_merges_from_disk(world: World) -> None:
    merged = merge(world, _buffer(world, [50] * world.size, memory_bytes=100))
    np.testing.assert_array_equal(
        _joined(merged), _rows(0, 50 * world.size if world.is_root else 0)
    )
    merged.close()


@pytest.mark.parametrize("shards", [{}, {"values": 1000}])
def test_a_failing_spool_raises_on_all_ranks_and_nothing_hangs(
    world: World, shards: dict[str, int]
) -> None:
    buffer = _buffer(world, [20] * world.size)
    if world.rank == world.size - 1:
        buffer.close()
    refused = pytest.raises(PeerError if world.size > 1 else ValueError, match="closed file")
    with refused:
        merge(world, buffer, shards, round_bytes=DTYPE.itemsize)
    buffer.close()
    assert world.allgather("testing", world.rank) == list(range(world.size))


def test_rows_of_different_dtypes_are_refused_before_any_travels(world: World) -> None:
    other = np.dtype([("sample_id", "<i8"), ("values", "<f4", (6,))])
    refused = (
        pytest.raises(ValueError, match="rank 1 differs from rank 0: its rows have other")
        if world.size > 1
        else nullcontext()
    )
    with RowBuffer(DTYPE if world.rank == 0 else other) as buffer, refused:
        merge(world, buffer).close()
