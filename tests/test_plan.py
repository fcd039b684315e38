import itertools

import pytest

from hvd_xai.plan import SHARDS_A_RANK, cut


@pytest.mark.parametrize("n_samples", [1, 3, 255, 256, 5_000, 16 * 256, 16 * 256 * 3 + 7, 100_000])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 16])
def test_shares_are_even_and_end_between_zarr_shards_where_those_are_many(n_samples: int, size: int) -> None:
    edges = cut(n_samples, size, 256)
    shares = [stop - start for start, stop in itertools.pairwise(edges)]
    assert (edges[0], edges[-1], len(shares)) == (0, n_samples, size)
    assert min(shares) >= 0
    if -(-n_samples // 256) >= SHARDS_A_RANK * size:
        assert all(edge % 256 == 0 for edge in edges[:-1])
        assert max(shares) <= n_samples / size * (1 + 1 / SHARDS_A_RANK) + 1
    else:
        assert max(shares) - min(shares) <= 1
