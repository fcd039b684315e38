"""Arrays as people have them become what a probe holds, or the error says how."""

import numpy as np
import pytest

from hvd_xai.probe.probe import Probe

INPUTS = np.zeros((3, 2), np.float32)


def test_a_column_is_taken_as_its_values() -> None:
    column = np.array([[2], [0], [1]], np.uint8)
    probe = Probe(INPUTS, column, np.array([[5], [3], [4]]), labels=column)
    assert probe.targets.tolist() == [0, 1, 2]
    assert probe.targets.dtype == np.uint8
    assert probe.sample_ids.tolist() == [3, 4, 5]
    assert probe.labels is not None
    assert probe.labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        (
            INPUTS,
            np.eye(3),
            r"must have shape \(3,\); got \(3, 3\).*pass targets\.argmax\(axis=1\)",
        ),
        (INPUTS, np.zeros((1, 3), int), r"got \(1, 3\)\. Pass targets\.ravel\(\)"),
        (INPUTS, np.zeros(4, int), r"must have shape \(3,\); got \(4,\)\.$"),
        (
            INPUTS,
            np.array(["cat", "dog", "cat"]),
            r"such as 'cat'\. Number the classes: names, targets = np\.unique\(targets",
        ),
        (
            np.array(["a good film", "bad", "so so"]),
            np.zeros(3, int),
            "strings, such as 'a good film'.*TextVectorization",
        ),
        (
            np.array([["a", 1.5], ["b", 2.5], ["c", 0.5]], object),
            np.zeros(3, int),
            "strings, such as 'a'.*in a table numbers for categories",
        ),
        (
            np.array([[1], [1, 2], [3]], object),
            np.zeros(3, int),
            "got dtype object, .*rows of several lengths. Make one array",
        ),
        (INPUTS.astype(complex), np.zeros(3, int), "must be numbers; got dtype complex128"),
    ],
)
def test_what_is_no_number_an_example_is_refused_with_what_to_do(
    inputs: np.ndarray, targets: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Probe(inputs, targets)


def test_the_ids_in_an_error_are_the_first_that_is_wrong() -> None:
    ids = np.arange(3000)
    ids[2000] = -7
    with pytest.raises(ValueError, match=r"whole numbers from 0 to \d+; got -7 in row 2000$"):
        Probe(np.zeros((3000, 2)), np.zeros(3000, int), ids)
    with pytest.raises(ValueError, match=r"whole numbers from 0 to \d+; got dtype float64$"):
        Probe(INPUTS, np.zeros(3, int), np.zeros(3))
