"""Images `[h, w, c]` or `[c, h, w]`, and any array that no other kind knows better."""

from hvd_xai.probe.facts import ProbeFacts
from hvd_xai.views.arrays import Plain, draw_alone, draw_over_input
from hvd_xai.views.kind import Arrangement, Fit, Strongest
from hvd_xai.views.pixels import Picture
from hvd_xai.views.samples import Panel, Sample


def fits(facts: ProbeFacts) -> Fit:
    """Says that images with channels fit, and other arrays in need.

    Where no model says that there are channels, 1, 3 or 4 of them show by their number.

    Example:
        >>> fits(ProbeFacts((28, 28, 1), np.dtype("f4"))).name
        'SHAPE'
    """
    if facts.channels == "none" and len(facts.shape) == 2:
        # The model says so; by its shape it may be a series.
        return Fit.LENGTHS
    if facts.channels is not None:
        is_image = facts.channels == "last" and len(facts.shape) == 3
        return Fit.SHAPE if is_image else Fit.ANYTHING
    # Where nobody says so, channels come last, or first.
    has_channels = len(facts.shape) == 3 and {facts.shape[0], facts.shape[-1]} & {1, 3, 4}
    return Fit.SHAPE if has_channels else Fit.ANYTHING


def arrange(sample: Sample, size: int) -> Arrangement:
    """Arranges a sample as its picture and a map for each panel."""
    return Plain(sample, size, draw)


def strongest(_sample: Sample, _most: int) -> Strongest | None:
    """Returns None: the pixels of an image have no words."""
    return None


def draw(panel: Panel, sample: Sample, size: int, limit: float | None = None) -> Picture:
    """Draws attributions of pixels by themselves, and coarser maps over the image.

    A class activation map is such a coarser map. A vector, such as the units of a layer, becomes
    bars.

    Args:
        panel: explanation whose attributions are drawn.
        sample: sample that is explained.
        size: longer side of the picture, about, in pixels.
        limit: value at the end of the scale; the panel's own if left out.
    """
    is_map = panel.attributions.ndim >= 2
    if sample.inputs is None or panel.attributions.shape == sample.inputs.shape or not is_map:
        return draw_alone(panel, sample, size, limit)
    return draw_over_input(panel, sample, size, limit)
