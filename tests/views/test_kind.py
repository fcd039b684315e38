"""Kinds of data are found by their modules."""

from pathlib import Path

import numpy as np
import pytest

from hvd_xai.probe.facts import ProbeFacts
from hvd_xai.views import kinds
from hvd_xai.views.kind import check_kind, find_kind, kind_names, load_kind

OF_WAVES = """
from hvd_xai.views.arrays import Plain, draw_alone
from hvd_xai.views.kind import Fit


def fits(facts):
    return Fit.NAMES if facts.feature_names == ("wave",) * 3 else Fit.NONE


def arrange(sample, size):
    return Plain(sample, size, draw_alone)


def strongest(sample, most):
    return None
"""


def test_a_kind_is_found_by_the_file_that_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "waves.py").write_text(OF_WAVES)
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(tmp_path)])
    assert "waves" in kind_names()
    facts = ProbeFacts((7,), np.dtype(float), ("wave",) * 3)
    assert find_kind(facts) is load_kind("waves")


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        (ProbeFacts((28, 28, 1), np.dtype("u1")), "image"),
        (ProbeFacts((3, 28, 28), np.dtype("f4")), "image"),
        (ProbeFacts((100, 2), np.dtype("f4")), "series"),
        (ProbeFacts((2,), np.dtype("f4")), "series"),
        (ProbeFacts((2,), np.dtype("f4"), ("age", "income")), "table"),
        (ProbeFacts((2,), np.dtype("i4"), vocabulary=("", "a")), "text"),
    ],
)
def test_the_kind_is_told_by_what_the_probe_says(facts: ProbeFacts, name: str) -> None:
    assert find_kind(facts) is load_kind(name)


HYPERSPECTRAL = (16, 16, 30)


def test_a_probe_may_say_its_kind() -> None:
    assert find_kind(ProbeFacts(HYPERSPECTRAL, np.dtype("f4"))) is load_kind("volume")
    said = ProbeFacts(HYPERSPECTRAL, np.dtype("f4"), kind="image")
    check_kind(said)
    assert find_kind(said) is load_kind("image")
    # pictures without an axis of channels look like series
    flat = ProbeFacts((28, 28), np.dtype("f4"), kind="image")
    assert find_kind(flat) is load_kind("image")


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("imgae", r"one of 'image', .*got 'imgae'"),
        ("text", r"'text' cannot draw.*'image', 'volume'"),
    ],
)
def test_a_kind_that_cannot_be_is_refused_and_never_stops_a_reader(kind: str, told: str) -> None:
    facts = ProbeFacts(HYPERSPECTRAL, np.dtype("f4"), kind=kind)
    with pytest.raises(ValueError, match=told):
        check_kind(facts)
    assert find_kind(facts) is load_kind("volume")
