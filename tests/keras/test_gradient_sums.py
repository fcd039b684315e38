"""Gradients of several passes are summed, and reduced together with the last of them."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import hvd_xai.keras as hvd
from hvd_xai.keras.gradient_sums import GradientSums
from hvd_xai.keras.reduction import Reduction

hvd.init()

VARIABLE = keras.Variable([0.0, 0.0])


class Passes:
    """Adds pass after pass, as an optimizer does, in a graph."""

    def __init__(self, n_passes: int, *, average: bool = False) -> None:
        self.clock = keras.Variable(0, dtype="int64", trainable=False)
        self.sums = GradientSums(n_passes, average=average, clock=self.clock)
        self._add = tf.function(
            lambda gradient: self.sums.add([gradient, None], [VARIABLE, VARIABLE], Reduction()),
            autograph=False,
        )

    def __call__(self, *gradient: float) -> list[float]:
        value, nothing = self._add(tf.constant(gradient))
        assert nothing is None
        self.clock.assign(self.clock + 1)
        values: list[float] = np.asarray(value).tolist()
        return values


def test_sums_begin_anew_with_each_step() -> None:
    add = Passes(2)
    assert [add(1.0, 2.0), add(3.0, 4.0), add(5.0, 6.0)] == [[1, 2], [4, 6], [5, 6]]


def test_an_average_is_taken_of_the_last_pass_alone() -> None:
    add = Passes(2, average=True)
    assert [add(1.0, 2.0), add(3.0, 4.0)] == [[1, 2], [2, 3]]


def test_an_overflow_does_not_outlive_its_step() -> None:
    add = Passes(2)
    add(np.inf, 1.0)
    assert add(1.0, 1.0)[0] == np.inf
    assert add(1.0, 1.0) == [1, 1]


@pytest.mark.parametrize(
    ("n_done", "counter", "completes"), [(0, 0, False), (2, 2, True), (3, 0, False)]
)
def test_the_clock_tells_which_pass_comes_next(n_done: int, counter: int, completes: bool) -> None:
    clock: Any = keras.Variable(n_done, dtype="int64", trainable=False)
    sums = GradientSums(3, average=True, clock=clock)
    assert (int(sums.counter), bool(sums.completes_step())) == (counter, completes)
