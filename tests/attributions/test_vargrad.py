"""Closed forms of VarGrad."""

import numpy as np
import pytest

from hvd_xai.attributions.vargrad import vargrad
from tests.attributions import functions_under_test as under_test


def test_closed_forms() -> None:
    n_samples, noise = 1000, 2.0
    got = under_test.explain_functions(vargrad, n_samples=n_samples, noise=noise, is_relative=False)
    assert np.all(got["linear"].attributions == 0)
    assert np.all(got["product"].attributions[:, 2] == 0)
    # The gradient of the square is 2 x, so its variance 4 σ², known to a share of sqrt(2 / n); four
    # times that.
    np.testing.assert_allclose(
        got["square"].attributions, 4 * noise**2, rtol=4 * (2 / n_samples) ** 0.5
    )


def test_one_copy_is_refused() -> None:
    with pytest.raises(
        ValueError, match="needs n_samples >= 2, as one copy has no variance; got 1"
    ):
        under_test.explain_functions(vargrad, n_samples=1)
