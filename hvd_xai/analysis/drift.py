"""How much the explanations of the same samples changed from one epoch to another.

Everything is computed by NumPy from thumbnails, block by block; no file is touched.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int, Num, Shaped

# Number of samples read at a time: 6 MB in float64, of 784 values each.
_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Holds what drift reads of one explanation.

    Args:
        sample_ids: sample ids in the order of the rows, `[N]`.
        predictions: predicted class ids, or values, `[N]`.
        thumbnails: function that reads rows `start` to `stop` of the attributions' block means
            `[N, ...]`, so that no more than a block is held in memory.

    Example:
        >>> means = np.ones((2, 4, 4), np.float32)
        >>> one = Snapshot(np.arange(2), np.array([1, 0]), lambda start, stop: means[start:stop])
        >>> one.sample_ids
        array([0, 1])
    """

    sample_ids: Int[np.ndarray, "N"]
    predictions: Num[np.ndarray, "N"]
    thumbnails: Callable[[int, int], Num[np.ndarray, "n ..."]]


@dataclass(frozen=True, slots=True)
class Drift:
    """Says how far one explanation is from an earlier one of the same samples.

    Args:
        mean_cosine: mean over samples of `cosine_similarity`; 1 if nothing changed but strength,
            NaN without samples.
        median_cosine: median over samples of `cosine_similarity`; NaN without samples.
        relative_l2: ‖after - before‖ / max(‖before‖, ‖after‖) over all samples together, 0 to 2; 0
            if both norms are zero.
        changed_predictions: share of samples whose predicted class changed; None if predictions are
            values and not class ids, or without samples.
        n_samples: number of samples compared.
        n_left_out: number of samples left out because one of their values is not finite.

    Example:
        >>> Drift(1.0, 1.0, 0.0, 0.0, n_samples=12, n_left_out=0).mean_cosine
        1.0
    """

    mean_cosine: float
    median_cosine: float
    relative_l2: float
    changed_predictions: float | None
    n_samples: int
    n_left_out: int


def drift(before: Snapshot, after: Snapshot) -> Drift:
    """Compares two explanations of the same samples.

    Args:
        before: the earlier explanation.
        after: the later explanation.

    Returns:
        Statistics over the samples whose thumbnails are finite in both explanations.

    Raises:
        ValueError: if the sample ids or their order differ, or the shapes of the thumbnails do.

    Example:
        >>> ones = np.ones((2, 4, 4), np.float32)
        >>> ids, predictions = np.arange(2), np.array([1, 0])
        >>> before = Snapshot(ids, predictions, lambda start, stop: ones[start:stop])
        >>> after = Snapshot(ids, predictions, lambda start, stop: 2 * ones[start:stop])
        >>> drift(before, after).relative_l2
        0.5
    """
    n_samples = len(before.sample_ids)
    blocks = list(_compared(before, after))
    cosines = np.concatenate([np.empty(0), *(of_block for of_block, _ in blocks)])
    squares = sum((of_block for _, of_block in blocks), np.zeros(3))
    compared = np.isfinite(cosines)
    largest = max(squares[0], squares[1])
    return Drift(
        mean_cosine=float(cosines[compared].mean()) if compared.any() else float("nan"),
        median_cosine=float(np.median(cosines[compared])) if compared.any() else float("nan"),
        relative_l2=float(np.sqrt(squares[2] / largest)) if largest > 0 else 0.0,
        changed_predictions=_changed(before.predictions, after.predictions, compared),
        n_samples=int(compared.sum()),
        n_left_out=int(n_samples - compared.sum()),
    )


def similarities(before: Snapshot, after: Snapshot) -> Float64[np.ndarray, "N"]:
    """Returns the `cosine_similarity` of each sample's attributions in two explanations.

    It is NaN for a sample of which a value is not finite in either explanation.

    Raises:
        ValueError: if the sample ids or their order differ, or the shapes of the thumbnails do.

    Example:
        >>> ones = np.ones((2, 4, 4), np.float32)
        >>> one = Snapshot(np.arange(2), np.array([1, 0]), lambda start, stop: ones[start:stop])
        >>> similarities(one, one).round(6)
        array([1., 1.])
    """
    return np.concatenate([np.empty(0), *(cosines for cosines, _ in _compared(before, after))])


