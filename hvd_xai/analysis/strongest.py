"""Finds the strongest values of a vector of attributions, and the sum of all others."""

import numpy as np
from jaxtyping import Int, Num


def strongest(vectors: Num[np.ndarray, "v n"], most: int) -> Int[np.ndarray, "m"]:
    """Returns the places of the values that are largest in magnitude in any of several vectors.

    A value that is not finite counts as the largest of all, so that nobody overlooks it.

    Args:
        vectors: vectors of one length, on comparable scales.
        most: largest number of places that is returned.

    Returns:
        `[m]` places, the strongest first; of equal values the earlier place first.

    Example:
        >>> strongest(np.array([[0.1, -3.0, 0.0], [0.2, 0.0, 2.0]]), 2).tolist()
        [1, 2]
    """
    magnitudes = np.where(np.isfinite(vectors), np.abs(vectors), np.inf).max(axis=0)
    # stable: equal values keep their order, whatever the platform sorts with
    return np.argsort(-magnitudes, kind="stable")[:most]


def sum_of_others(vector: Num[np.ndarray, "n"], chosen: Int[np.ndarray, "m"]) -> float:
    """Returns the sum of the values of a vector that are not among the chosen places.

    Args:
        vector: values of one sample.
        chosen: places that are left out of the sum.

    Example:
        >>> sum_of_others(np.array([1.0, 2.0, 4.0]), np.array([1]))
        5.0
    """
    # Infinity minus infinity is NaN, and shown as such.
    with np.errstate(invalid="ignore"):
        return float(np.delete(vector, chosen).sum())
