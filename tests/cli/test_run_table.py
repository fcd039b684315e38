"""A run as lines of a table; `test_show` has the command."""

from pathlib import Path

from hvd_xai.checkpoint.reader import open_explanations
from hvd_xai.cli.run_table import make_run_table, read_line
from tests.runs_under_test import make_probe, make_run


def test_a_line_has_what_the_manifest_and_the_rows_say(tmp_path: Path) -> None:
    explanations = open_explanations(make_run(tmp_path / "run", make_probe(), epochs=[0, 1]))
    lines = [read_line(explanations, one) for one in explanations]
    assert {(line.epoch, line.method) for line in lines} == {
        (epoch, method) for epoch in (0, 1) for method in ("grad_cam", "integrated_gradients")
    }
    first = next(line for line in lines if line.epoch == 0)
    later = next(line for line in lines if line.epoch == 1)
    manifest = explanations.explanation(0, first.method).manifest
    assert (first.n_samples, first.n_bytes) == (manifest.n_samples, manifest.n_bytes)
    assert first.drift is None
    assert later.drift is not None
    titles = [str(column.header) for column in make_run_table(lines).columns]
    assert titles[:2] == ["epoch", "method"]
