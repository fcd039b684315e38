"""Exported `.parquet` files, read by pandas."""

import json
from pathlib import Path

import numpy as np
import pytest

from hvd_xai.checkpoint.export import parquet as parquet_format
from hvd_xai.checkpoint.exported import export
from hvd_xai.checkpoint.reader import Explanations, open_explanations
from tests.checkpoint.small import make_attributions, make_rows_with_errors, stack_all, write
from tests.runs_under_test import make_probe, make_run

pandas = pytest.importorskip("pandas")
parquet = pytest.importorskip("pyarrow.parquet")
pytestmark = pytest.mark.usefixtures("any_block")


def test_parquet_is_a_table_of_samples(to_export: Explanations, tmp_path: Path) -> None:
    export(stack_all(to_export), tmp_path / "out.parquet")
    table = pandas.read_parquet(tmp_path / "out.parquet")
    assert len(table) == 27
    functions = json.loads(
        parquet.read_metadata(tmp_path / "out.parquet").metadata[b"hvd_xai_functions"]
    )
    assert functions == {"integrated_gradients": "integrated_gradients", "occlusion": "of_patches"}
    one = table[(table.method == "integrated_gradients") & (table.epoch == 3)]
    expected = to_export.explanation(3, "integrated_gradients")
    for name in ("sample_id", "label", "target", "prediction", "score", "convergence_delta"):
        np.testing.assert_array_equal(one[name], expected.column(name))
    attributions = expected.attributions().astype(np.float64).reshape(9, -1)
    np.testing.assert_allclose(
        one.attribution_sum, np.nansum(attributions, axis=1), rtol=1e-12, atol=1e-18
    )
    np.testing.assert_allclose(
        one.attribution_largest, np.nanmax(np.abs(attributions), axis=1), rtol=1e-12
    )
    assert one.attribution_nonfinite.tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 0]


def test_parquet_has_a_column_for_each_named_feature_unless_they_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("âge", "income [k€]", "debt")
    explanations = open_explanations(
        make_run(tmp_path, make_probe(shape=(3,), feature_names=names), epochs=[0])
    )
    export(stack_all(explanations), tmp_path / "out.parquet")
    expected = explanations.explanation(0, "integrated_gradients").attributions()
    table = pandas.read_parquet(tmp_path / "out.parquet")
    for place, name in enumerate(names):
        of_feature = table[f"attribution_of_{name}"]
        np.testing.assert_array_equal(
            of_feature[table.method == "integrated_gradients"], expected[:, place]
        )
        assert of_feature[table.method == "grad_cam"].isna().all()
    monkeypatch.setattr(parquet_format, "MAX_COLUMNS", 2)
    export(stack_all(explanations), tmp_path / "narrow.parquet")
    assert not any(
        "attribution_of" in name for name in pandas.read_parquet(tmp_path / "narrow.parquet")
    )


def test_parquet_has_the_standard_error_of_each_named_feature(tmp_path: Path) -> None:
    probe = make_probe(shape=(3,), feature_names=("a", "b", "c"))
    make_run(tmp_path, probe, epochs=[0], cam=False)
    rows, errors = make_rows_with_errors(make_attributions(len(probe), (3,)))
    write(
        tmp_path / "explanations",
        rows,
        method="kernel_shap",
        attributed_to="inputs",
    )
    export(stack_all(open_explanations(tmp_path)), tmp_path / "out.parquet")
    table = pandas.read_parquet(tmp_path / "out.parquet")
    of_b = table["standard_error_of_b"]
    np.testing.assert_array_equal(of_b[table.method == "kernel_shap"], errors[:, 1])
    assert of_b[table.method == "integrated_gradients"].isna().all()
