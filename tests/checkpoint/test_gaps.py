"""A run with a hole says so."""

from pathlib import Path

import pytest

from hvd_xai.checkpoint.gaps import find_gaps
from hvd_xai.checkpoint.reader import open_explanations
from hvd_xai.checkpoint.retention import Retention
from hvd_xai.checkpoint.run_directory import RunDirectory
from hvd_xai.checkpoint.verify import verify
from hvd_xai.errors import CheckpointError
from tests.checkpoint.small import make_attributions, make_rows, write


@pytest.mark.parametrize(
    ("committed", "before", "every", "expected"),
    [
        ([0, 1], 3, 1, [2]),
        ([0, 1], 2, 1, []),
        ([0, 1], 6, 1, [2, 3, 4, 5]),
        ([0, 2], 4, 1, [3]),  # epoch 1 was lost by another job, which has said so
        ([1], 6, 2, [3, 5]),
        ([1], 5, 2, [3]),
        ([0, 1, 2, 3], 2, 1, []),  # those behind are of weights that are lost, and come again
        ([5], 3, 1, [2]),
        ([], 3, 1, [2]),  # a method that has committed nothing can have lost the last one only
        ([], 3, 2, []),
        ([], 0, 1, []),
    ],
)
def test_gaps_lie_between_the_newest_committed_epoch_and_the_next(
    tmp_path: Path, committed: list[int], before: int, every: int, expected: list[int]
) -> None:
    explanations_dir = RunDirectory(tmp_path).open()
    for epoch in committed:
        write(explanations_dir, make_rows(make_attributions(2, ())), epoch=epoch)
    found = find_gaps(explanations_dir, "integrated_gradients", before=before, every=every)
    assert found == expected


def test_a_gap_is_a_problem_until_it_is_closed(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path, config={"seed": 1})
    explanations_dir = run.open()
    write(explanations_dir, make_rows(make_attributions(2, ())), epoch=1)
    assert open_explanations(tmp_path).gaps == {}
    run.add_gaps({"integrated_gradients": [0]})
    run.add_gaps({"integrated_gradients": [2], "grad_cam": [1]})
    explanations = open_explanations(tmp_path)
    assert explanations.gaps == {"grad_cam": [1], "integrated_gradients": [0, 2]}
    assert explanations.epochs == [1]
    problems = [str(problem) for problem in verify(tmp_path)]
    assert len(problems) == 3
    assert "epochs/000001/grad_cam was due and never committed" in problems[0]
    write(explanations_dir, make_rows(make_attributions(2, ())), epoch=2)
    assert explanations.gaps == {"grad_cam": [1], "integrated_gradients": [0]}


def test_gaps_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    RunDirectory(tmp_path, config={"gaps": {"grad_cam": ["x"]}}).open()
    with pytest.raises(CheckpointError, match="a list of integers"):
        _ = open_explanations(tmp_path).gaps
    (problem,) = verify(tmp_path)
    assert "a list of integers" in problem.what


def test_what_was_committed_is_no_gap_and_a_gap_goes_with_the_epochs_that_are_removed(
    tmp_path: Path,
) -> None:
    run = RunDirectory(tmp_path, retention=Retention(last=1))
    explanations_dir = run.open()
    write(explanations_dir, make_rows(make_attributions(2, ())), epoch=1)
    # A sink failed after the commit of epoch 1; of epoch 2 one method was lost, and epoch 4 is.
    run.add_gaps({"integrated_gradients": [1, 4], "grad_cam": [2]})
    for epoch in (2, 3):
        write(explanations_dir, make_rows(make_attributions(2, ())), epoch=epoch)
    assert open_explanations(tmp_path).gaps == {"grad_cam": [2], "integrated_gradients": [4]}
    assert run.retain() == [1, 2]
    assert open_explanations(tmp_path).gaps == {"integrated_gradients": [4]}
