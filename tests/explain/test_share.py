"""A rank's share of the probe has its rows, cut into blocks."""

import numpy as np
import pytest

from hvd_xai.checkpoint.manifest import RankRows
from hvd_xai.checkpoint.probe_writer import probe_digest
from hvd_xai.explain.share import BLOCK_BYTES, ProbeShare
from hvd_xai.probe.probe import Probe
from hvd_xai.ranks.world import World

PROBE = Probe(np.arange(30, dtype=np.float32).reshape(10, 3), np.arange(10), np.arange(10) * 2)


def _share(start: int, stop: int) -> ProbeShare:
    return ProbeShare(PROBE, 1, (RankRows(0, "a", 0, start), RankRows(1, "b", start, stop)))


def test_a_rank_alone_has_all_rows_and_the_digest_is_agreed_on() -> None:
    share = ProbeShare.cut(PROBE, World.alone())
    assert (share.start, share.stop, len(share), share.digest) == (0, 10, 10, "")
    assert share.agree(World.alone()).digest == probe_digest(PROBE)


def test_examples_are_the_shares_or_those_of_the_rows_that_are_asked_for() -> None:
    share = _share(4, 9)
    for rows, examples in (
        (slice(4, 9), share.examples()),
        (slice(5, 7), share.examples(5, 7)),
        (slice(4, 6), share.examples(stop=6)),
    ):
        for got, want in zip(
            examples, (PROBE.inputs, PROBE.targets, PROBE.sample_ids), strict=True
        ):
            np.testing.assert_array_equal(got, want[rows])


@pytest.mark.parametrize("sample_shape", [(3,), (1024, 1024)])
@pytest.mark.parametrize("micro_batch", [1, 2, 64, 1000])
def test_blocks_cover_the_share_in_whole_micro_batches(
    sample_shape: tuple[int, ...], micro_batch: int
) -> None:
    blocks = _share(1, 10).blocks(sample_shape, micro_batch)
    assert [row for start, stop in blocks for row in range(start, stop)] == list(range(1, 10))
    whole = min(micro_batch, 64)
    assert all((stop - start) % whole == 0 for start, stop in blocks[:-1])
    largest = max(stop - start for start, stop in blocks)
    assert largest <= max(whole, BLOCK_BYTES // (4 * int(np.prod(sample_shape))))


def test_an_empty_share_is_one_empty_block() -> None:
    assert _share(10, 10).blocks((3,), 8) == [(10, 10)]


def test_a_share_that_is_not_finite_is_refused() -> None:
    inputs = np.ones((4, 3), np.float32)
    inputs[3, 0] = np.inf
    with pytest.raises(ValueError, match=r"must be finite.*sample id 3"):
        ProbeShare.cut(Probe(inputs, np.zeros(4, np.int32)), World.alone()).agree(World.alone())
