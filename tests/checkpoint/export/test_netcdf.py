"""Exported `.nc` files, read by xarray."""

from pathlib import Path

import numpy as np
import pytest

from hvd_xai.checkpoint.exported import export
from hvd_xai.checkpoint.reader import Explanations, open_explanations
from tests.checkpoint.small import stack_all
from tests.runs_under_test import make_probe, make_run

pytest.importorskip("h5netcdf")
xarray = pytest.importorskip("xarray")
pytestmark = pytest.mark.usefixtures("any_block")


def test_netcdf_is_the_tree_that_xarray_opens_of_the_run(
    to_export: Explanations, tmp_path: Path
) -> None:
    export(stack_all(to_export), tmp_path / "out.nc")
    expected = to_export.to_xarray()
    with xarray.open_datatree(tmp_path / "out.nc", engine="h5netcdf") as tree:
        assert set(tree.children) == set(expected.children)
        for method, node in expected.children.items():
            found = tree[method].to_dataset()
            for name in (
                *node.data_vars,
                "sample_id",
                "label",
                "target",
                "prediction",
                "epoch",
                "step",
            ):
                assert found[name].dims == node[name].dims
                np.testing.assert_array_equal(found[name].values, node[name].values)
            assert {"step", "sample_id", "label", "target"} <= set(found.coords)
            assert found.attrs["options"] == node.attrs["options"]
        assert tree["occlusion"].attrs["function"] == "of_patches"


def test_netcdf_finds_attributions_by_the_names_of_features(tmp_path: Path) -> None:
    names = ("âge", "income [k€]", "debt")
    explanations = open_explanations(
        make_run(tmp_path, make_probe(shape=(3,), feature_names=names), epochs=[0])
    )
    export(stack_all(explanations), tmp_path / "out.nc")
    expected = explanations.explanation(0, "integrated_gradients").attributions()
    with xarray.open_datatree(tmp_path / "out.nc", engine="h5netcdf") as tree:
        attributions = tree["integrated_gradients"].attributions
        for place, name in enumerate(names):
            np.testing.assert_array_equal(
                attributions.sel(epoch=0, feature=name).values, expected[:, place]
            )
