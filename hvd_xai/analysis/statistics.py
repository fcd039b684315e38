"""Summarises an explanation in a few statistics, and its drift from the epoch before.

The table of a run and TensorBoard both show them.
"""

import logging
from collections.abc import Iterable
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
    try:
        earlier = run.newest_before(epoch, method)
        return None if earlier is None else drift(snapshot(earlier), snapshot(explanation))
    # The earlier one may be damaged, or of another shape, as after the method's layer was changed.
    except (CheckpointError, ValueError) as error:
        log.warning(
            "%s at epoch %d is not compared with an earlier epoch: %s", method, epoch, error
        )
        return None


def signs(explanations: Iterable[Explanation]) -> dict[str, bool | None]:
    """Returns by method whether the attributions that are shown side by side have a sign.

    None: that is not known.

    A method that does not say so has one if any of its explanations does.
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
    """Returns what drift compares of an explanation; its thumbnails are read later, in blocks."""
    return Snapshot(
        explanation.column("sample_id"), explanation.column("prediction"), explanation.thumbnails
    )
