"""An explanation in a few figures, and how it drifted from the epoch before: what the table of a
run and TensorBoard both show.
"""

import logging
from dataclasses import dataclass

import numpy as np

from hvd_xai.analysis.drift import Drift, Snapshot, drift
from hvd_xai.checkpoint.reader import Explanation, Explanations
from hvd_xai.errors import CheckpointError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Figures:
    """What one explanation comes to.

    Attributes:
        score: mean score.
        accuracy: share of samples predicted as their target; None unless both are class ids.
        convergence_delta: mean magnitude; None where the method has none.
        drift: against the newest earlier epoch of the same method; None if there is none that can
            be compared.
    """

    score: float
    accuracy: float | None
    convergence_delta: float | None
    drift: Drift | None


def figures(run: Explanations, explanation: Explanation) -> Figures:
    """Computes the figures of an explanation, in bounded memory.

    Raises:
        CheckpointError: if the explanation cannot be read.
    """
    prediction, target = explanation.column("prediction"), explanation.column("target")
    are_ids = np.issubdtype(prediction.dtype, np.integer) and np.issubdtype(
        target.dtype, np.integer
    )
    has_delta = "convergence_delta" in explanation.columns
    with np.errstate(invalid="ignore"):  # infinite scores of both signs have no mean: NaN says so
        return Figures(
            score=float(explanation.column("score").mean(dtype=np.float64)),
            accuracy=float((prediction == target).mean()) if are_ids else None,
            convergence_delta=(
                float(np.abs(explanation.column("convergence_delta")).mean(dtype=np.float64))
                if has_delta
                else None
            ),
            drift=_drift(run, explanation),
        )


def _drift(run: Explanations, explanation: Explanation) -> Drift | None:
    method, epoch = explanation.manifest.method, explanation.manifest.epoch
    earlier = [other for other in run.epochs if other < epoch and method in run.methods(other)]
    if not earlier:
        return None
    try:
        return drift(snapshot(run.explanation(max(earlier), method)), snapshot(explanation))
    except (
        CheckpointError,
        ValueError,
    ) as error:  # damaged, or of another shape, as when the method's layer was changed in between
        log.warning(
            "%s at epoch %d is not compared with epoch %d: %s", method, epoch, max(earlier), error
        )
        return None


def is_signed(run: Explanations, method: str) -> bool | None:
    """Returns whether a method's attributions have a sign: whether one of them is negative, at any
    epoch; None if not all were counted.

    One epoch does not say it: a signed method's attributions of a small probe may all happen to be
    positive.
    """
    counts = set()
    for epoch in run.epochs_by_method.get(method, []):
        try:
            counts.add(run.explanation(epoch, method).manifest.negative)
        except CheckpointError as error:  # of an epoch that may not even be shown
            log.warning(
                "%s at epoch %d does not say whether attributions are negative: %s",
                method,
                epoch,
                error,
            )
        if any(counts):
            return True
    return None if None in counts else False


def snapshot(explanation: Explanation) -> Snapshot:
    """Returns what drift looks at of an explanation; its thumbnails are read when they are
    compared.
    """
    return Snapshot(
        explanation.column("sample_id"), explanation.column("prediction"), explanation.thumbnails
    )
