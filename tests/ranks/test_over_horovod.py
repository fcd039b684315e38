"""Collectives over Horovod take messages apart where they were put together.

How ranks meet over Horovod is tested where they are launched.
"""

import os
import struct
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from hvd_xai.errors import HorovodMissingError
from hvd_xai.ranks.over_horovod import OverHorovod, start_horovod


def sent(message: bytes) -> np.ndarray:
    return np.frombuffer(struct.pack("<q", len(message)) + message, np.uint8)


def carrier(rank: int, *before: np.ndarray) -> OverHorovod:
    """Returns the carrier of the last rank, whose Horovod puts `before` in front of what it sends,
    as from the other ranks."""

    def allgather(block: np.ndarray, name: str) -> np.ndarray:
        return np.concatenate([*before, block])

    def alltoall(block: np.ndarray, splits: np.ndarray, name: str) -> Any:
        assert splits.sum() == len(block)
        return np.concatenate([*before, block[len(block) - splits[-1] :]]), None

    horovod = ModuleType("horovod_with_earlier_ranks")
    vars(horovod).update(
        rank=lambda: rank, size=lambda: len(before) + 1, allgather=allgather, alltoall=alltoall
    )
    return OverHorovod(horovod, 30.0)


@pytest.mark.parametrize("mine", [b"de", b""])
def test_messages_of_any_length_arrive_in_the_order_of_ranks(mine: bytes) -> None:
    messages = carrier(2, sent(b"abc"), sent(b"")).allgather("testing", mine)
    assert messages == [b"abc", b"", mine]


def test_rows_are_the_roots_alone() -> None:
    theirs, mine = np.zeros((2, 3), np.float32), np.ones((1, 3), np.float32)
    block = theirs.view(np.uint8).reshape(-1)
    gathered = carrier(0, block).gather("testing", mine, [2, 1])
    np.testing.assert_array_equal(gathered, np.concatenate([theirs, mine]))
    assert carrier(1, block).gather("testing", mine, [2, 1]) is None


def test_exchanged_rows_get_back_their_dtype_and_shape() -> None:
    theirs, mine = np.zeros((1, 3), np.float32), np.ones((3, 3), np.float32)
    rows = carrier(1, theirs.view(np.uint8).reshape(-1)).exchange("testing", mine, [1, 2], [1, 2])
    np.testing.assert_array_equal(rows, np.concatenate([theirs, mine[1:]]))


def test_a_missing_horovod_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "horovod.tensorflow", None)
    monkeypatch.delenv("HOROVOD_STALL_CHECK_TIME_SECONDS", raising=False)
    with pytest.raises(HorovodMissingError, match="hvd-xai install-horovod"):
        start_horovod(90.5)
    assert os.environ["HOROVOD_STALL_CHECK_TIME_SECONDS"] == "90"
