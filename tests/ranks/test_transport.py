"""All carriers share the bytes of rows, and the sentences that name missing ranks."""

import numpy as np
import pytest

from hvd_xai.ranks.connect import Alone
from hvd_xai.ranks.over_horovod import OverHorovod
from hvd_xai.ranks.over_mpi import OverMpi
from hvd_xai.ranks.transport import (
    Transport,
    as_bytes,
    name_missing_ranks,
    row_bytes,
    row_starts,
)

RECORDS = np.dtype([("sample_id", "<i8"), ("values", "<f2", (3,))])


def test_every_carrier_offers_all_collectives() -> None:
    assert isinstance(Alone(), Transport)
    for carrier in (OverMpi, OverHorovod):
        assert {"allgather", "gather", "exchange", "watch", "abort"} <= set(dir(carrier))


def test_rows_start_where_those_of_earlier_ranks_end() -> None:
    assert row_starts([2, 0, 3, 1]) == [0, 2, 2, 5]
    assert row_starts([4]) == [0]


@pytest.mark.parametrize("rows", [np.arange(6.0).reshape(3, 2), np.ones(2, RECORDS)])
def test_bytes_are_the_rows_own_memory(rows: np.ndarray) -> None:
    assert as_bytes(rows).tobytes() == rows.tobytes()
    assert np.shares_memory(as_bytes(rows), rows)
    assert row_bytes(rows) * len(rows) == rows.nbytes


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0,)])
def test_rows_without_values_have_no_bytes(shape: tuple[int, ...]) -> None:
    assert as_bytes(np.empty(shape, np.float32)).size == 0


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ([], "No rank is missing: all of them wait, for the network or for data."),
        ([3], "Missing: rank 3."),
        (range(10), "Missing: rank 0, 1, 2, 3, 4, 5, 6, 7, 8, 9."),
        (range(12), "Missing: rank 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more."),
    ],
)
def test_missing_ranks_are_named_up_to_ten(missing: list[int] | range, sentence: str) -> None:
    assert name_missing_ranks(missing) == sentence
