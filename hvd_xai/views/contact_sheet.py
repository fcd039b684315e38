"""Draws many samples as a contact sheet: rows of small pictures with captions.

A sheet can be sent to someone else and read without explanation: it shows by colour and by word
whether the model was right, and draws every colour scale with its ends.
"""

from collections.abc import Sequence

import numpy as np

from hvd_xai.views import pixels
from hvd_xai.views.captions import (
    WRONG,
    describe_value,
    explain_colours,
    explain_scores,
    is_right,
    verdict_colour,
    write_score,
)
from hvd_xai.views.doubtful import draw, find_doubts, shared_limit
from hvd_xai.views.kind import Arrangement, find_kind
from hvd_xai.views.layout import (
    FAINT,
    FRAME,
    GAP,
    MARGIN,
    Line,
    Tile,
    check_pixels,
    lay_out,
    text_width,
    wrap,
)
from hvd_xai.views.samples import Sample

# White pixels between the frames of two pictures of one sample.
_BESIDE = 4


def contact_sheet(
    samples: Sequence[Sample],
    *,
    class_names: Sequence[str] = (),
    size: int = 104,
    width: int = 1460,
    title: str = "",
) -> pixels.RGB:
    """Draws many samples, each as its input and its attributions with a caption below.

    Pictures of one sample and method at several epochs share one colour scale.

    Args:
        samples: samples in the order in which they are shown, all explained by the same methods.
            Captions describe the last panel.
        class_names: names of the classes, by class id.
        size: approximate length of the longer side of one picture, in pixels.
        width: approximate width of the sheet, in pixels; a row has at least one sample.
        title: line at the top.

    Returns:
        The picture, `[h, w, 3]` bytes.

    Raises:
        ValueError: if no sample is given, or the sheet would be larger than
            `layout.MAX_PIXELS`.

    Example:
        >>> from hvd_xai.views.samples import Panel
        >>> panel = Panel("saliency", 0, np.ones((8, 8, 1), np.float32), 3, 0.9)
        >>> contact_sheet([Sample(17, 3, 3, (panel,), np.ones((8, 8, 1)))] * 4).shape[2]
        3
    """
    if not samples or not samples[0].panels:
        raise ValueError("there is no sample to show; give at least one with an explanation")
    kind = find_kind(samples[0].known)
    first = kind.arrange(samples[0], size)
    n_columns = min(len(samples), _n_columns(first, len(samples[0].panels), width))
    # before anything is drawn
    check_pixels(width, -(-len(samples) // n_columns) * (first.width + 50), "samples")
    groups = [_draw_all(sample, kind.arrange(sample, size)) for sample in samples]
    tiles = [
        _join(sample, group, class_names) for sample, group in zip(samples, groups, strict=True)
    ]
    rows = [tiles[start : start + n_columns] for start in range(0, len(tiles), n_columns)]
    has_epochs = _has_epochs(samples[0])
    lines = [
        Line(title or f"{len(samples)} samples", size=20),
        Line("each from left to right: " + ", ".join(_order(samples[0], first)), FAINT),
        *_count_right(samples),
    ]
    ends = "the largest 99th percentile of each sample" if has_epochs else ""
    legend = explain_colours(
        [picture for group in groups for picture in group],
        ends or "the 99th percentile of each picture",
    )
    panels = samples[0].panels
    told = explain_scores([(panel.method, panel.score_facts) for panel in panels])
    has_bars = any(one.has_bars and one.scale != "none" for group in groups for one in group)
    if has_bars and any(panel.standard_errors is not None for panel in panels):
        told += " Error bars: one standard error."
    legend += [Line(told.strip(), FAINT, 13)] if told else []
    return lay_out(lines, rows, legend, framed=False)


def _n_columns(arranged: Arrangement, n_panels: int, width: int) -> int:
    """Returns the number of samples that fit side by side into a width; at least one."""
    framed = 2 + _BESIDE
    of_input = (arranged.input_width + framed) * bool(arranged.caption)
    of_sample = n_panels * (arranged.width + framed) + of_input
    return int(max(1, (width - 2 * MARGIN + GAP) // (of_sample + GAP)))


def _order(sample: Sample, arranged: Arrangement) -> list[str]:
    """Returns the names of the pictures that stand side by side, from left to right."""
    has_epochs = _has_epochs(sample)
    names = [
        f"{panel.method} at epoch {panel.epoch}" if has_epochs else panel.method
        for panel in sample.panels
    ]
    return [arranged.caption, *names] if arranged.caption else names


def _count_right(samples: Sequence[Sample]) -> list[Line]:
    """Says how many samples are predicted as their target; empty if targets are values."""
    right = [is_right(sample.panels[-1].prediction, sample.target) for sample in samples]
    if None in right:
        return []
    # captions describe the last panel
    epoch = f" at epoch {samples[0].panels[-1].epoch}" * _has_epochs(samples[0])
    told = "" if all(right) else "; what was not is in red"
    count = f"{sum(map(bool, right))} of {len(samples)}"
    return [Line(f"{count} predicted as the target{epoch}{told}", FAINT)]


def _draw_all(sample: Sample, arranged: Arrangement) -> list[pixels.Picture]:
    """Draws the input, if it has a picture of its own, and all panels of a sample."""
    limits: dict[str, float] = {}
    if _has_epochs(sample):
        for method in {panel.method for panel in sample.panels}:
            of_method = [panel for panel in sample.panels if panel.method == method]
            limits[method] = shared_limit(arranged, of_method, sample)
    pictures = [draw(arranged, panel, sample, limits.get(panel.method)) for panel in sample.panels]
    shown = arranged.input_picture()
    return pictures if shown is None else [shown, *pictures]


def _has_epochs(sample: Sample) -> bool:
    return len({panel.epoch for panel in sample.panels}) > 1


def _join(sample: Sample, pictures: Sequence[pixels.Picture], class_names: Sequence[str]) -> Tile:
    """Joins a sample's pictures into one tile, with the prediction below them.

    Each picture has a frame of one pixel; white pixels part it from the next:

        +-------+    +-------+
        | input |....| panel |    each takes its width + 2 for the frame + `_BESIDE`
        +-------+    +-------+
    """
    height = max(picture.image.shape[0] for picture in pictures) + 2
    width = sum(picture.image.shape[1] + 2 + _BESIDE for picture in pictures) - _BESIDE
    joined = np.full((height, width, 3), 255, np.uint8)
    left = 0
    for picture in pictures:
        rows, columns, _ = picture.image.shape
        joined[: rows + 2, left : left + columns + 2] = FRAME
        joined[1 : rows + 1, left + 1 : left + columns + 1] = picture.image
        left += columns + 2 + _BESIDE
    width = text_width(width)
    panel = sample.panels[-1]
    said = f"predicted {describe_value(panel.prediction, class_names)}"
    if not is_right(panel.prediction, sample.target):
        said += f", target {describe_value(sample.target, class_names)}"
    # a score that is not the target's says so; the legend tells the others' class
    of_other = panel.score_facts.of_class == "1" and sample.target != 1
    score = write_score(panel.score, panel.score_facts, 3)
    said += f" (score {score}{' of class 1' * of_other})"
    below = [
        *wrap(f"sample {sample.sample_id}", 13, width, FAINT),
        *wrap(said, 13, width, verdict_colour(panel.prediction, sample.target)),
        *(part for line in _doubts(sample) for part in wrap(line, 13, width, WRONG)),
    ]
    return Tile(pixels.Picture(joined), below=tuple(below))


def _doubts(sample: Sample) -> list[str]:
    """Says which panels of a sample mean little, and why."""
    has_epochs, is_one = _has_epochs(sample), len(sample.panels) == 1
    lines = []
    for panel in sample.panels:
        for doubt in find_doubts(panel, sample).lines:
            epoch = f" at epoch {panel.epoch}" if has_epochs else ""
            lines.append(doubt if is_one else f"{panel.method}{epoch}: {doubt}")
    return lines
