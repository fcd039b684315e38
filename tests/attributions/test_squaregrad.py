"""Closed forms of SquareGrad."""

import numpy as np

from hvd_xai.attributions.smoothgrad import smoothgrad
from hvd_xai.attributions.squaregrad import squaregrad
from tests import models_under_test as models
from tests.attributions import functions_under_test as under_test


def test_closed_forms() -> None:
    n_samples, noise = 1000, 2.0
    got = under_test.explain_functions(
        squaregrad, n_samples=n_samples, noise=noise, is_relative=False
    )
    np.testing.assert_array_equal(
        got["linear"].attributions, np.tile(under_test.WEIGHTS**2, (2, 1))
    )
    # Of the square the mean is 4 (x² + σ²), and its standard deviation 4 sqrt((4 x² σ² + 2 σ⁴) /
    # n); four times that.
    x = under_test.POINTS.astype(np.float64)
    error = 4 * np.sqrt((4 * x**2 * noise**2 + 2 * noise**4) / n_samples)
    assert np.all(np.abs(got["square"].attributions - 4 * (x**2 + noise**2)) < 4 * error)


def test_is_at_least_the_square_of_smoothgrad() -> None:
    inputs, targets, _ = models.examples(4)
    smooth, square = (
        under_test.explain(models.functional(), method, inputs, targets).attributions
        for method in (smoothgrad, squaregrad)
    )
    assert np.all(square >= smooth**2)
    assert np.any(square > 2 * smooth**2)
