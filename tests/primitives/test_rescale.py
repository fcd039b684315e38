"""Every rule is complete: the inputs of an operation get all that its output has."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.primitives import rescale

GENERATOR = np.random.default_rng(3)
A, A_OTHER, B, B_OTHER = (GENERATOR.uniform(0.2, 2, (4, 5)).astype(np.float32) for _ in range(4))
ROUNDING = 1e-5

RULES: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "sum": lambda a, b: a + b,
    "product": lambda a, b: a * b,
    "matrix product": lambda a, b: tf.matmul(a, b, transpose_b=True),
    "rectifier": lambda a, b: tf.nn.relu(a - 1 + 0 * b),
    "logarithm": lambda a, b: tf.math.log(a + 0 * b),
    "maximum": tf.maximum,
    "quotient": lambda a, b: a / b,
    "softmax": lambda a, b: tf.nn.softmax(a + 0 * b),
    "log-softmax": lambda a, b: tf.nn.log_softmax(a + 0 * b),
}


@pytest.mark.parametrize("name", RULES)
def test_changes_of_the_inputs_sum_to_the_change_of_the_output(name: str) -> None:
    @tf.function(autograph=False)  # type: ignore[untyped-decorator]  # TensorFlow ships no types
    def shared(*values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        a, b, a_other, b_other = values
        y, y_other = RULES[name](a, b), RULES[name](a_other, b_other)
        twins = rescale.Twins(y.op, y_other.op, [True] * len(y.op.inputs))
        rule = rescale.find(twins)
        assert rule is not None
        weights = tf.reshape(tf.range(1.0, 1.0 + tf.size(y, tf.float32)), tf.shape(y))
        sent = rule(twins, [weights])
        total = tf.add_n(
            [
                tf.reduce_sum(multiplier * (here - there))
                for multiplier, here, there in zip(
                    sent, y.op.inputs, y_other.op.inputs, strict=True
                )
                if multiplier is not None
            ]
        )
        return total, tf.reduce_sum(weights * (y - y_other))

    got, want = shared(*map(tf.constant, (A, B, A_OTHER, B_OTHER)))
    np.testing.assert_allclose(got, want, rtol=ROUNDING)


def test_an_operation_without_a_rule_has_none() -> None:
    @tf.function(autograph=False)  # type: ignore[untyped-decorator]  # TensorFlow ships no types
    def multiply_up(a: tf.Tensor) -> tf.Tensor:
        values = tf.math.cumprod(a)
        assert values.op.type == "Cumprod"
        assert rescale.find(rescale.Twins(values.op, values.op, [True, False])) is None
        return values

    multiply_up(tf.constant(A))
