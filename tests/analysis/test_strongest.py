"""Finds the strongest values of vectors."""

import numpy as np
import pytest

from hvd_xai.analysis.strongest import strongest, sum_of_others


def test_the_strongest_in_any_vector_come_first_and_what_is_not_finite_before_them() -> None:
    vectors = np.array([[0.1, -3.0, 0.0, 1.0], [0.2, 0.0, 2.0, 0.0]], np.float32)
    assert strongest(vectors, 3).tolist() == [1, 2, 3]
    assert sum_of_others(vectors[0], np.array([1, 2])) == pytest.approx(1.1)
    vectors[1, 0] = np.nan
    assert strongest(vectors, 2).tolist() == [0, 1]
    assert np.isnan(sum_of_others(np.array([np.inf, -np.inf], np.float32), np.array([], int)))
