import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hvd_xai.checkpoint.reader import open_explanations
from hvd_xai.checkpoint.retention import Retention, retain
from hvd_xai.checkpoint.run_directory import open_run
from hvd_xai.checkpoint.verify import verify
from hvd_xai.checkpoint.writer import sweep
from hvd_xai.errors import CheckpointError
from tests.checkpoint.small import begin, make_attributions, make_rows

LOSSES = {0: 0.5, 1: 0.1, 2: 0.3, 3: 0.1, 4: 0.4, 5: 0.6}


@pytest.mark.parametrize(
    ("retention", "kept"),
    [
        (Retention(last=2), {4, 5}),
        (Retention(last=10), {0, 1, 2, 3, 4, 5}),
        (Retention(every=3), {0, 3}),
        (Retention(best=("loss", "min")), {3}),
        (Retention(best=("loss", "max")), {5}),
        (Retention(best=("accuracy", "max")), set()),
        (Retention(pinned=[2, 9]), {2}),
        (Retention(last=1, every=4, best=("loss", "min"), pinned={2}), {0, 2, 3, 4, 5}),
    ],
)
def test_what_any_policy_names_is_kept(retention: Retention, kept: set[int]) -> None:
    assert retention.kept({epoch: {"loss": loss} for epoch, loss in LOSSES.items()}) == kept
    assert retention.kept({}) == set()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Retention, "must say what to keep"),
        (lambda: Retention(last=0), "1 or more"),
        (lambda: Retention(every=-1), "1 or more"),
    ],
)
def test_policies_that_mean_nothing_are_refused(
    make: Callable[[], Retention], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_metric_with_a_value_for_each_class_cannot_be_the_best() -> None:
    with pytest.raises(CheckpointError, match="'f1' is a list of several"):
        Retention(best=("f1", "max")).kept({0: {"f1": [0.5, 0.7]}})


def _commit(explanations_dir: Path, epoch: int, method: str = "integrated_gradients") -> None:
    rows = make_rows(make_attributions(4, (2,)))
    writer = begin(
        explanations_dir,
        rows,
        epoch=epoch,
        method=method,
        metrics={"loss": LOSSES[epoch], "f1": [0.5, None]},
    )
    writer.append(rows)
    writer.commit()


def test_epochs_are_removed_whole_and_the_rest_verifies(tmp_path: Path) -> None:
    explanations_dir = open_run(tmp_path, config={})
    for epoch in LOSSES:
        for method in ("grad_cam", "integrated_gradients"):
            _commit(explanations_dir, epoch, method)
    assert retain(explanations_dir, Retention(last=1, best=("loss", "min"))) == [0, 1, 2, 4]
    assert open_explanations(tmp_path).epochs == [3, 5]
    kept = open_explanations(tmp_path).explanation(3, "grad_cam")
    assert kept.manifest.metrics == {"loss": 0.1, "f1": [0.5, None]}
    assert verify(tmp_path, deep=True) == []
    assert sorted(path.name for path in (explanations_dir / "epochs").iterdir()) == [
        "000003",
        "000005",
        "zarr.json",
    ]


def test_the_newest_whole_one_is_never_removed(tmp_path: Path) -> None:
    explanations_dir = open_run(tmp_path, config={})
    for epoch in (0, 1, 2):
        _commit(explanations_dir, epoch)
    shutil.rmtree(explanations_dir / "epochs" / "000002" / "integrated_gradients" / "score")
    assert retain(explanations_dir, Retention(last=1)) == [0]
    assert open_explanations(tmp_path).epochs == [1, 2]


def test_what_a_killed_job_was_removing_is_swept(tmp_path: Path) -> None:
    explanations_dir = open_run(tmp_path, config={})
    _commit(explanations_dir, 0)
    _commit(explanations_dir, 1)
    (explanations_dir / "epochs" / "000000").rename(explanations_dir / "epochs" / ".trash-000000-1")
    assert open_explanations(tmp_path).epochs == [1]
    sweep(explanations_dir)
    assert sorted(path.name for path in (explanations_dir / "epochs").iterdir()) == [
        "000001",
        "zarr.json",
    ]


def test_of_an_epoch_that_is_kept_elsewhere_the_link_is_removed(tmp_path: Path) -> None:
    explanations_dir = open_run(tmp_path / "run", config={})
    for epoch in (0, 1, 2):
        _commit(explanations_dir, epoch)
    for epoch, name in ((0, "000000"), (1, ".trash-000001-1")):
        (explanations_dir / "epochs" / f"00000{epoch}").rename(tmp_path / str(epoch))
        (explanations_dir / "epochs" / name).symlink_to(tmp_path / str(epoch))
    assert retain(explanations_dir, Retention(last=1)) == [0]
    sweep(explanations_dir)
    assert sorted(path.name for path in (explanations_dir / "epochs").iterdir()) == [
        "000002",
        "zarr.json",
    ]
    assert [
        (tmp_path / str(epoch) / "integrated_gradients" / "manifest.json").is_file()
        for epoch in (0, 1)
    ] == [True, True]
