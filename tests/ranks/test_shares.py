import itertools

import numpy as np
import pytest

from hvd_xai.probe.probe import Probe
from hvd_xai.ranks.shares import SHARDS_PER_RANK, cut, shares
from hvd_xai.storage import arrays


@pytest.mark.parametrize("n_samples", [1, 3, 255, 256, 5_000, 16 * 256, 16 * 256 * 3 + 7, 100_000])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 16])
def test_shares_are_even_and_end_between_zarr_shards_where_those_are_many(
    n_samples: int, size: int
) -> None:
    edges = cut(n_samples, size, 256)
    lengths = [stop - start for start, stop in itertools.pairwise(edges)]
    assert (edges[0], edges[-1], len(lengths)) == (0, n_samples, size)
    assert min(lengths) >= 0
    if -(-n_samples // 256) >= SHARDS_PER_RANK * size:
        assert all(edge % 256 == 0 for edge in edges[:-1])
        assert max(lengths) <= n_samples / size * (1 + 1 / SHARDS_PER_RANK) + 1
    else:
        assert max(lengths) - min(lengths) <= 1


def test_a_probe_of_many_rows_is_cut_between_the_zarr_shards_of_its_attributions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arrays, "SHARD_BYTES", 256)  # 32 rows of four float16
    probe = Probe(np.zeros((1_100, 4), np.float32), np.zeros(1_100, np.int32))
    assert shares(probe, 2) == [0, 17 * 32, 1_100]


def test_ranks_without_a_row_have_an_empty_share() -> None:
    probe = Probe(np.zeros((2, 4), np.float32), np.zeros(2, np.int32))
    assert shares(probe, 4) == [0, 0, 1, 1, 2]
