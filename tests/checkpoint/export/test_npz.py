"""Exported `.npz` files, read by NumPy."""

from pathlib import Path

import numpy as np
import pytest

from hvd_xai.checkpoint.epochs import EpochStack
from hvd_xai.checkpoint.exported import export
from hvd_xai.checkpoint.reader import Explanations, open_explanations
from tests.checkpoint.small import (
    EXPORTED_EPOCHS,
    make_attributions,
    make_rows_with_errors,
    stack_all,
    write,
)
from tests.runs_under_test import make_probe, make_run

pytestmark = pytest.mark.usefixtures("any_block")


def test_npz_is_what_numpy_reads(to_export: Explanations, tmp_path: Path) -> None:
    export(stack_all(to_export), tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as arrays:
        for index, epoch in enumerate(EXPORTED_EPOCHS):
            expected = to_export.explanation(epoch, "integrated_gradients")
            np.testing.assert_array_equal(
                arrays["integrated_gradients/attributions"][index], expected.attributions()
            )
            np.testing.assert_array_equal(
                arrays["integrated_gradients/convergence_delta"][index],
                expected.column("convergence_delta"),
            )
            np.testing.assert_array_equal(
                arrays["integrated_gradients/sample_id"], expected.column("sample_id")
            )
        assert arrays["integrated_gradients/epoch"].tolist() == list(EXPORTED_EPOCHS)
        assert arrays["occlusion/attributions"].shape == (1, 9)


def test_npz_has_the_names_of_features(tmp_path: Path) -> None:
    names = ("âge", "income [k€]", "debt")
    run = make_run(tmp_path, make_probe(shape=(3,), feature_names=names), epochs=[0])
    export(stack_all(open_explanations(run)), tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as arrays:
        assert tuple(arrays["integrated_gradients/feature"]) == names
        assert "grad_cam/feature" not in arrays


def test_npz_has_standard_errors(tmp_path: Path) -> None:
    rows, errors = make_rows_with_errors(make_attributions(5, (2, 3)))
    explanation = write(tmp_path / "run" / "explanations", rows)
    export([EpochStack([explanation])], tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as archive:
        read = archive[f"{explanation.manifest.method}/standard_errors"]
    np.testing.assert_array_equal(read, errors[None])
