"""Puts single samples into numbers."""

from pathlib import Path

import numpy as np

from hvd_xai.analysis.sample_numbers import read_columns, summarise
from hvd_xai.checkpoint.reader import open_explanations
from tests.runs_under_test import make_probe, make_run


def test_columns_are_read_for_the_samples_in_the_order_given(tmp_path: Path) -> None:
    run = open_explanations(make_run(tmp_path / "run", make_probe(first_id=10), epochs=[0]))
    explanation = run.explanation(0, "integrated_gradients")
    records = read_columns(explanation, np.array([14, 12]))
    assert [record["sample_id"] for record in records] == [14, 12]
    assert records[0]["score"] == explanation.column("score")[4]
    assert records[0]["method"] == "integrated_gradients"
    assert not {"scale", "content_hash", "attributions"} & set(records[0])


def test_what_is_not_finite_is_counted_and_not_summed() -> None:
    values = np.array([[1.0, -4.0], [np.nan, np.inf]], np.float32)
    assert summarise(values) == {"sum": -3.0, "largest": 4.0, "nonfinite": 2}
    assert summarise(np.full(2, np.nan)) == {"sum": 0.0, "largest": 0.0, "nonfinite": 2}
