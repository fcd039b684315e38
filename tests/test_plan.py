import itertools
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from hvd_xai.attributions.smoothgrad import smoothgrad
from hvd_xai.explain import explain
from hvd_xai.loading import load_method
from hvd_xai.plan import SHARDS_A_RANK, cut
from hvd_xai.types import Probe
from hvd_xai.world import World
from tests.models_under_test import functional


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


def test_of_several_methods_the_one_that_does_not_fit_is_named(tmp_path: Path) -> None:
    probe = Probe(np.zeros((2, 8, 8, 1), np.float32), np.zeros(2, np.int32))
    with pytest.raises(ValueError, match="method 'smoothgrad': noise is a standard deviation"):
        explain(functional(), probe, ["saliency", partial(smoothgrad, noise=-1.0)], world=World.alone(), checkpoint=tmp_path)
    with pytest.raises(ValueError, match=r"^`grad_cam` finds no layer"):
        explain(functional(), probe, [partial(load_method("grad_cam"), layer="dense")], world=World.alone(), checkpoint=tmp_path)
