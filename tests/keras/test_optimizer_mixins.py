"""The mixins, each put before a plain optimizer by hand, in one process."""

from typing import Any, ClassVar

import keras
import pytest
import tensorflow as tf

import hvd_xai.keras as hvd
from hvd_xai.keras.optimizer_mixins import (
    AgreesOnOverflow,
    Distribution,
    ReducesAccumulated,
    ReducesInApply,
    distributed_class,
)
from hvd_xai.keras.reduction import Reduction

hvd.init()


class Counting(Reduction):
    """Halves gradients instead of reducing them, and counts the calls."""

    asked: ClassVar[list[int]] = []

    def reduce(self, gradients: Any, variables: Any) -> Any:
        self.asked.append(len(gradients))
        return [gradient / 2 for gradient in gradients]


@pytest.fixture
def reduction() -> Counting:
    Counting.asked.clear()
    return Counting()


def _apply(optimizer: keras.optimizers.Optimizer, *gradients: float) -> float:
    weight = keras.Variable([0.0])
    for gradient in gradients:
        optimizer.apply([tf.constant([gradient])], [weight])
    return float(weight.numpy()[0])


def test_gradients_are_reduced_before_they_are_clipped(reduction: Counting) -> None:
    own = distributed_class(ReducesInApply, keras.optimizers.SGD, Distribution(reduction))
    assert _apply(own(learning_rate=1.0, clipvalue=3.0), 4.0, 8.0) == -2.0 - 3.0
    assert reduction.asked == [1, 1]


def test_passes_are_summed_and_reduced_once(reduction: Counting) -> None:
    own = distributed_class(
        ReducesInApply, keras.optimizers.SGD, Distribution(reduction, n_passes=2)
    )
    assert _apply(own(learning_rate=1.0), 1.0, 5.0) == -3.0
    assert reduction.asked == [1]


def test_what_keras_accumulates_is_reduced_once(reduction: Counting) -> None:
    own = distributed_class(ReducesAccumulated, keras.optimizers.SGD, Distribution(reduction))
    assert _apply(own(learning_rate=1.0, gradient_accumulation_steps=2), 1.0, 5.0) == -1.5
    assert reduction.asked == [1]


@pytest.mark.parametrize("when", ["at first", "later"])
def test_loss_scaling_around_a_mixin_is_refused_when_it_is_applied(
    reduction: Counting, when: str
) -> None:
    own = distributed_class(ReducesInApply, keras.optimizers.SGD, Distribution(reduction))
    inner = own(learning_rate=1.0)
    around = keras.optimizers.LossScaleOptimizer(
        inner if when == "at first" else keras.optimizers.SGD(1.0)
    )
    around.inner_optimizer = inner
    with pytest.raises(ValueError, match="LossScaleOptimizer is around"):
        _apply(around, 1.0)
    assert reduction.asked == []


def test_one_gradient_for_each_variable_is_wanted(reduction: Counting) -> None:
    for mixin in (ReducesInApply, ReducesAccumulated):
        own = distributed_class(mixin, keras.optimizers.SGD, Distribution(reduction))
        with pytest.raises(ValueError, match="got 1 gradients for 0 variables"):
            own(learning_rate=1.0).apply([tf.ones(1)])


def test_loss_scaling_that_agrees_over_the_ranks_may_be_around(reduction: Counting) -> None:
    scaling = keras.optimizers.LossScaleOptimizer
    own = distributed_class(AgreesOnOverflow, scaling, Distribution(reduction))
    inner = keras.optimizers.SGD(1.0, gradient_accumulation_steps=2)
    optimizer = own(inner, initial_scale=4.0)
    assert _apply(optimizer, 4.0, 20.0) == -1.5
    assert isinstance(optimizer.inner_optimizer, ReducesAccumulated)


def test_xla_is_refused_in_graphs_inside_the_one_it_compiles(reduction: Counting) -> None:
    own = distributed_class(ReducesInApply, keras.optimizers.SGD, Distribution(reduction))
    optimizer, weight = own(learning_rate=1.0), keras.Variable([0.0])
    optimizer.build([weight])

    def step(gradient: tf.Tensor) -> tf.Tensor:
        def applied() -> bool:
            optimizer.apply([gradient], [weight])
            return True

        return tf.cond(gradient[0] > 0, applied, lambda: False)

    with pytest.raises(ValueError, match="jit_compile=True"):
        tf.function(step, jit_compile=True, autograph=False)(tf.constant([1.0]))
    tf.function(step, autograph=False)(tf.constant([4.0]))
    assert float(weight.numpy()[0]) == -2.0


def test_the_class_bears_the_name_that_a_file_is_loaded_by(reduction: Counting) -> None:
    own = distributed_class(ReducesInApply, keras.optimizers.Adam, Distribution(reduction))
    names = [
        (kind.__module__, kind.__qualname__, kind.__name__) for kind in (own, keras.optimizers.Adam)
    ]
    assert names[0] == names[1]
    assert own is not keras.optimizers.Adam
