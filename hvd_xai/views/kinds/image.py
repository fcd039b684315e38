"""Images `[h, w, c]` or `[c, h, w]`, and any array that no other kind knows better."""

from hvd_xai.probe.facts import ProbeFacts
from hvd_xai.views.arrays import Plain, draw_alone, draw_over_input
from hvd_xai.views.kind import Arrangement, Fit, Strongest
from hvd_xai.views.pixels import Picture
from hvd_xai.views.samples import Panel, Sample


def fits(facts: ProbeFacts) -> Fit:
    """Says that images of 1, 3 or 4 channels fit by their shape, and all else in need."""
    # channels last, or first
    has_channels = len(facts.shape) == 3 and {facts.shape[0], facts.shape[-1]} & {1, 3, 4}
    return Fit.SHAPE if has_channels else Fit.ANYTHING


def arrange(sample: Sample, size: int) -> Arrangement:
    """Arranges a sample as its picture and a map for each panel."""
    return Plain(sample, size, draw)


def strongest(_sample: Sample, _most: int) -> Strongest | None:
    """Returns None: the pixels of an image have no words."""
    return None


def draw(panel: Panel, sample: Sample, size: int, limit: float | None = None) -> Picture:
    """Draws attributions of pixels by themselves, and coarser maps, such as a CAM's, over the image.

    A vector, such as a layer's units, becomes bars.
    """
    is_map = panel.attributions.ndim >= 2
    if sample.inputs is None or panel.attributions.shape == sample.inputs.shape or not is_map:
        return draw_alone(panel, sample, size, limit)
    return draw_over_input(panel, sample, size, limit)
