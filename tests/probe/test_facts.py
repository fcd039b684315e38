"""A probe states the facts of its inputs."""

from pathlib import Path

import numpy as np

from hvd_xai.checkpoint.reader import open_explanations
from hvd_xai.probe.facts import ProbeFacts
from tests.runs_under_test import make_probe, make_run


def test_a_stored_probe_says_what_it_was_given(tmp_path: Path) -> None:
    probe = make_probe(shape=(3,), feature_names=("a", "b", "c"))
    stored = open_explanations(make_run(tmp_path, probe, epochs=[0])).probe()
    assert stored is not None
    assert stored.facts == ProbeFacts((3,), np.dtype(np.float32), ("a", "b", "c"))
    assert stored.facts.is_named


def test_names_that_are_not_of_single_values_do_not_name_them() -> None:
    assert not ProbeFacts((3, 1), np.dtype(np.float32), ("a", "b", "c")).is_named
