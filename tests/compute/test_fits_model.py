"""Inputs and targets that do not fit the model are refused before it runs."""

from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.attributions.integrated_gradients import integrated_gradients
from hvd_xai.compute.attribute import Compute
from tests import models_under_test as models


def test_a_target_out_of_range_names_its_sample() -> None:
    inputs, targets, ids = models.examples(6)
    targets[[2, 4]] = 3, -1
    compute = Compute(models.subclassed(), integrated_gradients)
    message = (
        "the model has 3 outputs, so targets must be class ids 0 to 2; 2 of 6 are not, the first"
        " being 3 of sample 102"
    )
    with pytest.raises(ValueError, match=message):
        compute.check(inputs, targets, ids + 100)
    with pytest.raises(ValueError, match=message):
        compute(inputs, targets, ids + 100)


def test_a_score_of_ones_own_reads_targets_as_it_likes() -> None:
    def largest(outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        return tf.reduce_max(outputs, axis=1)

    inputs, targets, ids = models.examples(4)
    compute = Compute(models.functional(), partial(integrated_gradients, score=largest))
    assert np.all(np.isfinite(compute(inputs, targets + 1000, ids).attributions))


def test_values_as_targets_of_classes_are_refused() -> None:
    inputs, targets, ids = models.examples(4)
    with pytest.raises(
        ValueError,
        match=(
            r"targets must be integer class ids; got dtype float64|integer class ids as targets;"
            r" got dtype float32"
        ),
    ):
        Compute(models.functional(), integrated_gradients).check(inputs, targets.astype(float), ids)


@pytest.mark.parametrize("shape", [(2, 7, 8, 1), (2, 8, 8), (2, 64)])
def test_inputs_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        ValueError,
        match=r"model 'sequential' takes inputs of shape \(None, 8, 8, 1\); got \(None, ",
    ):
        Compute(models.sequential(), integrated_gradients).check(
            np.zeros(shape, np.float32), np.zeros(2, np.int64)
        )


def test_a_model_of_two_inputs_is_refused() -> None:
    one, two = keras.Input((3,)), keras.Input((3,))
    model = keras.Model([one, two], keras.layers.Add()([one, two]), name="two")
    with pytest.raises(
        ValueError, match=r"model 'two' has 2 inputs, .*make the probe with Probe\.of_several"
    ):
        Compute(model, integrated_gradients).check(
            np.zeros((1, 3), np.float32), np.zeros(1, np.int64)
        )


def test_a_model_without_weights_yet_is_refused() -> None:
    with pytest.raises(
        ValueError, match="model 'subclassed' has no weights yet; build it, or call it once"
    ):
        Compute(models.Subclassed(), integrated_gradients).check(*models.examples(1))


def test_each_example_needs_a_target() -> None:
    inputs, targets, _ = models.examples(4)
    # Type checkers at run time see it first.
    with pytest.raises(
        (ValueError, TypeError),
        match=r"each of the 4 examples needs one target|Type-check error",
    ):
        Compute(models.functional(), integrated_gradients).check(inputs, targets[:3])


def test_targets_that_are_no_numbers_are_refused() -> None:
    inputs, targets, _ = models.examples(4)
    with pytest.raises(ValueError, match="targets must be numbers; got dtype <U"):
        Compute(models.functional(), integrated_gradients).check(inputs, targets.astype(str))
