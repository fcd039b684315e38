"""Tells a run as a table: a line for each explanation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.table import Table

from hvd_xai.analysis.doubts import tell_doubts
from hvd_xai.analysis.drift import Drift
from hvd_xai.analysis.statistics import compute_statistics
from hvd_xai.checkpoint.explanation import Explanation
from hvd_xai.checkpoint.reader import Explanations
from hvd_xai.cli.tables import find_starts, fit_table, write_bytes, write_number
from hvd_xai.protocols import ScoreFacts
from hvd_xai.views.captions import explain_scores

# Columns that are left out if the terminal is narrow, in this order.
_LEAST_IMPORTANT = ("committed", "size", "changed", "ranks", "not finite", "samples", "score")


@dataclass(frozen=True, slots=True)
class RunLine:
    """Holds one line of the table of a run: one explanation."""

    epoch: int
    method: str
    step: int
    n_samples: int
    world_size: int
    accuracy: float | None
    score: float
    convergence_delta: float | None
    drift: Drift | None
    nonfinite: int
    n_bytes: int
    created: str
    score_facts: ScoreFacts
    doubts: Mapping[str, int]


def read_line(explanations: Explanations, explanation: Explanation) -> RunLine:
    """Reads the line of one explanation."""
    manifest, found = explanation.manifest, compute_statistics(explanations, explanation)
    return RunLine(
        epoch=manifest.epoch,
        method=manifest.method,
        step=manifest.step,
        n_samples=manifest.n_samples,
        world_size=manifest.world_size,
        accuracy=found.accuracy,
        score=found.score,
        convergence_delta=found.convergence_delta,
        drift=found.drift,
        nonfinite=manifest.nonfinite,
        n_bytes=manifest.n_bytes,
        created=manifest.created,
        score_facts=manifest.score_facts,
        doubts=manifest.doubts,
    )


def tell_lines(lines: Sequence[RunLine]) -> list[str]:
    """Says which classes the scores belong to, and what speaks against the newest explanations.

    Doubts of earlier epochs are told while a job runs, and stand in the JSON.
    """
    scores = explain_scores([(line.method, line.score_facts) for line in lines])
    newest = [line for line in lines if line.epoch == lines[-1].epoch]
    doubts = [
        f"{line.method} at epoch {line.epoch}: {told}."
        for line in newest
        for told in tell_doubts(line.doubts, line.n_samples)
    ]
    return [*filter(None, [scores]), *doubts]


def make_run_table(lines: Sequence[RunLine]) -> Table:
    """Makes the table of a run that fits the terminal."""
    drifts = [line.drift for line in lines]
    columns = {
        "epoch": [str(line.epoch) for line in lines],
        "method": [line.method for line in lines],
        "samples": [str(line.n_samples) for line in lines],
        "ranks": [str(line.world_size) for line in lines],
        "accuracy": [write_number(line.accuracy, ".1%") for line in lines],
        "score": [write_number(line.score, ".3g") for line in lines],
        "|conv. delta|": [write_number(line.convergence_delta, ".2g") for line in lines],
        "drift: cosine": [write_number(one.mean_cosine if one else None, ".3f") for one in drifts],
        "rel. L2": [write_number(one.relative_l2 if one else None, ".2f") for one in drifts],
        "changed": [
            write_number(one.changed_predictions if one else None, ".1%") for one in drifts
        ],
        "not finite": [str(line.nonfinite) for line in lines],
        "size": [write_bytes(line.n_bytes) for line in lines],
        "committed": [
            f"{datetime.fromisoformat(line.created).astimezone():%m-%d %H:%M}" for line in lines
        ],
    }
    return fit_table(columns, find_starts(columns["epoch"]), _LEAST_IMPORTANT)
