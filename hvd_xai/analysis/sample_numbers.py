"""Collects the numbers of single samples."""

import numpy as np
import numpy.typing as npt
from jaxtyping import Num

from hvd_xai.checkpoint.explanation import Explanation
from hvd_xai.protocols import Json

_INTERNAL = ("scale", "content_hash")


def read_columns(explanation: Explanation, sample_ids: npt.ArrayLike) -> list[dict[str, Json]]:
    """Returns the columns of some samples, a record for each, with method, epoch and score's class.

    Args:
        explanation: the explanation.
        sample_ids: ids of the samples, in the order in which records are returned.

    Raises:
        CheckpointError: if a sample is not in the explanation, or a file is missing or damaged.
    """
    rows, manifest = explanation.rows_of(sample_ids), explanation.manifest
    columns = {
        name: explanation.column(name)[rows].tolist()
        for name in explanation.columns
        if name not in _INTERNAL
    }
    of_all: dict[str, Json] = {
        "epoch": manifest.epoch,
        "method": manifest.method,
        "score_unit": manifest.score_facts.unit,
        "score_class": manifest.score_facts.of_class,
    }
    return [
        {name: values[index] for name, values in columns.items()} | of_all
        for index in range(len(rows))
    ]


def summarise(attributions: Num[np.ndarray, "..."]) -> dict[str, Json]:
    """Returns the sum, the largest magnitude, and the number of values that are not finite.

    Sum and magnitude are those of the finite values.

    Example:
        >>> summarise(np.array([1.0, -3.0, np.nan]))
        {'sum': -2.0, 'largest': 3.0, 'nonfinite': 1}
    """
    finite = attributions[np.isfinite(attributions)].astype(np.float64)
    return {
        "sum": float(finite.sum()),
        "largest": float(np.abs(finite).max(initial=0.0)),
        "nonfinite": int(attributions.size - finite.size),
    }
