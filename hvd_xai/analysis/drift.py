"""How much the explanations of the same samples changed from one epoch to another.

Pure NumPy, on thumbnails, no files.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int, Num, Shaped

_BLOCK = 1024  # samples at a time: 6 MB of 784 values each in float64


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one explanation says of its samples, as far as drift looks at it.

    Args:
        sample_ids: `[N]`.
        predictions: `[N]` class ids, or values.
        thumbnails: reads rows `start` to `stop` of the block means of the attributions, `[N, ...]`,
            so that no more than a block is held.
    """

    sample_ids: Int[np.ndarray, "N"]
    predictions: Num[np.ndarray, "N"]
    thumbnails: Callable[[int, int], Num[np.ndarray, "n ..."]]


@dataclass(frozen=True, slots=True)
class Drift:
    """How far one explanation is from an earlier one of the same samples.

    Args:
        mean_cosine: mean over samples of `cosine_similarity`; 1 where nothing changed but strength.
            NaN without samples.
        median_cosine: the median of the same.
        relative_l2: ‖after - before‖ / max(‖before‖, ‖after‖) over all samples together, 0 to 2; 0
            where both are zero.
        changed_predictions: share of samples whose predicted class is another; None where
            predictions are values, not class ids.
        n_samples: samples compared.
        n_left_out: samples left out, because a value of theirs is not finite.
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
        The figures, over the samples whose thumbnails are finite in both.

    Raises:
        ValueError: if the sample ids or their order differ, or the shapes of the thumbnails do.
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

    It is NaN where a value of either is not finite.

    Raises:
        ValueError: as `drift`.
    """
    return np.concatenate([np.empty(0), *(cosines for cosines, _ in _compared(before, after))])


def cosine_similarity(
    before: Num[np.ndarray, "n ..."], after: Num[np.ndarray, "n ..."]
) -> Float64[np.ndarray, "n"]:
    """Returns the cosine of the angle between each sample's attributions before and after.

        cos(a, b) = a · b / (‖a‖ ‖b‖)        in -1..1

    1 means the same pattern, whatever its strength; 0 nothing in common; -1 the opposite. A vector
    of zeros has no direction: where both are zero nothing changed and it is 1; where one is zero,
    it is 0.

    Args:
        before: `[n, ...]`, finite.
        after: `[n, ...]`, finite, of the same shape.
    """
    earlier, later = _vectors(before), _vectors(after)
    # Each row is divided by its largest magnitude first: squares of tiny or huge values would
    # otherwise vanish or overflow.
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
    """Goes through blocks of samples and compares them.

    Yields the cosines of a block, and the squared norms of before, after and their difference.
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
        cosines = np.full(len(usable), np.nan)
        cosines[usable] = cosine_similarity(earlier[usable], later[usable])
        yield (
            cosines,
            np.array(
                [
                    float(np.square(values[usable]).sum())
                    for values in (earlier, later, later - earlier)
                ]
            ),
        )


def _vectors(values: Num[np.ndarray, "n ..."]) -> Float64[np.ndarray, "n k"]:
    n_samples = len(values)
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
