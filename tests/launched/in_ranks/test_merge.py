from contextlib import nullcontext

import numpy as np
import pytest

from hvd_xai.errors import PeerError
from hvd_xai.merge import Spool, merge
from hvd_xai.world import World

DTYPE = np.dtype([("sample_id", "<i8"), ("values", "<f4", (5,))])


def _rows(first: int, n: int) -> np.ndarray:
    rows = np.zeros(n, DTYPE)
    rows["sample_id"] = np.arange(first, first + n)
    rows["values"] = rows["sample_id"][:, None] * 0.5
    return rows


def _spool(world: World, counts: list[int], memory_bytes: int = 2**20) -> Spool:
    spool = Spool(DTYPE, memory_bytes)
    first = sum(counts[: world.rank])
    for row in range(counts[world.rank]):
        spool.append(_rows(first + row, 1))
    return spool


@pytest.mark.parametrize("round_bytes", [1, 7 * DTYPE.itemsize, 2**20])
@pytest.mark.parametrize("empty", ["none", "root", "last", "all but the last", "all"])
def test_rows_arrive_whole_and_in_order(world: World, empty: str, round_bytes: int) -> None:
    counts = [3 + 4 * rank for rank in range(world.size)]
    emptied = {"none": [], "root": [0], "last": [-1], "all but the last": range(world.size - 1), "all": range(world.size)}[empty]
    for rank in emptied:
        counts[rank] = 0
    blocks: list[np.ndarray] = []
    with _spool(world, counts) as spool:
        merge(world, spool, blocks.append, round_bytes=round_bytes)
    if not world.is_root:
        assert blocks == []
        return
    merged = np.concatenate([np.empty(0, DTYPE), *blocks])
    np.testing.assert_array_equal(merged, _rows(0, sum(counts)))
    assert all(block.nbytes <= max(round_bytes, DTYPE.itemsize) for block in blocks)


def test_a_spool_larger_than_its_memory_merges_from_disk(world: World) -> None:
    blocks: list[np.ndarray] = []
    with _spool(world, [50] * world.size, memory_bytes=100) as spool:
        merge(world, spool, blocks.append)
    if world.is_root:
        np.testing.assert_array_equal(np.concatenate(blocks), _rows(0, 50 * world.size))


def test_a_failing_writer_raises_on_all_ranks_and_nothing_hangs(world: World) -> None:
    def fail(rows: np.ndarray) -> None:
        raise OSError("No space left on device")

    expected = PeerError if world.size > 1 else OSError
    with _spool(world, [20] * world.size) as spool, pytest.raises(expected, match="No space left on device"):
        merge(world, spool, fail, round_bytes=DTYPE.itemsize)
    assert world.allgather("testing", world.rank) == list(range(world.size))


def test_rows_of_different_dtypes_are_refused_before_any_travels(world: World) -> None:
    other = np.dtype([("sample_id", "<i8"), ("values", "<f4", (6,))])
    refused = pytest.raises(TypeError, match="rank 1 has") if world.size > 1 else nullcontext()
    with Spool(DTYPE if world.rank == 0 else other) as spool, refused:
        merge(world, spool, list[np.ndarray]().append)
