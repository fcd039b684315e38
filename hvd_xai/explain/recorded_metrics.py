"""Turns the logs of an epoch into the metrics of a manifest."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from hvd_xai.protocols import Json

_MOST_VALUES = 10_000  # of one metric: the confusion matrix of 100 classes


def recorded_metrics(logs: Mapping[str, Any]) -> dict[str, Json]:
    """Returns the numbers among logged values as JSON, and arrays of numbers as lists.

    JSON has no number that is not finite: such a metric is left out, and in a list null stands for
    it. An array of more than 10,000 values, which would bloat every manifest, is left out as well.

    Example:
        >>> recorded_metrics({"loss": 0.5, "f1": np.array([1.0, np.nan]), "note": "warm"})
        {'loss': 0.5, 'f1': [1.0, None]}
    """
    recorded: dict[str, Json] = {}
    for name, value in logs.items():
        try:
            # NumPy makes no array of a single number of TensorFlow in bfloat16.
            array = np.asarray(value.numpy() if hasattr(value, "numpy") else value)
        except ValueError:  # a list whose items have several lengths
            continue
        is_numbers = array.dtype.kind in "biuf" or array.dtype.name == "bfloat16"
        if is_numbers and array.size <= _MOST_VALUES:
            plain = _plain(array.astype(np.float64).tolist())
            if plain is not None:
                recorded[name] = plain
    return recorded


def _plain(value: Any) -> Json:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if math.isfinite(value) else None
