"""What is explained."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai import scores


def test_output_selects_the_target_of_each_example() -> None:
    outputs = tf.constant([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    np.testing.assert_array_equal(scores.output(outputs, tf.constant([2, 0])), [3, 4])


@pytest.mark.parametrize("outputs", [[[1.5], [2.5]], [1.5, 2.5]])
def test_output_of_one_value_is_that_value_whatever_the_target(outputs: list[object]) -> None:
    for targets in (tf.constant([1, 0]), tf.constant([0.3, 7.0])):
        np.testing.assert_array_equal(scores.output(tf.constant(outputs), targets), [1.5, 2.5])


def test_output_does_not_touch_other_classes() -> None:
    outputs = tf.constant([[np.nan, 2.0]])
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        score = scores.output(outputs, tf.constant([1]))
    np.testing.assert_array_equal(score, [2.0])
    np.testing.assert_array_equal(tape.gradient(score, outputs), [[0.0, 1.0]])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_scores_leave_in_float32(dtype: str) -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, dtype=dtype)])
    assert scores.evaluate(model, tf.zeros((4, 2)), tf.zeros(4, tf.int32), "output").dtype == tf.float32


def test_outputs_of_another_rank_are_refused() -> None:
    with pytest.raises(ValueError, match=r"needs a model that returns one array of shape \(n, k\) or \(n,\); got \(2, 3, 4\)"):
        scores.output(tf.zeros((2, 3, 4)), tf.constant([0, 0]))


def test_values_as_targets_of_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="a model with 3 outputs needs integer class ids as targets; got dtype float32"):
        scores.output(tf.zeros((2, 3)), tf.constant([0.5, 0.5]))


def test_a_score_that_is_not_one_number_an_example_is_refused() -> None:
    def everything(outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        return outputs

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match=r"a score must return one number an example, shape \(n,\); .* returned shape \(4, 3\)"):
        scores.evaluate(model, tf.zeros((4, 2)), tf.zeros(4, tf.int32), everything)


def test_names_and_functions_resolve() -> None:
    assert scores.resolve("output") is scores.output
    assert scores.resolve(scores.output) is scores.output
    with pytest.raises(ValueError, match="unknown score 'logits'; pass score= one of 'output', or a function"):
        scores.resolve("logits")
