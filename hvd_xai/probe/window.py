"""Finds the range of values that pictures of a probe's inputs show, one for the whole probe."""

from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32, Int64, UInt32

Window: TypeAlias = tuple[float, float]
"""The values that are drawn darkest and brightest; what lies beyond is clipped."""

PERCENTILES = (0.5, 99.5)
"""Percentiles of the values of floats, and of wide integers, at which their window ends."""

_SIGN = np.uint32(1 << 31)
_HALF = 16


def find_window(dtype: np.dtype, blocks: Callable[[], Iterable[np.ndarray]]) -> Window:
    """Returns the window of inputs, which depends on all of their values and on nothing else.

    Booleans and integers of one byte are drawn over all values that their dtype has. The dtype of
    wider integers says little (a scan of 12 bits has 16), so they are treated as floats: their
    window reaches from one to the other of `PERCENTILES`, so that a few extreme values do not
    darken all others. Zeros do not count, because a background of them would hide what lies on it,
    but they belong to the window.

    Args:
        dtype: dtype of the inputs.
        blocks: function that yields all inputs in blocks; it is called at most twice.

    Returns:
        The window, whose second value is larger than its first.

    Example:
        >>> digits = np.array([0.0, 3.0, 16.0], np.float32)
        >>> find_window(digits.dtype, lambda: [digits])
        (0.0, 16.0)
        >>> find_window(np.dtype("u1"), lambda: [])
        (0.0, 255.0)
    """
    if dtype.kind == "b":
        return 0.0, 1.0
    if dtype.kind in "iu" and dtype.itemsize == 1:
        limits = np.iinfo(dtype)
        return float(limits.min), float(limits.max)
    low, high = _percentiles(blocks)
    return (low, high) if high > low else (low, low + 1.0)


def window_of(values: np.ndarray) -> Window:
    """Returns the window of an array by itself, for inputs whose probe records none.

    Example:
        >>> window_of(np.array([-2.0, 2.0]))
        (-2.0, 2.0)
    """
    return find_window(values.dtype, lambda: [values])


def check_window(window: object) -> Window:
    """Returns a window as two floats.

    Raises:
        ValueError: if it is no pair of finite numbers, the second larger than the first.

    Example:
        >>> check_window([-160, 240])
        (-160.0, 240.0)
    """
    try:
        low, high = np.asarray(window, np.float64).tolist()
    except (TypeError, ValueError):
        low = high = float("nan")
    # so written, NaN is refused too
    if not (isinstance(low, float) and isinstance(high, float) and -np.inf < low < high < np.inf):
        raise ValueError(
            "the window of a probe is two numbers, the value that is drawn darkest and a larger one"
            f" that is drawn brightest, such as (-160, 240); got {str(window)[:80]}"
        )
    return low, high


def _percentiles(blocks: Callable[[], Iterable[np.ndarray]]) -> Window:
    """Returns the values at `PERCENTILES` of all values but zeros, exactly, in bounded memory.

    Bits of floats, seen as integers, are in the order of the floats. A first pass counts values by
    the upper half of their bits, a second one those within the two halves that were found by the
    lower half:

        upper    ...  0x8042   0x8043   0x8044  ...       counts; the rank wanted lies in one
        lower                 0 ... 65535                 counts; the rank wanted is one value
    """
    upper, n_zeros = np.zeros(1 << _HALF, np.int64), 0
    for block in blocks():
        keys, n_of_block = _keys(block)
        upper += _count(keys >> _HALF)
        n_zeros += n_of_block
    n_values = int(upper.sum())
    if n_values == 0:
        return 0.0, 0.0
    ranks = [
        int(np.floor(PERCENTILES[0] / 100 * (n_values - 1))),
        int(np.ceil(PERCENTILES[1] / 100 * (n_values - 1))),
    ]
    ends = np.cumsum(upper)
    halves = [int(np.searchsorted(ends, rank, side="right")) for rank in ranks]
    lower = [np.zeros(1 << _HALF, np.int64) for _ in halves]
    for block in blocks():
        keys, _ = _keys(block)
        for counts, half in zip(lower, halves, strict=True):
            np.add(counts, _count(keys[keys >> _HALF == half] & 0xFFFF), out=counts)
    found = []
    for rank, half, counts in zip(ranks, halves, lower, strict=True):
        within = rank - (int(ends[half - 1]) if half else 0)
        low_bits = int(np.searchsorted(np.cumsum(counts), within, side="right"))
        found.append(_value(half << _HALF | low_bits))
    if n_zeros:
        found = [min(found[0], 0.0), max(found[1], 0.0)]
    return found[0], found[1]


def _keys(block: np.ndarray) -> tuple[UInt32[np.ndarray, "m"], int]:
    """Returns the finite values other than zero as integers of their order, and counts zeros."""
    # a float64 beyond the range of float32 becomes an infinity, which is left out
    with np.errstate(over="ignore"):
        values: Float32[np.ndarray, "n"] = np.ascontiguousarray(block, np.float32).reshape(-1)
    is_zero = values == 0
    bits = values[np.isfinite(values) & ~is_zero].view(np.uint32)
    # negative floats are in falling order of their bits, and come before all positive ones
    return np.where(bits & _SIGN, ~bits, bits | _SIGN), int(np.count_nonzero(is_zero))


def _count(halves: UInt32[np.ndarray, "m"]) -> Int64[np.ndarray, "65536"]:
    return np.bincount(halves.astype(np.int64), minlength=1 << _HALF)


def _value(key: int) -> float:
    """Returns the float of an integer of the order: the inverse of `_keys`."""
    bits = np.uint32(key)
    return float(np.array(bits ^ _SIGN if bits & _SIGN else ~bits, np.uint32).view(np.float32))
