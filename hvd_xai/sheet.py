"""Pictures with captions: one sample as a strip, many samples as a contact sheet. Samples in, an RGB array or a PNG out.

A picture says by colour and by word whether the model was right, and draws each colour scale with its ends, so that it can be sent to
someone else and read without us.
"""

import functools
import io
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int, Num, Shaped
from PIL import Image, ImageDraw, ImageFont

from hvd_xai import render

Colour: TypeAlias = tuple[int, int, int]
Value: TypeAlias = int | float

MAX_PIXELS = 64_000_000  # about 190 MB of RGB; a taller picture than this nobody scrolls through

_INK: Colour = (32, 32, 32)
_FAINT: Colour = (105, 105, 105)
_RIGHT: Colour = (0, 110, 60)
_WRONG: Colour = (192, 0, 32)
_FRAME: Colour = (190, 190, 190)
_MARGIN = 20
_GAP = 18
_BAR_HEIGHT = 10


@dataclass(frozen=True, slots=True)
class Panel:
    """One sample as one method explained it at one epoch.

    Args:
        method: the method's public name.
        epoch: 0-based epoch.
        attributions: the sample's attributions.
        prediction: the predicted class id, or value.
        score: the scalar that was explained.
        convergence_delta: what the attributions miss of the difference in score that they should add up to, if the method says so.
        feature_names: names of the attributions' values, if they are a vector that has names; those of all panels of a sample are the same.
        is_signed: whether the method's attributions have a sign; None if that is not known.
    """

    method: str
    epoch: int
    attributions: Num[np.ndarray, "..."]
    prediction: Value
    score: float
    convergence_delta: float | None = None
    feature_names: tuple[str, ...] = ()
    is_signed: bool | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample and all that is shown of it.

    Args:
        sample_id: its id in the probe.
        label: the data set's label.
        target: what the score selects.
        panels: its explanations, in the order in which they are shown; at least one.
        inputs: the sample itself, if it is known.
    """

    sample_id: int
    label: Value
    target: Value
    panels: tuple[Panel, ...]
    inputs: Num[np.ndarray, "..."] | None = None


@runtime_checkable
class Described(Protocol):
    """What tells explanations apart."""

    @property
    def method(self) -> str:
        """The method's public name."""

    @property
    def epoch(self) -> int:
        """0-based epoch."""


@runtime_checkable
class Explained(Protocol):
    """A committed explanation, as far as a picture needs it."""

    @property
    def manifest(self) -> Described:
        """What explanation it is."""

    @property
    def columns(self) -> list[str]:
        """Names of what has one number a sample."""

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the values of one sample's attributions, if they have any."""

    def column(self, name: str, /) -> Shaped[np.ndarray, "N"]:
        """Returns one number a sample."""

    def attributions(self, start: int, stop: int, /) -> Float32[np.ndarray, "b ..."]:
        """Returns the attributions of some rows."""

    def rows_of(self, sample_ids: Int[np.ndarray, "m"], /) -> Int[np.ndarray, "m"]:
        """Returns the rows of sample ids."""


def samples(
    explanations: Sequence[Explained],
    sample_ids: Int[np.ndarray, "m"],
    inputs: Num[np.ndarray, "m ..."] | None = None,
    *,
    signed: Mapping[str, bool | None] | None = None,
) -> list[Sample]:
    """Reads samples from explanations, one row at a time.

    Args:
        explanations: of the same probe; at least one. Each becomes a panel, in this order. Labels and targets are the first one's.
        sample_ids: the samples, in the order in which they are shown.
        inputs: the samples' inputs, in the same order.
        signed: whether a method's attributions have a sign, by the method's name, where that is known.
    """
    panels: list[list[Panel]] = [[] for _ in sample_ids]
    known: list[tuple[Value, Value]] = []
    for explanation in explanations:
        rows = explanation.rows_of(sample_ids)
        names = [name for name in ("label", "target", "prediction", "score", "convergence_delta") if name in explanation.columns]
        columns = {name: explanation.column(name)[rows].tolist() for name in names}
        known = known or list(zip(columns["label"], columns["target"], strict=True))
        deltas = columns.get("convergence_delta", [None] * len(rows))
        feature_names = explanation.feature_names
        for index, row in enumerate(rows.tolist()):
            panel = Panel(
                explanation.manifest.method,
                explanation.manifest.epoch,
                explanation.attributions(row, row + 1)[0],
                columns["prediction"][index],
                columns["score"][index],
                deltas[index],
                feature_names,
                (signed or {}).get(explanation.manifest.method),
            )
            panels[index].append(panel)
    return [
        Sample(int(sample_id), *known[index], tuple(panels[index]), None if inputs is None else inputs[index])
        for index, sample_id in enumerate(sample_ids)
    ]


