"""Samples as lines of a table; `test_show` has the command."""

from pathlib import Path

from hvd_xai.checkpoint.reader import open_explanations
from hvd_xai.cli.sample_table import make_sample_table, read_records
from tests.runs_under_test import make_probe, make_run


def test_a_record_has_the_numbers_of_one_sample_in_the_order_asked_for(tmp_path: Path) -> None:
    explanations = open_explanations(make_run(tmp_path / "run", make_probe(), epochs=[0]))
    explanation = explanations.explanation(0, "grad_cam")
    ids = explanation.column("sample_id")[[2, 0]]
    records = read_records(explanation, ids, explanations.probe(), has_parts=False)
    assert [record["sample_id"] for record in records] == ids.tolist()
    sums = explanation.attributions_of(ids).reshape(len(ids), -1).sum(axis=1)
    assert [round(float(str(record["sum"])), 3) for record in records] == [
        round(float(one), 3) for one in sums
    ]
    table = make_sample_table(records, ["zero", "one", "two"])
    assert table.row_count >= 2
