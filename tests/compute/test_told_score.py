"""Units and classes of scores, told by the graph that they end."""

from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai import scores
from hvd_xai.compute.predict import Predict
from hvd_xai.protocols import Score, ScoreFacts


def model(units: int, activation: str | None) -> keras.Model:
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(units, activation)])


def facts(net: keras.Model, score: str | Score, *, targets: np.ndarray | None = None) -> ScoreFacts:
    targets = np.array([0, 1, 1]) if targets is None else targets
    is_binary = targets.dtype.kind == "i" and targets.max() < 2
    predict = Predict(net, score=score, is_binary=bool(is_binary))
    predict.check(np.ones((3, 2), np.float32), targets)
    return predict.score_facts


def output(outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Is a user's own score with the name of one of ours."""
    return outputs[:, 0]


@pytest.mark.parametrize(
    ("units", "activation", "score", "expected"),
    [
        (3, "softmax", "output", ScoreFacts("probability", "target")),
        (3, None, "output", ScoreFacts(None, "target")),
        (3, "softmax", "logit", ScoreFacts("logit", "target")),
        (3, None, "log_odds", ScoreFacts("log-odds", "target")),
        (3, "softmax", "predicted", ScoreFacts("probability", "predicted")),
        (1, "sigmoid", "output", ScoreFacts("probability", "1")),
        (1, "sigmoid", "logit", ScoreFacts("logit", "1")),
        (1, "sigmoid", "target_probability", ScoreFacts("probability", "target")),
        (1, None, "probability", ScoreFacts("probability", "1")),
        # it may be a regression of zeros and ones
        (1, None, "output", ScoreFacts()),
        (1, "relu", "regression", ScoreFacts()),
        (3, "softmax", partial(scores.output, head=0), ScoreFacts("probability", "target")),
        (3, "softmax", output, ScoreFacts()),
    ],
)
def test_a_score_is_told_by_its_name_and_by_what_the_model_ends_in(
    units: int, activation: str | None, score: str | Score, expected: ScoreFacts
) -> None:
    assert facts(model(units, activation), score) == expected


def test_a_single_output_is_of_no_class_where_targets_are_values() -> None:
    values = np.array([0.1, 0.7, 3.0], np.float32)
    told = facts(model(1, "sigmoid"), "output", targets=values)
    assert told == ScoreFacts("probability")
