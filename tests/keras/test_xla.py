"""A step that XLA would compile is refused with advice, and any other is not."""

from collections.abc import Callable
from typing import Any

import pytest
import tensorflow as tf

from hvd_xai.keras.xla import refuse_xla


def trace(step: Callable[[tf.Tensor], tf.Tensor], jit_compile: bool | None) -> Any:
    return tf.function(step, jit_compile=jit_compile, autograph=False)


@pytest.mark.parametrize("jit_compile", [None, False])
def test_other_steps_are_traced(jit_compile: bool | None) -> None:
    def step(x: tf.Tensor) -> tf.Tensor:
        refuse_xla()
        return x + 1

    assert float(trace(step, jit_compile)(tf.constant(1.0))) == 2.0
    refuse_xla()


def test_a_step_for_xla_is_refused() -> None:
    def step(x: tf.Tensor) -> tf.Tensor:
        refuse_xla()
        return x + 1

    with pytest.raises(ValueError, match=r"XLA cannot compile.*jit_compile=False"):
        trace(step, True)(tf.constant(1.0))


def test_a_branch_of_a_step_for_xla_is_refused() -> None:
    def step(x: tf.Tensor) -> tf.Tensor:
        def branch() -> tf.Tensor:
            refuse_xla()
            return x + 1

        return tf.cond(x > 0, branch, lambda: x)

    with pytest.raises(ValueError, match="XLA cannot compile"):
        trace(step, True)(tf.constant(1.0))
