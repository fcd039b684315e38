"""Where paths start."""

import numpy as np
import pytest
import tensorflow as tf

from hvd_xai import baselines


def test_zero_is_zero_of_the_same_shape() -> None:
    np.testing.assert_array_equal(baselines.zero(tf.ones((2, 3))), np.zeros((2, 3)))


def test_names_and_functions_resolve() -> None:
    assert baselines.resolve("zero") is baselines.zero
    assert baselines.resolve(baselines.zero) is baselines.zero
    with pytest.raises(ValueError, match="unknown baseline 'mean'; pass baseline= one of 'zero', or a function of the inputs"):
        baselines.resolve("mean")
