"""Draws one sample as a strip: its input, and beside it the attributions of each method."""

from collections.abc import Sequence
from dataclasses import replace

from hvd_xai.views import doubtful, pixels
from hvd_xai.views.captions import (
    caption_panel,
    describe_sample,
    describe_score,
    describe_value,
    explain_colours,
    verdict_colour,
    write_score,
)
from hvd_xai.views.kind import Arrangement, find_kind
from hvd_xai.views.layout import (
    FAINT,
    GAP,
    INK,
    Line,
    Tile,
    check_pixels,
    lay_out,
    text_width,
    wrap,
)
from hvd_xai.views.samples import Panel, Sample


def strip(
    sample: Sample, *, class_names: Sequence[str] = (), size: int = 200, title: str = ""
) -> pixels.RGB:
    """Draws one sample: its input, then each method's attributions with their colour scale.

    Several epochs become columns, with a row for each method. All pictures of a row share one
    colour scale, so that a change of colour is a change of attribution. Pictures of a wide kind,
    such as texts, stand below each other at one epoch, too.

    Args:
        sample: the sample.
        class_names: names of the classes, by class id.
        size: approximate length of the longer side of one picture, in pixels.
        title: text in front of the sample's id, such as the run's name.

    Returns:
        The picture, `[h, w, 3]` bytes.

    Raises:
        ValueError: if there is nothing to show, or the picture would be larger than
            `layout.MAX_PIXELS`.

    Example:
        >>> panel = Panel("saliency", 0, np.ones((8, 8, 1), np.float32), 3, 0.9)
        >>> strip(Sample(17, 3, 3, (panel,), np.ones((8, 8, 1)))).shape[2]
        3
    """
    if not sample.panels:
        raise ValueError(
            f"sample {sample.sample_id} has no explanation to show; give at least one panel"
        )
    epochs = sorted({panel.epoch for panel in sample.panels})
    n_methods = len({panel.method for panel in sample.panels})
    arranged = find_kind(sample.known).arrange(sample, size)
    columns = (arranged.width + GAP) * (len(epochs) + 1)
    check_pixels(columns, (arranged.width + 120) * n_methods, "epochs and methods")
    is_one = len(epochs) == 1
    heading = [title, f"sample {sample.sample_id}", f"epoch {epochs[0]}" if is_one else ""]
    lines = [
        Line(" · ".join(filter(None, heading)), size=20),
        *describe_sample(sample, class_names, sample.panels[0] if is_one else None),
    ]
    if is_one:
        rows = _rows_of_one_epoch(sample, arranged, class_names)
        ends = "the 99th percentile of each picture"
    else:
        has_input = bool(arranged.caption)
        rows = _rows_of_epochs(sample, size, class_names, has_input=has_input)
        ends = "the largest 99th percentile of each row"
    pictures = [tile.picture for row in rows for tile in row]
    return lay_out(lines, rows, explain_colours(pictures, ends), framed=True)


def _rows_of_one_epoch(
    sample: Sample, arranged: Arrangement, class_names: Sequence[str]
) -> list[list[Tile]]:
    """Returns the input and all methods in one row; wide pictures get a row each."""
    first = sample.panels[0]
    same = all(
        (one.score, one.score_facts) == (first.score, first.score_facts) for one in sample.panels
    )
    tiles = []
    for panel in sample.panels:
        # one score for all stands at the top
        verdict = [] if same else [_score(panel, sample, class_names)]
        picture = doubtful.draw(arranged, panel, sample)
        doubts = doubtful.find_doubts(panel, sample).lines
        tiles.append(caption_panel(panel, picture, [panel.method], verdict, doubts))
    if arranged.is_wide:
        return [[tile] for tile in tiles]
    return [[*_input_tiles(arranged), *tiles]]


def _rows_of_epochs(
    sample: Sample, size: int, class_names: Sequence[str], *, has_input: bool
) -> list[list[Tile]]:
    """Returns a row for each method: the input, and a picture for each epoch."""
    rows = []
    for method in dict.fromkeys(panel.method for panel in sample.panels):
        panels = tuple(panel for panel in sample.panels if panel.method == method)
        # features, words or slices are chosen for each method by itself
        of_method = replace(sample, panels=panels)
        arranged = find_kind(sample.known).arrange(of_method, size)
        limit = doubtful.shared_limit(arranged, panels, sample)
        tiles = _input_tiles(arranged, above=method) if has_input else []
        names = [] if tiles else [method]
        for panel in panels:
            picture = doubtful.draw(arranged, panel, sample, limit)
            doubts = doubtful.find_doubts(panel, sample).lines
            above = [*names, f"epoch {panel.epoch}"]
            verdict = _verdict(panel, sample, class_names)
            tiles.append(caption_panel(panel, picture, above, verdict, doubts))
        rows.append(tiles)
    return rows


def _input_tiles(arranged: Arrangement, above: str = "") -> list[Tile]:
    """Returns the input with its caption, below another line if there is one; none without it."""
    picture = arranged.input_picture()
    if picture is None:
        return []
    lines = wrap(above, 15, text_width(picture.image.shape[1]), INK) if above else []
    return [Tile(picture, (*lines, Line(arranged.caption, FAINT if above else INK, 15)))]


def _verdict(panel: Panel, sample: Sample, class_names: Sequence[str]) -> list[Line]:
    """Says what the model predicted at the epoch of a panel."""
    colour = verdict_colour(panel.prediction, sample.target)
    predicted = f"predicted {describe_value(panel.prediction, class_names)}"
    return [Line(predicted, colour), _score(panel, sample, class_names)]


def _score(panel: Panel, sample: Sample, class_names: Sequence[str]) -> Line:
    """Says what a panel's score is, and of which class."""
    words = describe_score(panel.score_facts, panel.prediction, sample.target, class_names)
    return Line(
        f"score {write_score(panel.score, panel.score_facts)}"
        + (f", the {words}" if words else ""),
        FAINT,
    )
