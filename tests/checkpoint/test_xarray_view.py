import json
import sys
from pathlib import Path

import numpy as np
import pytest

from hvd_xai.checkpoint.reader import Explanations, open_explanations
from hvd_xai.checkpoint.run_directory import open_run
from hvd_xai.errors import CheckpointError
from tests.checkpoint.small import SHAPES, make_attributions, make_rows, write
from tests.runs_under_test import make_probe, make_run

xarray = pytest.importorskip("xarray")

AXES: tuple[tuple[str, ...], ...] = (
    (),
    ("feature",),
    ("y", "x"),
    ("y", "x", "channel"),
    ("z", "y", "x", "channel"),
)
EPOCHS = (2, 3, 11)


@pytest.fixture(scope="module")
def explanations(tmp_path_factory: pytest.TempPathFactory) -> Explanations:
    run = tmp_path_factory.mktemp("run")
    explanations_dir = open_run(run, config={})
    for epoch in EPOCHS:
        write(explanations_dir, make_rows(make_attributions(9, (4, 5), seed=epoch)), epoch=epoch)
    write(
        explanations_dir,
        make_rows(make_attributions(9, (2, 2))),
        epoch=3,
        method="grad_cam",
        function="my_cam",
    )
    return open_explanations(run)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_dataset_has_names_coordinates_and_values_with_their_scale(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    attributions = make_attributions(9, shape)
    attributions.reshape(9, -1)[2, 0] = np.nan
    explanation = write(tmp_path, make_rows(attributions), epoch=4)
    dataset = explanation.to_xarray()
    assert set(dataset.coords) == {"epoch", "step", "sample_id", "label", "target", "prediction"}
    assert (int(dataset.epoch), int(dataset.step)) == (4, 40)
    assert set(dataset.data_vars) == {
        "attributions",
        "score",
        "rank",
        "thumbnail",
        "convergence_delta",
    }
    assert dataset.attributions.dims == ("sample", *AXES[len(shape)])
    np.testing.assert_array_equal(dataset.attributions.values, explanation.attributions())
    np.testing.assert_array_equal(
        dataset.attributions.sel(sample_id=12).values, explanation.attributions(4, 5)[0]
    )
    assert json.loads(dataset.attrs["options"]) == {
        "n_steps": 50,
        "window": [1, 2.5],
        "baseline": None,
    }
    assert dataset.attrs["weights_digest"] == "w0"


def test_a_tree_has_a_node_for_each_method_and_an_epoch_axis(explanations: Explanations) -> None:
    tree = explanations.to_xarray()
    assert set(tree.children) == {"grad_cam", "integrated_gradients"}
    node = tree["integrated_gradients"]
    assert (node.attrs["function"], tree["grad_cam"].attrs["function"]) == (
        "integrated_gradients",
        "my_cam",
    )
    assert dict(node.sizes) == {
        "epoch": 3,
        "sample": 9,
        "y": 4,
        "x": 5,
        "thumbnail_y": 4,
        "thumbnail_x": 5,
    }
    assert node.epoch.values.tolist() == list(EPOCHS)
    assert node.step.values.tolist() == [20, 30, 110]
    for epoch in EPOCHS:
        expected = explanations.explanation(epoch, "integrated_gradients").attributions()
        np.testing.assert_array_equal(node.attributions.sel(epoch=epoch).values, expected)
    change = node.attributions.sel(epoch=11) - node.attributions.sel(epoch=2)
    assert change.sel(sample_id=6).shape == (4, 5)


CHOICES = (
    {"epoch": 1, "sample": 3},
    {"epoch": [2, 0], "sample": slice(2, 7)},
    {"epoch": slice(None, None, -1), "sample": slice(8, None, -3)},
    {"epoch": 0, "sample": [7, 1, 2, 7], "y": 1},
    {"sample": [], "x": [4, 0]},
    {"epoch": [], "sample": [1]},
    {"epoch": -1, "sample": -1, "y": slice(1, 3), "x": -2},
)


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_what_is_chosen_is_what_numpy_would_choose(
    explanations: Explanations, choice: dict[str, object]
) -> None:
    lazy = explanations.to_xarray()["integrated_gradients"].attributions
    whole = lazy.copy(
        data=np.stack(
            [
                explanations.explanation(epoch, "integrated_gradients").attributions()
                for epoch in EPOCHS
            ]
        )
    )
    chosen, expected = lazy.isel(choice), whole.isel(choice)
    assert chosen.dims == expected.dims
    np.testing.assert_array_equal(chosen.values, expected.values)


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    explanations_dir = open_run(tmp_path, config={})
    for epoch in (0, 1):
        write(explanations_dir, make_rows(make_attributions(4, (2,), seed=epoch)), epoch=epoch)
    (explanations_dir / "epochs/000001/integrated_gradients/attributions/c/0/0").unlink()
    node = open_explanations(tmp_path).to_xarray()["integrated_gradients"]
    assert np.isfinite(node.attributions.sel(epoch=0).values).all()
    assert np.isfinite(node.score.values).all()
    with pytest.raises(CheckpointError, match="c/0/0 is missing"):
        node.attributions.sel(epoch=1).load()


def test_epochs_of_other_samples_are_not_stacked(tmp_path: Path) -> None:
    explanations_dir = open_run(tmp_path, config={})
    write(explanations_dir, make_rows(make_attributions(4, (2,))), epoch=0)
    write(explanations_dir, make_rows(make_attributions(5, (3,))), epoch=1)
    explanations = open_explanations(tmp_path)
    with pytest.raises(CheckpointError, match="has other samples and shapes than epoch 0"):
        explanations.to_xarray()
    assert explanations.stack("integrated_gradients", [1]).epochs == (1,)
    with pytest.raises(
        CheckpointError,
        match="no explanation by 'occlusion'; methods with one: integrated_gradients",
    ):
        explanations.stack("occlusion")


def test_missing_xarray_names_the_extra(
    explanations: Explanations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "xarray", None)
    monkeypatch.delitem(sys.modules, "hvd_xai.checkpoint.xarray_view", raising=False)
    for opened in (explanations, explanations.explanation(3, "grad_cam")):
        with pytest.raises(ImportError, match=r"hvd_xai\[xarray\]"):
            opened.to_xarray()


def test_features_are_chosen_by_their_names(tmp_path: Path) -> None:
    explanations = open_explanations(
        make_run(
            tmp_path, make_probe(shape=(3,), feature_names=("age", "income", "debt")), cam=False
        )
    )
    tree = explanations.to_xarray()["integrated_gradients"]
    expected = explanations.explanation(1, "integrated_gradients").attributions()
    np.testing.assert_array_equal(
        tree.attributions.sel(epoch=1, feature="debt").values, expected[:, 2]
    )
    assert tree.feature.values.tolist() == ["age", "income", "debt"]
