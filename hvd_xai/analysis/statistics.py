"""Summarises an explanation in a few statistics, and measures its drift since an earlier epoch.

The table of a run and TensorBoard both show these numbers.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from hvd_xai.analysis.drift import Drift, Snapshot, drift
from hvd_xai.checkpoint.explanation import Explanation
from hvd_xai.checkpoint.reader import Explanations
from hvd_xai.errors import CheckpointError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Statistics:
    """Holds the numbers that summarise one explanation.

    Attributes:
        score: mean score of the samples.
        accuracy: share of samples predicted as their target; None unless both are class ids.
        convergence_delta: mean magnitude of the convergence delta; None if the method has none.
        drift: drift since the newest earlier epoch of the same method; None if no earlier epoch
            can be compared.
    """

    score: float
    accuracy: float | None
    convergence_delta: float | None
    drift: Drift | None


def compute_statistics(run: Explanations, explanation: Explanation) -> Statistics:
    """Computes the statistics of an explanation in bounded memory.

    Args:
        run: explanations of the run, among which the earlier epoch for the drift is found.
        explanation: explanation of that run.

    Raises:
        CheckpointError: if the explanation cannot be read.
    """
    prediction, target = explanation.column("prediction"), explanation.column("target")
    are_ids = np.issubdtype(prediction.dtype, np.integer) and np.issubdtype(
        target.dtype, np.integer
    )
    has_delta = "convergence_delta" in explanation.columns
    # Infinite scores of both signs have no mean, and NaN says so.
    with np.errstate(invalid="ignore"):
        return Statistics(
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
    """Returns the drift since the newest earlier epoch; logs why, if the two do not compare."""
    method, epoch = explanation.manifest.method, explanation.manifest.epoch
    try:
        earlier = run.newest_before(epoch, method)
        return None if earlier is None else drift(snapshot(earlier), snapshot(explanation))
    # The earlier explanation may be damaged, or have another shape because the method now explains
    # another layer.
    except (CheckpointError, ValueError) as error:
        log.warning(
            "%s at epoch %d is not compared with an earlier epoch: %s", method, epoch, error
        )
        return None


def signs(explanations: Iterable[Explanation]) -> dict[str, bool | None]:
    """Returns for each method whether its attributions have a sign; None if that is not known.

    Explanations that are shown side by side share one colour scale for each method, so that one
    signed explanation makes its method signed.

    Args:
        explanations: explanations that are shown side by side, of any methods and epochs.
    """
    found: dict[str, list[bool | None]] = {}
    for explanation in explanations:
        manifest = explanation.manifest
        found.setdefault(manifest.method, []).append(manifest.is_signed)
    return {
        method: True if any(said) else None if None in said else False
        for method, said in found.items()
    }


def snapshot(explanation: Explanation) -> Snapshot:
    """Returns the part of an explanation that `drift` compares; thumbnails are read later."""
    return Snapshot(
        explanation.column("sample_id"), explanation.column("prediction"), explanation.thumbnails
    )
