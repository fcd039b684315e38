"""Finds explanations that mean little, and says why.

A *doubt* is a reason to believe an explanation less than its colours suggest. Four are known:

- "zero": all attributions are zero, or so small that float32 cannot tell them from rounding;
- "gap": attributions do not add up to what the score gains from the baseline to the example;
- "saturated": the score is a probability so close to 0 or 1 that its gradients vanish, and
  attributions with them;
- "other class": the score is that of class 1, and the sample's target is class 0.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Bool, Float, Float64, Num

from hvd_xai.protocols import ScoreFacts

Doubt: TypeAlias = Literal["zero", "gap", "saturated", "other class"]
DOUBTS: tuple[Doubt, ...] = get_args(Doubt)

LARGEST_GAP = 0.05
"""Part of the score's gain that a convergence delta may have without a doubt."""

_ROUNDING = float(np.finfo(np.float32).eps)
# A difference of two scores in float32 is known to about this part of them.
_RESOLVED = 1e-5
_SATURATED = 1e-5
# Where attributions move the probability by no more than this, they are as saturated as it is: a
# method that integrates along a path leaves the saturated part, and is not doubted.
_VANISHING = 1e-3


@dataclass(frozen=True, slots=True)
class Rows:
    """Holds what doubts are found in: the attributions of some samples, and what explains them.

    Args:
        attributions: attributions `[n, ...]`.
        scores: scores that were explained, `[n]`.
        targets: class ids or values, `[n]`.
        magnitudes: largest magnitude of each sample's inputs, `[n]`, which makes differences of the
            score of gradients; 1 where inputs are not known, or are ids of tokens.
        convergence_deltas: sum of each sample's attributions minus the score's gain, `[n]`; None if
            the method does not compute it.
        score_facts: unit and class of the score.

    Example:
        >>> one = np.ones(1, np.float32)
        >>> rows = Rows(np.zeros((1, 8, 8), np.float32), one, one, one)
        >>> find_doubts(rows)["zero"]
        array([ True])
    """

    attributions: Num[np.ndarray, "n ..."]
    scores: Float[np.ndarray, "n"]
    targets: Num[np.ndarray, "n"]
    magnitudes: Num[np.ndarray, "n"]
    convergence_deltas: Float[np.ndarray, "n"] | None = None
    score_facts: ScoreFacts = field(default_factory=ScoreFacts)


def find_doubts(rows: Rows) -> dict[Doubt, Bool[np.ndarray, "n"]]:
    """Returns, for each doubt, which samples have it.

    Attributions that are not finite are none of these doubts: they are counted elsewhere.

    Example:
        >>> one = np.ones(1, np.float32)
        >>> delta = np.array([0.25], np.float32)
        >>> rows = Rows(np.full((1, 2), 0.5, np.float32), one, one, one, delta)
        >>> [doubt for doubt, has in find_doubts(rows).items() if has[0]]
        ['gap']
    """
    scores = rows.scores.astype(np.float64)
    n_samples = len(scores)
    flat = rows.attributions.reshape(n_samples, -1) if n_samples else np.empty((0, 1))
    # infinity times zero is NaN, which is no doubt
    with np.errstate(invalid="ignore", over="ignore"):
        changes = np.abs(flat.astype(np.float64)).sum(axis=1) * np.maximum(rows.magnitudes, 1)
        is_zero = (changes == 0) | (np.isfinite(scores) & (changes <= _ROUNDING * np.abs(scores)))
    is_saturated = np.zeros(n_samples, bool)
    if rows.score_facts.unit == "probability":
        is_saturated = (np.minimum(scores, 1 - scores) <= _SATURATED) & (changes < _VANISHING)
    is_of_other = np.zeros(n_samples, bool)
    if rows.score_facts.of_class == "1" and rows.targets.dtype.kind in "iub":
        is_of_other = rows.targets == 0
    return {
        "zero": is_zero,
        "gap": gap_shares(rows) > LARGEST_GAP,
        "saturated": is_saturated,
        "other class": is_of_other,
    }


def gap_shares(rows: Rows) -> Float64[np.ndarray, "n"]:
    """Returns each sample's convergence delta as a part of what the score gains, without its sign.

    It is 0 where float32 cannot tell the delta from rounding, and infinite where attributions add
    up to something although the score gains nothing.

    Example:
        >>> delta, one = np.array([0.25], np.float32), np.ones(1, np.float32)
        >>> gap_shares(Rows(np.full((1, 2), 0.5, np.float32), one, one, one, delta)).round(3)
        array([0.333])
    """
    n_samples = len(rows.scores)
    if rows.convergence_deltas is None or n_samples == 0:
        return np.zeros(n_samples)
    deltas = rows.convergence_deltas.astype(np.float64)
    scores = rows.scores.astype(np.float64)
    # not finite: no number says how large the gap is
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        sums = rows.attributions.reshape(n_samples, -1).astype(np.float64).sum(axis=1)
        # δ = Σφ - (F(x) - F(x'))
        gains = sums - deltas
        resolved = _RESOLVED * (np.abs(scores) + np.abs(scores - gains))
        shares = np.where(np.abs(deltas) > resolved, np.abs(deltas) / np.abs(gains), 0.0)
    return np.nan_to_num(shares, nan=0.0, posinf=np.inf)


