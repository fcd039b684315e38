"""Doubts are said once a method and epoch, by the root."""

import logging

import pytest

from hvd_xai.analysis.doubts import Tally
from hvd_xai.checkpoint.manifest import Header, RankRows
from hvd_xai.explain.told_doubts import ToldDoubts
from hvd_xai.protocols import ScoreFacts


def make_header(method: str, epoch: int) -> Header:
    return Header(
        run="run",
        epoch=epoch,
        step=0,
        method=method,
        options={},
        n_samples=4,
        sample_shape=(3,),
        world_size=1,
        ranks=(RankRows(0, "here", 0, 4),),
        weights_digest="",
        probe_digest="",
        versions={},
    )


def make_tally(**counts: int) -> Tally:
    return Tally(ScoreFacts(), {**Tally().counts, **counts}, 0.5)  # type: ignore[dict-item]  # names


def test_the_root_says_doubts_once_and_settings_at_one_epoch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told, tally = ToldDoubts(), make_tally(gap=2, **{"other class": 3})
    for epoch in range(2):
        header = told.tell(make_header("saliency", epoch), tally, is_root=True)
        assert header.doubts == {"gap": 2, "other class": 3}
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("saliency at epoch 0: 2 of 4 samples have attributions that miss")
    assert "at worst 50 %" in first
    assert "3 of 4 samples have target 0" in first
    assert "target 0" not in second


def test_other_ranks_and_whole_explanations_are_silent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    told = ToldDoubts()
    assert told.tell(make_header("saliency", 0), make_tally(gap=2), is_root=False).doubts == {
        "gap": 2
    }
    assert told.tell(make_header("grad_cam", 0), make_tally(), is_root=True).doubts == {}
    assert not caplog.records
