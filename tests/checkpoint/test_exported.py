"""Exported files, read by the programs they are for."""

import json
import resource
from pathlib import Path

import numpy as np
import pytest

from hvd_xai.checkpoint import export as formats
from hvd_xai.checkpoint import export_blocks
from hvd_xai.checkpoint.epochs import Stack
from hvd_xai.checkpoint.export import parquet as parquet_format
from hvd_xai.checkpoint.exported import export
from hvd_xai.checkpoint.reader import Explanations, open_explanations
from hvd_xai.checkpoint.run_directory import open_run
from hvd_xai.errors import CheckpointError
from tests.checkpoint.small import make_attributions, make_rows, write
from tests.runs_under_test import make_probe, make_run

EPOCHS = (2, 3)
ATTRIBUTIONS = "explanations/epochs/000003/integrated_gradients/attributions/c/0/0/0"


@pytest.fixture
def explanations(tmp_path: Path) -> Explanations:
    explanations_dir = open_run(tmp_path, config={})
    for epoch in EPOCHS:
        attributions = make_attributions(9, (4, 5), seed=epoch)
        attributions[1, 0, 0] = np.nan
        write(explanations_dir, make_rows(attributions), epoch=epoch)
    write(
        explanations_dir,
        make_rows(make_attributions(9, ())),
        epoch=3,
        method="occlusion",
        function="of_patches",
    )
    return open_explanations(tmp_path)


def stacks(explanations: Explanations) -> list[Stack]:
    return [explanations.stack(method) for method in explanations.epochs_by_method]


@pytest.fixture(autouse=True, params=[1, 2**24])
def _any_block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of one row, and of all rows."""
    monkeypatch.setattr(export_blocks, "BLOCK_BYTES", request.param)


def test_npz_is_what_numpy_reads(explanations: Explanations, tmp_path: Path) -> None:
    export(stacks(explanations), tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as arrays:
        for index, epoch in enumerate(EPOCHS):
            expected = explanations.explanation(epoch, "integrated_gradients")
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
        assert arrays["integrated_gradients/epoch"].tolist() == list(EPOCHS)
        assert arrays["occlusion/attributions"].shape == (1, 9)


def test_netcdf_is_the_tree_that_xarray_opens_of_the_run(
    explanations: Explanations, tmp_path: Path
) -> None:
    pytest.importorskip("h5netcdf")
    xarray = pytest.importorskip("xarray")
    export(stacks(explanations), tmp_path / "out.nc")
    expected = explanations.to_xarray()
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


def test_parquet_is_a_table_of_samples(explanations: Explanations, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    parquet = pytest.importorskip("pyarrow.parquet")
    export(stacks(explanations), tmp_path / "out.parquet")
    table = pandas.read_parquet(tmp_path / "out.parquet")
    assert len(table) == 27
    functions = json.loads(
        parquet.read_metadata(tmp_path / "out.parquet").metadata[b"hvd_xai_functions"]
    )
    assert functions == {"integrated_gradients": "integrated_gradients", "occlusion": "of_patches"}
    one = table[(table.method == "integrated_gradients") & (table.epoch == 3)]
    expected = explanations.explanation(3, "integrated_gradients")
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


@pytest.mark.parametrize("suffix", [".npz", ".nc", ".parquet"])
def test_a_damaged_checkpoint_leaves_the_older_file(
    explanations: Explanations, tmp_path: Path, suffix: str
) -> None:
    (tmp_path / ATTRIBUTIONS).unlink()
    destination = tmp_path / f"out{suffix}"
    destination.write_text("older")
    with pytest.raises(CheckpointError, match="is missing"):
        export(stacks(explanations), destination)
    assert destination.read_text() == "older"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["explanations", destination.name]


@pytest.mark.parametrize("suffix", [".npz", ".nc", ".parquet"])
@pytest.mark.parametrize("limit", [100, 2_000])
def test_a_full_disk_is_one_error_and_leaves_nothing(
    explanations: Explanations, tmp_path: Path, suffix: str, limit: int
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(CheckpointError, match=f"cannot write .*out{suffix}: "):
            export(stacks(explanations), tmp_path / f"out{suffix}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


def test_another_format_or_folder_is_refused(explanations: Explanations, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"one of .nc, .npz, .parquet; got 'out.csv'"):
        export(stacks(explanations), tmp_path / "out.csv")
    with pytest.raises(ValueError, match="does not exist"):
        export(stacks(explanations), tmp_path / "absent" / "out.npz")


def test_every_format_has_the_names_of_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ("h5netcdf", "pyarrow"):
        pytest.importorskip(library)
    xarray, pandas = pytest.importorskip("xarray"), pytest.importorskip("pandas")
    names = ("âge", "income [k€]", "debt")
    explanations = open_explanations(
        make_run(tmp_path, make_probe(shape=(3,), feature_names=names), epochs=[0])
    )
    expected = explanations.explanation(0, "integrated_gradients").attributions()
    for suffix in (".npz", ".nc", ".parquet"):
        export(stacks(explanations), tmp_path / f"out{suffix}")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as arrays:
        assert tuple(arrays["integrated_gradients/feature"]) == names
        assert "grad_cam/feature" not in arrays
    with xarray.open_datatree(tmp_path / "out.nc", engine="h5netcdf") as tree:
        node = tree["integrated_gradients"]
        np.testing.assert_array_equal(
            node.attributions.sel(epoch=0, feature="income [k€]").values, expected[:, 1]
        )
    table = pandas.read_parquet(tmp_path / "out.parquet")
    for place, name in enumerate(names):
        of_feature = table[f"attribution_of_{name}"]
        np.testing.assert_array_equal(
            of_feature[table.method == "integrated_gradients"], expected[:, place]
        )
        assert of_feature[table.method == "grad_cam"].isna().all()
    monkeypatch.setattr(parquet_format, "MAX_COLUMNS", 2)
    export(stacks(explanations), tmp_path / "narrow.parquet")
    assert not any(
        "attribution_of" in name for name in pandas.read_parquet(tmp_path / "narrow.parquet")
    )


def test_a_format_is_found_by_the_file_that_it_is(
    explanations: Explanations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "formats").mkdir()
    (tmp_path / "formats" / "names.py").write_text(
        "SUFFIX = '.names'\n\n\ndef write(stacks, destination, progress):\n"
        "    destination.write_text(' '.join(stack.method for stack in stacks))\n"
    )
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(tmp_path / "formats")])
    export(stacks(explanations), tmp_path / "out.names")
    assert (tmp_path / "out.names").read_text() == "integrated_gradients occlusion"