def magnitudes(inputs: Num[np.ndarray, "n ..."]) -> Float64[np.ndarray, "n"]:
    """Returns the largest magnitude of each sample's inputs.

    Example:
        >>> magnitudes(np.array([[1.0, -3.0], [0.0, 0.5]]))
        array([3. , 0.5])
    """
    flat = inputs.reshape(len(inputs), -1) if len(inputs) else np.empty((0, 1))
    # in float64, because the magnitude of the lowest integer is no integer of its dtype
    return np.asarray(np.abs(flat.astype(np.float64)).max(axis=1, initial=0.0))


@dataclass(slots=True)
class Tally:
    """Counts the samples that have each doubt.

    Attributes:
        score_facts: unit and class of the score that is explained.
        counts: number of samples by doubt.
        largest_gap: largest of all `gap_shares`.

    Example:
        >>> tally, one = Tally(), np.ones(2, np.float32)
        >>> tally.add(Rows(np.zeros((2, 3), np.float32), one, one, one))
        >>> tally.counts["zero"]
        2
    """

    score_facts: ScoreFacts = field(default_factory=ScoreFacts)
    counts: dict[Doubt, int] = field(default_factory=lambda: dict.fromkeys(DOUBTS, 0))
    largest_gap: float = 0.0

    def add(self, rows: Rows) -> None:
        """Counts further samples; their score is the tally's."""
        rows = replace(rows, score_facts=self.score_facts)
        for doubt, has in find_doubts(rows).items():
            self.counts[doubt] += int(np.count_nonzero(has))
        self.largest_gap = max(self.largest_gap, float(gap_shares(rows).max(initial=0.0)))

    def numbers(self) -> list[float]:
        """Returns the tally as finite numbers that the ranks can send each other."""
        return [*(float(self.counts[doubt]) for doubt in DOUBTS), min(self.largest_gap, 1e9)]

    @classmethod
    def of_all(cls, numbers: Iterable[list[float]]) -> "Tally":
        """Returns the tally of all ranks from the `numbers` of each.

        Example:
            >>> Tally.of_all([[1.0, 0.0, 0.0, 2.0, 0.5], [1.0, 0.0, 0.0, 0.0, 0.0]]).counts["zero"]
            2
        """
        ranks = np.array(list(numbers), np.float64)
        counts = ranks[:, : len(DOUBTS)].sum(axis=0)
        return cls(
            ScoreFacts(),
            {doubt: int(count) for doubt, count in zip(DOUBTS, counts, strict=True)},
            float(ranks[:, -1].max()),
        )


def tell_doubts(
    counts: Mapping[str, int], n_samples: int, largest_gap: float | None = None
) -> list[str]:
    """Says in words how many samples have each doubt, and what to do about it.

    Args:
        counts: number of samples by doubt; doubts of later versions are passed over.
        n_samples: number of all samples.
        largest_gap: largest of all `gap_shares`; None if it is not known.

    Example:
        >>> tell_doubts({"zero": 2}, 12)
        ['2 of 12 samples have attributions of zero, or below float rounding, which say nothing']
    """
    worst = "" if largest_gap is None else f", at worst {write_share(largest_gap)}"
    words: dict[Doubt, str] = {
        "zero": "have attributions of zero, or below float rounding, which say nothing",
        "gap": f"have attributions that miss more than {100 * LARGEST_GAP:.0f} % of the score's"
        f" gain{worst}; more steps, or a tolerance, close that gap where the method has them",
        "saturated": "have a saturated probability for a score, whose gradients vanish; explain"
        " score='logit'",
        "other class": "have target 0, but the score is that of class 1, which red raises;"
        " score='target_probability' explains 1 - p for class 0",
    }
    return [
        f"{counts[doubt]} of {n_samples} samples {words[doubt]}"
        for doubt in DOUBTS
        if counts.get(doubt)
    ]


def write_share(share: float) -> str:
    """Writes a gap as a part of the score's gain.

    Example:
        >>> write_share(0.0721), write_share(0.384), write_share(25.0)
        ('7.2 %', '38 %', 'more than all')
    """
    if share > 1:
        return "more than all"
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"
