"""Vectors `[n]`, and series of steps with channels `[t, c]`.

Pictures without an axis of channels, `[h, w]`, cannot be told from series and are drawn as such.
"""

from hvd_xai.probe.facts import ProbeFacts
from hvd_xai.views.arrays import Plain, draw_alone, draw_over_input
from hvd_xai.views.kind import Arrangement, Fit, Strongest
from hvd_xai.views.pixels import Picture
from hvd_xai.views.samples import Panel, Sample


def fits(facts: ProbeFacts) -> Fit:
    """Says that inputs of up to two axes fit by their shape.

    Example:
        >>> fits(ProbeFacts((100, 3), np.dtype("f4"))).name
        'SHAPE'
    """
    return Fit.SHAPE if len(facts.shape) <= 2 else Fit.NONE


def arrange(sample: Sample, size: int) -> Arrangement:
    """Arranges a sample as bars, or as a map of its steps, for the input and for each panel."""
    return Plain(sample, size, draw)


def strongest(_sample: Sample, _most: int) -> Strongest | None:
    """Returns None: the steps of a series have no words."""
    return None


def draw(panel: Panel, sample: Sample, size: int, limit: float | None = None) -> Picture:
    """Draws attributions of a vector as bars, and attributions of a series as a map.

    The steps of a series run downwards. Attributions of steps alone, such as those of a class
    activation map, are laid over the series with all of its channels; those of a layer's units are
    drawn by themselves.

    Args:
        panel: explanation whose attributions are drawn.
        sample: sample that is explained.
        size: longer side of the picture, about, in pixels.
        limit: value at the end of the scale; the panel's own if left out.
    """
    has_steps = sample.inputs is not None and sample.inputs.ndim == 2
    # units of a layer are no steps, not even where they are as many
    is_alone = panel.attributed_to == "units" or not has_steps or sample.inputs is None
    if is_alone or panel.attributions.shape == sample.known.shape:
        return draw_alone(panel, sample, size, limit)
    return draw_over_input(panel, sample, size, limit)
