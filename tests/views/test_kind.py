"""Kinds of data are found by their modules."""

from pathlib import Path

import numpy as np
import pytest

from hvd_xai.probe.facts import ProbeFacts
from hvd_xai.views import kinds
from hvd_xai.views.kind import find_kind, kind_names, load_kind

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
