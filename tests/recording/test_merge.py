"""Rows are merged on one rank, and the arithmetic says which rank needs which rows.

Ranks merge in tests/launched.
"""

import numpy as np
import pytest

from hvd_xai.ranks.world import World
from hvd_xai.recording.merge import _shard_starts, merge
from hvd_xai.recording.row_buffer import RowBuffer

DTYPE = np.dtype([("sample_id", "<i8"), ("values", "<f4", (5,)), ("score", "<f4")])


def _rows(n: int) -> np.ndarray:
    rows = np.zeros(n, DTYPE)
    rows["sample_id"] = np.arange(n)
    rows["values"] = rows["sample_id"][:, None] * 0.5
    rows["score"] = -rows["sample_id"]
    return rows


def _buffer(n: int) -> RowBuffer:
    buffer = RowBuffer(DTYPE)
    buffer.append(_rows(n))
    return buffer


@pytest.mark.parametrize("n", [0, 1, 10])
def test_the_root_alone_keeps_its_rows(n: int) -> None:
    merged = merge(World.alone(), _buffer(n), round_bytes=3 * DTYPE.itemsize)
    np.testing.assert_array_equal(merged.rows.read(0, n), _rows(n))
    assert merged.parts == ()
    merged.close()


@pytest.mark.parametrize("n", [0, 1, 10])
def test_a_field_that_ranks_write_themselves_is_not_among_the_roots_rows(n: int) -> None:
    merged = merge(World.alone(), _buffer(n), {"values": 4})
    (part,) = merged.parts
    assert merged.rows.dtype.names == ("sample_id", "score")
    assert (part.name, part.first, len(part.theirs)) == ("values", 0, 0)
    blocks = [np.empty((0, 5), np.float32), *part.blocks(2 * DTYPE["values"].itemsize)]
    assert [len(block) for block in blocks[1:]] == [2] * (n // 2) + [1] * (n % 2)
    np.testing.assert_array_equal(np.concatenate(blocks), _rows(n)["values"])
    merged.close()
    merged.close()


def test_a_buffer_that_fails_raises_its_own_error_and_frees_the_others() -> None:
    buffer = _buffer(10)
    buffer.close()
    with pytest.raises(ValueError, match="closed file"):
        merge(World.alone(), buffer, {"values": 4})


@pytest.mark.parametrize(
    ("starts", "shard_rows", "expected"),
    [
        ([0, 3, 6, 10], 4, [0, 4, 8, 10]),  # as it is drawn in the module
        ([0, 3, 6, 10], 1, [0, 3, 6, 10]),  # a row is a Zarr shard: nothing travels
        ([0, 3, 6, 10], 100, [0, 10, 10, 10]),  # the first rank writes the only one
        ([0, 0, 0, 10], 4, [0, 0, 0, 10]),  # the last rank has all rows
        ([0, 5, 6, 7, 10], 4, [0, 8, 8, 8, 10]),  # none begins among rows 5 to 7
        ([0, 0, 0], 4, [0, 0, 0]),
    ],
)
def test_a_zarr_shard_belongs_to_the_rank_among_whose_rows_it_begins(
    starts: list[int], shard_rows: int, expected: list[int]
) -> None:
    assert _shard_starts(np.array(starts, np.int64), shard_rows).tolist() == expected
