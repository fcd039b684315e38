"""Draws explanations that mean little as such, and says in words why they do."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hvd_xai.analysis import doubts
from hvd_xai.views.kind import Arrangement
from hvd_xai.views.pixels import Picture
from hvd_xai.views.samples import Panel, Sample


@dataclass(frozen=True, slots=True)
class Doubtful:
    """Says what speaks against believing one panel of a sample.

    Args:
        doubts: reasons, in the order of `hvd_xai.analysis.doubts.DOUBTS`.
        gap: convergence delta as a part of the score's gain.
        largest: largest magnitude of the attributions.

    Example:
        >>> Doubtful(("gap",), 0.38, 0.5).lines
        ["misses 38 % of the score's gain"]
    """

    doubts: tuple[doubts.Doubt, ...]
    gap: float
    largest: float

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing that colours could show."""
        return "zero" in self.doubts

    @property
    def lines(self) -> list[str]:
        """The doubts in words, one line each, for people who look at the picture."""
        nothing = (
            "all attributions are zero"
            if self.largest == 0
            else f"attributions below float rounding, {self.largest:.1g} at most"
        )
        words: dict[doubts.Doubt, str] = {
            "zero": nothing,
            "gap": f"misses {doubts.write_share(self.gap)} of the score's gain",
            "saturated": "the probability is saturated: explain score='logit'",
        }
        # what is zero misses everything
        told = [doubt for doubt in self.doubts if doubt != "gap" or not self.is_empty]
        return [words[doubt] for doubt in told if doubt in words]


def find_doubts(panel: Panel, sample: Sample) -> Doubtful:
    """Finds what speaks against believing one panel of a sample.

    Example:
        >>> panel = Panel("saliency", 0, np.zeros((8, 8, 1), np.float32), 3, 0.9)
        >>> find_doubts(panel, Sample(17, 3, 3, (panel,), np.ones((8, 8, 1)))).lines
        ['all attributions are zero']
    """
    delta = panel.convergence_delta
    # ids of tokens are no magnitudes
    has_magnitude = sample.inputs is not None and not sample.known.vocabulary
    rows = doubts.Rows(
        panel.attributions[None],
        np.array([panel.score], np.float64),
        np.array([sample.target]),
        doubts.magnitudes(sample.inputs[None])
        if sample.inputs is not None and has_magnitude
        else np.ones(1),
        None if delta is None else np.array([delta], np.float64),
        panel.score_facts,
    )
    found = tuple(doubt for doubt, has in doubts.find_doubts(rows).items() if has[0])
    finite = np.where(np.isfinite(panel.attributions), panel.attributions, 0)
    return Doubtful(found, float(doubts.gap_shares(rows)[0]), float(np.abs(finite).max(initial=0)))


def draw(
    arranged: Arrangement, panel: Panel, sample: Sample, limit: float | None = None
) -> Picture:
    """Draws one panel; one with nothing to show is drawn empty, without colours and their scale.

    Args:
        arranged: arrangement of the sample.
        panel: panel to draw.
        sample: sample that the panel belongs to.
        limit: value at the end of the scale; the panel's own if None.
    """
    if not find_doubts(panel, sample).is_empty:
        return arranged.picture(panel, limit)
    # Zero has no colour on the diverging scale; on the sequential one it is a solid dark violet.
    nothing = replace(
        panel, attributions=np.zeros_like(panel.attributions, np.float32), is_signed=True
    )
    return replace(arranged.picture(nothing, 1.0), scale="none", limit=0.0)


def shared_limit(arranged: Arrangement, panels: Sequence[Panel], sample: Sample) -> float:
    """Returns the largest value at the end of the panels' scales; 1 if none shows anything.

    Example:
        >>> from hvd_xai.views.kind import find_kind
        >>> panel = Panel("saliency", 0, np.zeros((8, 8, 1), np.float32), 3, 0.9)
        >>> sample = Sample(17, 3, 3, (panel,), np.ones((8, 8, 1)))
        >>> shared_limit(find_kind(sample.known).arrange(sample, 80), [panel], sample)
        1.0
    """
    return max(draw(arranged, panel, sample).limit for panel in panels) or 1.0
