"""Closed forms of saliency."""

import numpy as np

from hvd_xai.attributions.saliency import saliency
from tests.attributions import functions_under_test as under_test

ROUNDING = 1e-6


def test_closed_forms() -> None:
    x = under_test.POINTS
    want: dict[str, np.ndarray] = {
        "linear": np.tile(under_test.WEIGHTS, (2, 1)),  # signed, whatever the size of the input
        "square": 2 * x,
        "cube": 3 * x**2,
        "product": np.stack([x[:, 1], x[:, 0], 0 * x[:, 0]], axis=1),
        "relu": np.ones((2, 3)),
        "max": np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]),
    }
    got = under_test.explain_functions(saliency)
    assert {
        name: under_test.relative_error(got[name].attributions, want[name]) < ROUNDING
        for name in want
    } == dict.fromkeys(want, True)


def test_whole_numbers_are_explained_as_numbers() -> None:
    inputs = np.array([[1, 2, 3]], np.uint8)
    attributions = under_test.explain(
        under_test.functions(), saliency, inputs, np.array([1])
    ).attributions
    np.testing.assert_array_equal(attributions, [[2.0, 4.0, 6.0]])