@dataclass(frozen=True, slots=True)
class _Line:
    text: str
    colour: Colour = _INK
    size: int = 14


@dataclass(frozen=True, slots=True)
class _Tile:
    """A picture with lines above and below it; `width` is what its text is wrapped to."""

    picture: render.Picture
    above: tuple[_Line, ...] = ()
    below: tuple[_Line, ...] = ()

    @property
    def width(self) -> int:
        return int(self.picture.image.shape[1])

    @property
    def height_above(self) -> int:
        return sum(map(_line_height, self.above))

    @property
    def height_below(self) -> int:
        """The height from the picture's upper edge down."""
        height = int(self.picture.image.shape[0]) + 8 + sum(map(_line_height, self.below))
        return height + (_BAR_HEIGHT + 24 if self.has_scale else 0)

    @property
    def has_scale(self) -> bool:
        return self.picture.scale != "none"


def strip(sample: Sample, *, class_names: Sequence[str] = (), size: int = 200, title: str = "") -> render.RGB:
    """Draws one sample: its input, then each method's attributions with their colour scale; several epochs become columns.

    Over several epochs all pictures of one method share one colour scale, so that a change of colour is a change of attribution.

    Args:
        sample: the sample.
        class_names: names of the classes, by class id.
        size: about the longer side of one picture, in pixels.
        title: what stands in front of the sample's id, such as the run's name.

    Raises:
        ValueError: if there is nothing to show, or the picture would be larger than `MAX_PIXELS`.
    """
    epochs = sorted({panel.epoch for panel in sample.panels})
    methods = list(dict.fromkeys(panel.method for panel in sample.panels))
    if not methods:
        raise ValueError(f"sample {sample.sample_id} has no explanation to show; give at least one panel")
    _check_pixels((size + _GAP) * (len(epochs) + 1), (size + 120) * len(methods), "epochs and methods")
    several = len(epochs) > 1
    heading = [part for part in (title, f"sample {sample.sample_id}", "" if several else f"epoch {epochs[0]}") if part]
    lines = [_Line(" · ".join(heading), size=20), *_verdict(sample, class_names, None if several else sample.panels[0])]

    features = _features(sample.panels, size)
    shown = _input_tile(sample, size, features)
    rows: list[list[_Tile]] = [] if several else [[shown] if shown else []]
    for method in methods:
        panels = [panel for panel in sample.panels if panel.method == method]
        features = _features(panels if several else sample.panels, size)
        limit = max(_picture(panel, sample, size, features).limit for panel in panels) if several else None
        tiles = [_panel_tile(panel, sample, size, features, limit=limit, class_names=class_names, several=several) for panel in panels]
        if not several:
            rows[0].extend(tiles)
        else:
            rows.append([_input_tile(sample, size, features, above=method) or tiles.pop(0), *tiles] if shown else tiles)
    pictures = [tile.picture for row in rows for tile in row]
    ends = "the largest 99th percentile of each row" if several else "the 99th percentile of each picture"
    return _page(lines, rows, _legend(pictures, ends), framed=True)


