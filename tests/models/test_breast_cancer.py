from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from hvd_xai import open_explanations
from hvd_xai.cli.main import build
from hvd_xai.lookup.recipes import load_recipe

RECIPE = load_recipe("breast_cancer", "models", ["build", "load"])


def test_the_data_are_disjoint_scaled_and_named() -> None:
    data = RECIPE.functions["load"]()
    parts = [data.train[0], data.validation[0], data.probe.inputs]
    assert [len(part) for part in parts] == [369, 100, 100]
    assert all(part.shape[1:] == (30,) and part.dtype == np.float32 for part in parts)
    np.testing.assert_allclose(parts[0].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(parts[0].std(axis=0), 1, atol=1e-5)
    assert len({row.tobytes() for part in parts for row in part}) == 569
    assert (len(data.probe.feature_names), data.probe.feature_names[0]) == (30, "mean radius")
    # the file begins with malignant ones, which are the larger
    assert data.probe.targets[:3].tolist() == [
        1,
        1,
        1,
    ]
    assert (
        data.probe.inputs[data.probe.targets == 1, 0].mean()
        > data.probe.inputs[data.probe.targets == 0, 0].mean()
    )
    assert RECIPE.functions["build"](units=8).output_shape == (None, 1)


def test_it_learns_and_is_explained_by_name(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = [
        "train",
        "breast_cancer",
        "--epochs",
        "4",
        "--method",
        "permutation_shap",
        "--output",
        str(run),
    ]
    ended = CliRunner().invoke(build(), words)
    assert ended.exit_code == 0, ended.output
    explanation = open_explanations(run).explanation(3, "permutation_shap")
    assert (explanation.column("prediction") == explanation.column("target")).mean() > 0.9
    assert explanation.feature_names == RECIPE.functions["load"]().probe.feature_names
    assert (
        CliRunner()
        .invoke(build(), ["show", str(run), "--sample", "0", "--png", str(tmp_path / "out.png")])
        .exit_code
        == 0
    )
    assert (tmp_path / "out.png").stat().st_size > 5000
