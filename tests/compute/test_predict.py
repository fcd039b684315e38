"""Predictions and scores are those of the model, however many examples there are."""

import keras
import numpy as np
import pytest

from hvd_xai.compute.predict import Predict
from tests import models_under_test as models


def test_predictions_and_scores_are_the_models() -> None:
    inputs, targets, _ = models.examples(37)
    model = models.with_state()
    predict = Predict(model, micro_batch=16)
    assert predict.check(inputs, targets) == np.int32
    predictions, scores = predict(inputs, targets)
    outputs = model.predict(inputs, verbose=0)
    np.testing.assert_array_equal(predictions, outputs.argmax(axis=1))
    np.testing.assert_allclose(scores, outputs[np.arange(37), targets], rtol=1e-6)
    assert predictions.dtype == np.int32
    assert scores.dtype == np.float32
    assert predict.n_traces == 1


def test_predictions_of_one_output_are_its_values() -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    inputs = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    predict = Predict(model)
    targets = np.linspace(0, 1, 5)
    assert predict.check(inputs, targets) == np.float32
    predictions, scores = predict(inputs, targets)
    np.testing.assert_allclose(predictions, model.predict(inputs, verbose=0)[:, 0], rtol=1e-6)
    np.testing.assert_array_equal(predictions, scores)


def test_a_probability_of_class_1_predicts_the_likelier_class() -> None:
    keras.utils.set_random_seed(3)
    inputs, targets = (
        np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32),
        np.arange(40) % 2,
    )
    dense = [keras.Input((3,)), keras.layers.Dense(1)]
    for ends in (
        [keras.layers.Activation("sigmoid")],
        [keras.layers.Lambda(keras.ops.sigmoid), keras.layers.Flatten()],
    ):
        model = keras.Sequential([*dense, *ends])
        for score in ("output", "logit"):
            predict = Predict(model, score=score, is_binary=True)
            assert predict.check(inputs, targets) == np.int32
            np.testing.assert_array_equal(
                predict(inputs, targets).predictions, model.predict(inputs, verbose=0)[:, 0] > 0.5
            )
        assert Predict(model).check(inputs, targets) == np.float32, "where targets may be anything"
    assert 0 < model.predict(inputs, verbose=0).round().mean() < 1


@pytest.mark.parametrize("activation", [None, "tanh", "relu", "hard_sigmoid"])
def test_one_output_that_is_no_probability_predicts_a_value(activation: str | None) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, activation=activation)])
    assert (
        Predict(model, is_binary=True).check(np.zeros((2, 3), np.float32), np.arange(2))
        == np.float32
    )


def test_predictions_hold_targets_to_the_outputs() -> None:
    inputs, targets, ids = models.examples(4)
    targets[1] = 7
    with pytest.raises(ValueError, match="1 of 4 are not, the first being 7 of sample 51"):
        Predict(models.functional()).check(inputs, targets, ids + 50)
    with pytest.raises(ValueError, match="the first being 7 of sample 1"):
        Predict(models.functional())(inputs, targets)


def test_no_examples_give_no_predictions() -> None:
    predictions, scores = Predict(models.functional())(*models.examples(0)[:2])
    assert predictions.shape == scores.shape == (0,)


def test_new_weights_are_seen() -> None:
    inputs, targets, _ = models.examples(3)
    model = models.functional()
    predict = Predict(model)
    before = predict(inputs, targets).scores
    model.set_weights([weight * 2 for weight in model.get_weights()])
    assert np.abs(predict(inputs, targets).scores - before).max() > 0
    assert predict.n_traces == 1
