"""Tells what a score is: in which unit, and of which class."""

import functools

import tensorflow as tf

from hvd_xai import scores
from hvd_xai.compute.fits_model import find_head
from hvd_xai.protocols import Score, ScoreClass, ScoreFacts, ScoreUnit
from hvd_xai.tracing.logits import find_activation

_UNITS: dict[str, ScoreUnit] = {
    "logit": "logit",
    "probability": "probability",
    "target_probability": "probability",
    "log_odds": "log-odds",
}


def tell_score(
    score: str | Score, outputs: scores.Outputs, *, is_binary: bool = False
) -> ScoreFacts:
    """Returns the unit of a score and the class that it belongs to, as far as both are known.

    It looks at the graph that the model was just traced into.

    Args:
        score: score that is explained.
        outputs: what the model returned.
        is_binary: whether all targets are class ids 0 and 1, so that a single output is of class 1.
    """
    function = scores.resolve(score)
    head = find_head(function)
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__name__", "")
    # a user's own score may have the name of one of ours
    if getattr(scores, name, None) is not function:
        return ScoreFacts()
    if not isinstance(outputs, tf.Tensor) and head is None:
        return ScoreFacts()
    array = scores.one_head(outputs, head)
    is_probability = find_activation(array) is not None
    unit = _UNITS.get(name) or ("probability" if is_probability else None)
    if name == "regression":
        return ScoreFacts(unit)
    if name == "target_probability":
        return ScoreFacts(unit, "target")
    if array.shape.rank > 1 and array.shape[-1] != 1:
        return ScoreFacts(unit, "predicted" if name == "predicted" else "target")
    of_class: ScoreClass | None = "1" if is_binary and unit is not None else None
    return ScoreFacts(unit, of_class)
