import sys
from pathlib import Path

import pytest

from hvd_xai.checkpoint.json_record import SCHEMA
from hvd_xai.checkpoint.reader import open_explanations
from hvd_xai.checkpoint.run_directory import open_run
from hvd_xai.errors import CheckpointError
from tests import processes
from tests.checkpoint.small import (
    make_attributions,
    make_rows,
    write,
)


def make_run(run_dir: Path) -> Path:
    explanations_dir = open_run(run_dir, config={"recipe": "digits_cnn"})
    for epoch, method in (
        (11, "integrated_gradients"),
        (2, "integrated_gradients"),
        (2, "grad_cam"),
    ):
        write(
            explanations_dir,
            make_rows(make_attributions(6, (4, 4), seed=epoch)),
            epoch=epoch,
            method=method,
        )
    return explanations_dir


@pytest.mark.parametrize("inside", [".", "explanations"])
def test_a_run_is_opened_by_either_folder(tmp_path: Path, inside: str) -> None:
    explanations_dir = make_run(tmp_path)
    explanations = open_explanations(str(tmp_path / inside))
    assert (explanations.path.resolve(), explanations.config["recipe"]) == (
        explanations_dir,
        "digits_cnn",
    )
    assert explanations.epochs == [2, 11]
    assert explanations.methods(2) == ["grad_cam", "integrated_gradients"]
    assert explanations.methods(3) == []
    assert [(one.manifest.epoch, one.manifest.method) for one in explanations] == [
        (2, "grad_cam"),
        (2, "integrated_gradients"),
        (11, "integrated_gradients"),
    ]
    assert explanations.probe() is None
    assert "{'grad_cam': [2], 'integrated_gradients': [2, 11]}" in repr(explanations)
    assert (
        repr(explanations.explanation(2, "grad_cam"))
        == "Explanation('grad_cam', epoch 2, 6 samples of (4, 4))"
    )


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    for path, why in (
        (tmp_path, "no folder 'explanations'"),
        (tmp_path / "absent", "no such folder"),
    ):
        with pytest.raises(CheckpointError, match=why):
            open_explanations(path)


def test_absent_explanation_names_those_that_are_there(tmp_path: Path) -> None:
    make_run(tmp_path)
    with pytest.raises(CheckpointError, match="epoch 2 has grad_cam, integrated_gradients"):
        open_explanations(tmp_path).explanation(2, "occlusion")
    with pytest.raises(CheckpointError, match="there are the epochs 2, 11"):
        open_explanations(tmp_path).explanation(3, "grad_cam")


def test_staging_is_invisible(tmp_path: Path) -> None:
    explanations_dir = make_run(tmp_path)
    (explanations_dir / "epochs" / "000002" / "grad_cam").rename(
        explanations_dir / "epochs" / ".staging-000002-grad_cam-01234567"
    )
    (explanations_dir / "epochs" / "000011" / "integrated_gradients" / "manifest.json").unlink()
    assert [(one.manifest.epoch, one.manifest.method) for one in open_explanations(tmp_path)] == [
        (2, "integrated_gradients")
    ]
    assert open_explanations(tmp_path).epochs == [2]


def test_the_whole_run_is_one_zarr_hierarchy(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    explanations_dir = make_run(tmp_path)
    group = zarr.open_group(explanations_dir, mode="r")
    assert group.attrs["hvd_xai_schema"] == SCHEMA
    assert group["epochs/000002"].attrs["epoch"] == 2
    assert group["epochs/000002/grad_cam"].attrs["method"] == "grad_cam"
    assert group["epochs/000002/grad_cam/attributions"].shape == (6, 4, 4)


def test_config_is_empty_where_it_was_not_copied_along(tmp_path: Path) -> None:
    write(tmp_path / "explanations", make_rows(make_attributions(2, ())))
    assert open_explanations(tmp_path).config == {}


def test_reading_needs_neither_tensorflow_nor_mpi(tmp_path: Path) -> None:
    make_run(tmp_path)
    code = f"""
import sys
import hvd_xai
from hvd_xai.checkpoint.verify import verify
explanation = hvd_xai.open_explanations({str(tmp_path)!r}).explanation(2, "grad_cam")
assert explanation.attributions().shape == (6, 4, 4)
assert verify({str(tmp_path)!r}, deep=True) == []
heavy = {{"tensorflow", "keras", "mpi4py", "horovod", "xarray", "jax", "torch"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = processes.run([sys.executable, "-W", "error", "-c", code], cwd=Path(__file__).parents[2])
    assert done.code == 0, done.stderr


def test_method_names_lead_nowhere_else(tmp_path: Path) -> None:
    make_run(tmp_path)
    with pytest.raises(CheckpointError, match="has no explanation"):
        open_explanations(tmp_path).explanation(2, "../000011/integrated_gradients")


def test_the_newest_epoch_before_is_found_by_method(tmp_path: Path) -> None:
    explanations_dir = open_run(tmp_path, config={})
    rows = make_rows(make_attributions(3, ()))
    for epoch, method in ((0, "saliency"), (2, "saliency"), (3, "grad_cam"), (11, "saliency")):
        write(explanations_dir, rows, epoch=epoch, method=method)
    run = open_explanations(tmp_path)
    found = [run.newest_before(epoch, "saliency") for epoch in (0, 1, 2, 3, 11, 12)]
    assert [one and one.manifest.epoch for one in found] == [None, 0, 0, 2, 2, 11]
    assert run.newest_before(3, "grad_cam") is None