def cosine_similarity(
    before: Num[np.ndarray, "n ..."], after: Num[np.ndarray, "n ..."]
) -> Float64[np.ndarray, "n"]:
    """Returns the cosine of the angle between each sample's attributions before and after.

        cos(a, b) = a · b / (‖a‖ ‖b‖)        in -1..1

    1 means the same pattern, whatever its strength; 0 means nothing in common; -1 means the
    opposite. Zeros have no direction: the cosine of two rows of zeros is 1, because nothing
    changed, and the cosine of a row of zeros and another row is 0.

    Args:
        before: finite attributions, `[n, ...]`.
        after: finite attributions of the same shape.

    Example:
        >>> before, after = np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[5.0, 0.0], [0.0, 1.0]])
        >>> cosine_similarity(before, after)
        array([1., 0.])
    """
    earlier, later = _vectors(before), _vectors(after)
    # Squares of tiny or huge values would vanish or overflow, so each row is first divided by its
    # largest magnitude.
    sizes = [np.abs(values).max(axis=1, initial=0.0) for values in (earlier, later)]
    earlier, later = (
        values / np.where(size > 0, size, 1.0)[:, None]
        for values, size in zip((earlier, later), sizes, strict=True)
    )
    norms = np.linalg.norm(earlier, axis=1) * np.linalg.norm(later, axis=1)
    cosines = np.einsum("nk,nk->n", earlier, later) / np.where(norms > 0, norms, 1.0)
    both_zero = (sizes[0] == 0) & (sizes[1] == 0)
    return np.asarray(np.where(both_zero, 1.0, np.clip(cosines, -1.0, 1.0)), np.float64)


def _compared(
    before: Snapshot, after: Snapshot
) -> Iterator[tuple[Float64[np.ndarray, "n"], Float64[np.ndarray, "3"]]]:
    """Compares two explanations block by block.

    Yields:
        The cosine of each sample of a block, NaN if one of its values is not finite; and the
        squared norms of before, after and their difference over the other samples.
    """
    if not np.array_equal(before.sample_ids, after.sample_ids):
        raise ValueError(
            f"drift compares explanations of the same samples in the same order; got {_ids(before)}"
            f" before and {_ids(after)} after. Compare epochs of one run, or runs with the same"
            " probe."
        )
    n_samples = len(before.sample_ids)
    for start in range(0, n_samples, _BLOCK):
        blocks = [
            snapshot.thumbnails(start, min(start + _BLOCK, n_samples))
            for snapshot in (before, after)
        ]
        if blocks[0].shape != blocks[1].shape:
            raise ValueError(
                f"drift compares thumbnails of one shape; got {blocks[0].shape[1:]} before and"
                f" {blocks[1].shape[1:]} after. Compare explanations of the same method and"
                " options."
            )
        earlier, later = (_vectors(block) for block in blocks)
        usable = np.isfinite(earlier).all(axis=1) & np.isfinite(later).all(axis=1)
        # Chosen before they are subtracted: infinity minus infinity warns.
        earlier, later = earlier[usable], later[usable]
        cosines = np.full(len(usable), np.nan)
        cosines[usable] = cosine_similarity(earlier, later)
        norms = [float(np.square(values).sum()) for values in (earlier, later, later - earlier)]
        yield cosines, np.array(norms)


def _vectors(values: Num[np.ndarray, "n ..."]) -> Float64[np.ndarray, "n k"]:
    n_samples = len(values)
    # The length is spelled out, because -1 cannot be worked out of an array without rows.
    return values.reshape(n_samples, int(np.prod(values.shape[1:]))).astype(np.float64)


def _changed(
    before: Shaped[np.ndarray, "N"], after: Shaped[np.ndarray, "N"], compared: Bool[np.ndarray, "N"]
) -> float | None:
    if (
        not (np.issubdtype(before.dtype, np.integer) and np.issubdtype(after.dtype, np.integer))
        or not compared.any()
    ):
        return None
    return float((before[compared] != after[compared]).mean())


def _ids(snapshot: Snapshot) -> str:
    ids = snapshot.sample_ids
    first = ", ".join(str(int(sample_id)) for sample_id in ids[:3])
    return f"{len(ids)} samples ({first}{', ...' if len(ids) > 3 else ''})"