def contact_sheet(
    samples: Sequence[Sample],
    *,
    class_names: Sequence[str] = (),
    size: int = 104,
    width: int = 1460,
    title: str = "",
) -> render.RGB:
    """Draws many samples: each as its input and its attributions side by side, one caption below, row after row.

    Over several epochs the pictures of one method and sample share one colour scale, as in `strip`.

    Args:
        samples: the samples, in the order in which they are shown; all with the same methods. Captions are of the last panel.
        class_names: names of the classes, by class id.
        size: about the longer side of one picture, in pixels.
        width: about the width of the sheet, in pixels; at least one sample stands in a row.
        title: the line at the top.

    Raises:
        ValueError: if there is nothing to show, or the sheet would be larger than `MAX_PIXELS`.
    """
    if not samples or not samples[0].panels:
        raise ValueError("there is no sample to show; give at least one with an explanation")
    has_names = any(panel.feature_names for panel in samples[0].panels)
    first = ["features"] if has_names else [] if samples[0].inputs is None else ["input"]
    group_width = len(samples[0].panels) * (size + 6) + len(first) * ((_names_width(size) if has_names else size) + 6)
    n_columns = max(1, min(len(samples), (width - 2 * _MARGIN + _GAP) // (group_width + _GAP)))
    _check_pixels(width, -(-len(samples) // n_columns) * (size + 50), "samples")
    groups = [_pictures(sample, size) for sample in samples]
    tiles = [_group(sample, group, class_names) for sample, group in zip(samples, groups, strict=True)]
    rows = [tiles[start : start + n_columns] for start in range(0, len(tiles), n_columns)]
    several = _has_epochs(samples[0])
    names = [f"{panel.method} at epoch {panel.epoch}" if several else panel.method for panel in samples[0].panels]
    order = [*first, *names]
    right = [_is_right(sample.panels[-1].prediction, sample.target) for sample in samples]
    lines = [_Line(title or f"{len(samples)} samples", size=20), _Line("each from left to right: " + ", ".join(order), _FAINT)]
    if None not in right:
        told = "" if all(right) else "; what was not is in red"
        lines.append(_Line(f"{sum(map(bool, right))} of {len(samples)} predicted as the target{told}", _FAINT))
    ends = "the largest 99th percentile of each sample" if several else "the 99th percentile of each picture"
    legend = _legend([picture for group in groups for picture in group], ends)
    return _page(lines, rows, legend, framed=False)


def png(image: render.RGB) -> bytes:
    """Returns the picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", optimize=False)
    return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class _Features:
    """The features of a sample that are drawn, each in a row with its name, and the others in one row more.

    Args:
        order: which they are, the strongest first.
        names: of all.
        height: of a row.
    """

    order: Int[np.ndarray, "m"]
    names: tuple[str, ...]
    height: int

    @property
    def n_others(self) -> int:
        """How many features have no row of their own."""
        return len(self.names) - len(self.order)

    def values(self, attributions: Num[np.ndarray, "d"]) -> Float32[np.ndarray, "r"]:
        """Returns the attribution of each row; that of the others is their sum."""
        others = [render.sum_of_others(attributions, self.order)] if self.n_others else []
        return np.array([*attributions[self.order], *others], np.float32)


def _features(panels: Sequence[Panel], size: int) -> _Features | None:
    """Returns the features to draw, in one order for all panels that have them named; None if none has."""
    named = [panel for panel in panels if panel.feature_names]
    if not named:
        return None
    limits: dict[str, float] = {}  # epochs of a method share a scale, methods do not
    for panel in named:
        limits[panel.method] = max(limits.get(panel.method, 0.0), render.robust_limit(panel.attributions, 100.0))
    scaled = np.stack([panel.attributions / limits[panel.method] for panel in named])
    names, height = named[0].feature_names, max(16, size // 11)
    n_rows = max(2, size // height)
    return _Features(render.strongest(scaled, n_rows if len(names) <= n_rows else n_rows - 1), names, height)


def _picture(panel: Panel, sample: Sample, size: int, features: _Features | None, limit: float | None = None) -> render.Picture:
    if features is None or not panel.feature_names:
        return render.attributed(panel.attributions, sample.inputs, size, limit=limit, signed=panel.is_signed)
    values = features.values(panel.attributions)
    limit = render.robust_limit(panel.attributions, 100.0) if limit is None else limit
    bars = np.where(np.arange(len(values)) < len(features.order), values, 0)  # a sum of many would dwarf the bars of single features
    scale: render.Scale = "sequential" if panel.is_signed is False else "diverging"
    canvas = Image.fromarray(render.rows_of_bars(bars, limit, size, features.height, scale))
    draw, font, middle = ImageDraw.Draw(canvas), _font(features.height * 5 // 8), canvas.width // 2
    sign = "+" if scale == "diverging" else ""
    for row, value in enumerate(values.tolist()):  # each number stands where its bar does not
        left, anchor = (middle - 4, "rm") if value >= 0 else (middle + 5, "lm")
        text = next(
            (text for text in (f"{value:{sign}.3g}", f"{value:{sign}.2g}") if font.getlength(text) < middle - 5), f"{value:{sign}.1g}"
        )
        draw.text((left, (row + 0.5) * features.height), text, _FAINT, font, anchor=anchor)
    n_bad = int(np.count_nonzero(~np.isfinite(panel.attributions)))
    return render.Picture(np.asarray(canvas, np.uint8).copy(), scale, limit, n_bad, has_bars=True)


def _names_picture(features: _Features, inputs: Num[np.ndarray, "d"] | None, size: int) -> render.Picture:
    """Draws the names of the features, and what they are of this sample, beside which their bars are drawn."""
    names = [features.names[index] for index in features.order.tolist()]
    values = [""] * len(names) if inputs is None else [f"{value:.4g}" for value in inputs[features.order].tolist()]
    rows = [*zip(names, values, strict=True), *([(f"{features.n_others} others", "")] if features.n_others else [])]
    font, gap = _font(features.height * 5 // 8 + 1), features.height // 2
    of_values = max(font.getlength(value) for _, value in rows)
    shortened = [_shortened(name, font, _names_width(size) - 3 * gap - of_values) for name, _ in rows]
    width = round(max(map(font.getlength, shortened)) + of_values + 3 * gap)
    canvas = Image.fromarray(np.repeat(render.striped(len(rows), features.height)[:, None], width, axis=1))
    draw = ImageDraw.Draw(canvas)
    for row, (name, (_, value)) in enumerate(zip(shortened, rows, strict=True)):
        middle = (row + 0.5) * features.height
        draw.text((gap, middle), name, _INK if row < len(names) else _FAINT, font, anchor="lm")
        draw.text((width - gap, middle), value, _FAINT, font, anchor="rm")
    return render.Picture(np.asarray(canvas, np.uint8).copy())


def _names_width(size: int) -> int:
    """Returns the width of the names beside a picture of a size, at most."""
    return size * 2


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Leaves out the middle of a text that is wider: names that are alike mostly differ at their ends."""
    text = _printable(text)
    kept = len(text)
    while kept > 2 and font.getlength(text) > width:
        kept -= 1
        text = f"{text[: -(-kept // 2)]}..{text[len(text) - kept // 2 :]}"
    return text


def _input_tile(sample: Sample, size: int, features: _Features | None, above: str = "") -> _Tile | None:
    if features is not None:
        picture, what = _names_picture(features, sample.inputs, size), "features"
    elif sample.inputs is not None:
        picture, what = render.picture(sample.inputs, size), "input"
    else:
        return None
    above_lines = _wrapped(above, 15, picture.image.shape[1], _INK) if above else []
    return _Tile(picture, (*above_lines, _Line(what, _FAINT if above else _INK, 15)))


def _panel_tile(
    panel: Panel, sample: Sample, size: int, features: _Features | None, *, limit: float | None, class_names: Sequence[str], several: bool
) -> _Tile:
    picture = _picture(panel, sample, size, features, limit)
    width = int(picture.image.shape[1])
    above = [f"epoch {panel.epoch}"] if several else [panel.method]
    if several and sample.inputs is None and features is None:
        above.insert(0, panel.method)
    below: list[_Line] = []
    if several:
        right = _is_right(panel.prediction, sample.target)
        colour = _INK if right is None else _RIGHT if right else _WRONG
        below += _wrapped(f"predicted {_named(panel.prediction, class_names)}", 13, width, colour)
        below += _wrapped(f"score {panel.score:.4g}", 13, width, _FAINT)
    if panel.convergence_delta is not None:
        below += _wrapped(f"convergence delta {panel.convergence_delta:.2g}", 13, width, _FAINT)
    if picture.n_not_finite:
        below += _wrapped(f"{picture.n_not_finite} values not finite", 13, width, _WRONG)
    return _Tile(picture, tuple(line for text in above for line in _wrapped(text, 15, width, _INK)), tuple(below))


def _pictures(sample: Sample, size: int) -> list[render.Picture]:
    features = _features(sample.panels, size)
    shown = _input_tile(sample, size, features)
    pictures = [_picture(panel, sample, size, features) for panel in sample.panels]
    if _has_epochs(sample):
        limits: dict[str, float] = {}
        for panel, picture in zip(sample.panels, pictures, strict=True):
            limits[panel.method] = max(limits.get(panel.method, 0.0), picture.limit)
        pictures = [_picture(panel, sample, size, features, limits[panel.method]) for panel in sample.panels]
    return [*([] if shown is None else [shown.picture]), *pictures]


def _has_epochs(sample: Sample) -> bool:
    return len({panel.epoch for panel in sample.panels}) > 1


def _group(sample: Sample, pictures: Sequence[render.Picture], class_names: Sequence[str]) -> _Tile:
    """Joins a sample's pictures, each in a frame, into one tile of a contact sheet."""
    height = max(picture.image.shape[0] for picture in pictures) + 2
    width = sum(picture.image.shape[1] + 6 for picture in pictures) - 4
    joined = np.full((height, width, 3), 255, np.uint8)
    left = 0
    for picture in pictures:
        rows, columns, _ = picture.image.shape
        joined[: rows + 2, left : left + columns + 2] = _FRAME
        joined[1 : rows + 1, left + 1 : left + columns + 1] = picture.image
        left += columns + 6
    panel = sample.panels[-1]
    right = _is_right(panel.prediction, sample.target)
    colour = _INK if right is None else _RIGHT if right else _WRONG
    predicted = f"predicted {_named(panel.prediction, class_names)}"
    score = f"(score {panel.score:.3g})"  # beside the target, for it is the target's
    said = f"{predicted} {score}" if right else f"{predicted}, target {_named(sample.target, class_names)} {score}"
    below = [*_wrapped(f"sample {sample.sample_id}", 13, width, _FAINT), *_wrapped(said, 13, width, colour)]
    return _Tile(render.Picture(joined), below=tuple(below))


def _verdict(sample: Sample, class_names: Sequence[str], panel: Panel | None) -> list[_Line]:
    """Says what the sample is and, where one epoch is shown, what the model said."""
    known = f"label {_named(sample.label, class_names)} · target {_named(sample.target, class_names)}"
    if panel is None:
        return [_Line(known, size=15)]
    right = _is_right(panel.prediction, sample.target)
    word, colour = ("", _INK) if right is None else (" (right)", _RIGHT) if right else (" (wrong)", _WRONG)
    prediction = f"prediction {_named(panel.prediction, class_names)}{word}"
    return [_Line(f"{known} · score {panel.score:.4g}", size=15), _Line(prediction, colour, 15)]


def _legend(pictures: Sequence[render.Picture], ends: str) -> list[_Line]:
    scales = {picture.scale for picture in pictures}
    text = []
    if "diverging" in scales:
        text.append("Red raises the score, blue lowers it.")
    if "sequential" in scales:
        text.append("Violet to yellow: importance, from 0 to the most.")
    if any(picture.scale != "none" and not picture.has_bars for picture in pictures):
        text.append(f"Colours end at {ends}.")
    if any(picture.n_not_finite for picture in pictures):
        text.append("Green: not finite.")
    return [_Line(" ".join(text), _FAINT, 13)]


def _page(lines: Sequence[_Line], rows: Sequence[Sequence[_Tile]], legend: Sequence[_Line], *, framed: bool) -> render.RGB:
    """Lays out lines, rows of tiles aligned in columns, and the legend, on white."""
    n_columns = max(map(len, rows))
    widths = [max((row[column].width for row in rows if column < len(row)), default=0) for column in range(n_columns)]
    inner = max(sum(widths) + _GAP * (n_columns - 1), 420)
    head = [part for line in lines for part in _wrapped(line.text, line.size, inner, line.colour)]
    foot = [part for line in legend for part in _wrapped(line.text, line.size, inner, line.colour)]
    above = [max(tile.height_above for tile in row) for row in rows]  # pictures of one row start at one height
    below = [max(tile.height_below for tile in row) for row in rows]
    height = 2 * _MARGIN + sum(map(_line_height, (*head, *foot))) + 2 * _GAP + sum(above) + sum(below) + _GAP * (len(rows) - 1)
    canvas = Image.new("RGB", (inner + 2 * _MARGIN, height), "white")
    draw = ImageDraw.Draw(canvas)
    top = _text(draw, head, _MARGIN, _MARGIN) + _GAP
    for row, height_above, height_below in zip(rows, above, below, strict=True):
        left = _MARGIN
        for tile, column_width in zip(row, widths, strict=False):
            _draw_tile(canvas, draw, tile, left, top + height_above, framed=framed)
            left += column_width + _GAP
        top += height_above + height_below + _GAP
    _text(draw, foot, _MARGIN, top)
    return np.asarray(canvas, np.uint8).copy()


def _draw_tile(canvas: Image.Image, draw: ImageDraw.ImageDraw, tile: _Tile, left: int, top: int, *, framed: bool) -> None:
    """Draws a tile whose picture's upper left corner is at `left`, `top`."""
    _text(draw, tile.above, left, top - tile.height_above)
    rows, columns, _ = tile.picture.image.shape
    canvas.paste(Image.fromarray(tile.picture.image), (left, top))
    if framed:
        draw.rectangle((left - 1, top - 1, left + columns, top + rows), outline=_FRAME)
    top += rows + 8
    if tile.has_scale:
        bar = render.ramp(tile.picture.scale, columns, _BAR_HEIGHT)
        canvas.paste(Image.fromarray(bar), (left, top))
        draw.rectangle((left - 1, top - 1, left + columns, top + _BAR_HEIGHT), outline=_FRAME)
        end = f"{tile.picture.limit:.2g}"
        signed = tile.picture.scale == "diverging"
        font = _font(12)
        below = top + _BAR_HEIGHT + 3
        draw.text((left, below), f"-{end}" if signed else "0", _FAINT, font)
        if signed and columns >= 120:
            draw.text((left + columns / 2, below), "0", _FAINT, font, anchor="ma")
        draw.text((left + columns, below), f"+{end}" if signed else end, _FAINT, font, anchor="ra")
        top += _BAR_HEIGHT + 24
    _text(draw, tile.below, left, top)


def _text(draw: ImageDraw.ImageDraw, lines: Sequence[_Line], left: int, top: int) -> int:
    for line in lines:
        draw.text((left, top), line.text, line.colour, _font(line.size))
        top += _line_height(line)
    return top


def _line_height(line: _Line) -> int:
    return round(line.size * 1.4)


def _wrapped(text: str, size: int, width: int, colour: Colour) -> list[_Line]:
    """Breaks a line at spaces to fit `width` pixels, and words that are wider anywhere."""
    font = _font(size)
    lines = [""]
    for word in _printable(text).split(" "):
        candidate = f"{lines[-1]} {word}" if lines[-1] else word
        if font.getlength(candidate) <= width:
            lines[-1] = candidate
            continue
        if lines[-1]:
            lines.append("")
        for character in word:
            if lines[-1] and font.getlength(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
    return [_Line(line, colour, size) for line in lines]


def _printable(text: str) -> str:
    """Returns the text in characters that the built-in font has: accents are dropped, other scripts become question marks."""
    plain = unicodedata.normalize("NFKD", text)
    return "".join(c if (c.isascii() and c.isprintable()) or c == "·" else "?" for c in plain if not unicodedata.combining(c))


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("this Pillow was built without FreeType and cannot draw text at a size; install Pillow's own wheel from PyPI")
    return font


def _named(value: Value, class_names: Sequence[str]) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if 0 <= value < len(class_names) and class_names[value] != str(value):
        return f"{value} '{class_names[value]}'"
    return str(value)


def _is_right(prediction: Value, target: Value) -> bool | None:
    """Says whether the prediction is the target; None where they are values, of which nobody expects equality."""
    if isinstance(prediction, float) or isinstance(target, float):
        return None
    return prediction == target


def _check_pixels(width: int, height: int, of_what: str) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"the picture would have {width} x {height} pixels, more than {MAX_PIXELS / 1e6:.0f} million; ask for fewer {of_what} at a time"
        )
