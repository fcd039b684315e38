"""Tables, whose features have names: one row for each feature, the strongest first.

Names and values stand on the left, and beside them one bar for each method.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int, Num
from PIL import Image, ImageDraw, ImageFont

from hvd_xai.analysis import strongest as numbers
from hvd_xai.probe.facts import ProbeFacts
from hvd_xai.protocols import Json
from hvd_xai.views import bars, pixels
from hvd_xai.views.arrays import Plain, draw_alone
from hvd_xai.views.kind import Arrangement, Fit, Part, Strongest
from hvd_xai.views.layout import FAINT, INK, font, shorten
from hvd_xai.views.samples import Panel, Sample, scale_panels


def fits(facts: ProbeFacts) -> Fit:
    """Says that vectors fit whose values all have names."""
    return Fit.NAMES if facts.is_named and not facts.vocabulary else Fit.NONE


def arrange(sample: Sample, size: int) -> Arrangement:
    """Arranges a sample as rows of features, if a panel has attributions of features."""
    panels = [panel for panel in sample.panels if sample.has_parts(panel)]
    if not panels:
        return Plain(sample, size, draw_alone)
    height = max(16, size // 11)
    n_rows = max(2, size // height)
    # the last row is for the others, where not all have one of their own
    n_own = n_rows if len(sample.known.feature_names) <= n_rows else n_rows - 1
    order = numbers.strongest(scale_panels(panels), n_own)
    return FeatureRows(sample, size, order, height)


def strongest(sample: Sample, most: int) -> Strongest | None:
    """Returns the features with the strongest attributions, each with its value."""
    panels = tuple(panel for panel in sample.panels if sample.has_parts(panel))
    if not panels or sample.inputs is None:
        return None
    names, order = sample.known.feature_names, numbers.strongest(scale_panels(panels), most)
    values = sample.inputs.tolist()
    parts = [
        Part(
            names[place],
            f"{values[place]:.4g}",
            tuple(float(panel.attributions[place]) for panel in panels),
            tuple(
                None if panel.standard_errors is None else float(panel.standard_errors[place])
                for panel in panels
            ),
        )
        for place in order.tolist()
    ]
    n_others = len(names) - len(parts)
    sums = tuple(numbers.sum_of_others(panel.attributions, order) for panel in panels)
    return Strongest(
        ("feature", "value"),
        panels,
        tuple(parts),
        Part(f"{n_others} others", "", sums) if n_others else None,
        _record(parts),
    )


def _record(parts: Sequence[Part]) -> dict[str, Json]:
    """Returns the attributions of the first panel by feature, and their standard errors."""
    record: dict[str, Json] = {"features": {part.name: part.attributions[0] for part in parts}}
    if parts and parts[0].standard_errors[0] is not None:
        record["standard_errors"] = {part.name: part.standard_errors[0] for part in parts}
    return record


@dataclass(frozen=True, slots=True)
class FeatureRows:
    """Draws the features of a sample in rows, the strongest first, and all others in one row more.

    Args:
        sample: the sample; its features have names.
        size: height of the picture, about, in pixels.
        order: places of the features that have rows of their own, the strongest first.
        height: height of a row, in pixels.
    """

    sample: Sample
    size: int
    order: Int[np.ndarray, "m"]
    height: int

    @property
    def caption(self) -> str:
        """Word above the names and values."""
        return "features"

    @property
    def input_width(self) -> int:
        """Largest width of the names and values, in pixels."""
        return self.size * 2

    @property
    def width(self) -> int:
        """Width of the bars of one panel, about, in pixels."""
        return self.size

    @property
    def is_wide(self) -> bool:
        """Whether each method needs a line of its own."""
        return False

    @property
    def n_others(self) -> int:
        """Number of features that have no row of their own."""
        return len(self.sample.known.feature_names) - len(self.order)

    def values(self, attributions: Num[np.ndarray, "d"]) -> Float32[np.ndarray, "r"]:
        """Returns the attribution of each row, the sum of the other features last."""
        others = [numbers.sum_of_others(attributions, self.order)] if self.n_others else []
        return np.array([*attributions[self.order], *others], np.float32)

    def picture(self, panel: Panel, limit: float | None = None) -> pixels.Picture:
        """Draws one panel as a bar with a number in each row.

        Args:
            panel: explanation that is drawn; by itself, unless its attributions are of features.
            limit: value of the longest bar; the largest magnitude of this panel if left out.
        """
        if not self.sample.has_parts(panel):
            return draw_alone(panel, self.sample, self.size, limit)
        values, signed = self.values(panel.attributions), panel.is_signed is not False
        limit = bars.limit_of(panel.attributions, panel.standard_errors) if limit is None else limit
        errors = None
        if panel.standard_errors is not None:
            # errors of single features do not say that of their sum
            errors = np.append(panel.standard_errors[self.order], [0.0] * bool(self.n_others))
        # a sum of many would dwarf the bars of single features, so it is a number only
        shown = np.where(np.arange(len(values)) < len(self.order), values, 0)
        scale: pixels.Scale = "diverging" if signed else "sequential"
        drawn = bars.in_rows(shown, limit, self.size, self.height, scale, errors)
        canvas = Image.fromarray(drawn)
        draw, small, middle = ImageDraw.Draw(canvas), font(self.height * 5 // 8), canvas.width // 2
        # each number stands on the side of the zero line where its bar does not, and clear of an
        # error bar that reaches across
        across = np.zeros(len(values)) if errors is None else np.maximum(errors - np.abs(values), 0)
        shifts = np.nan_to_num(np.minimum(across / limit, 1)) * middle
        for row, (value, shift) in enumerate(zip(values.tolist(), shifts.tolist(), strict=True)):
            room = max(middle - 5 - shift, 0)
            left, anchor = (middle - 4 - shift, "rm") if value >= 0 else (middle + 5 + shift, "lm")
            text = _write_number(value, small, room, sign="+" if signed else "")
            draw.text((left, (row + 0.5) * self.height), text, FAINT, small, anchor=anchor)
        n_bad = int(np.count_nonzero(~np.isfinite(panel.attributions)))
        image = np.asarray(canvas, np.uint8).copy()
        return pixels.Picture(image, scale, limit, n_bad, has_bars=True)

    def input_picture(self) -> pixels.Picture:
        """Draws the names of the features, and their values in this sample if these are known."""
        names = [self.sample.known.feature_names[place] for place in self.order.tolist()]
        inputs = self.sample.inputs
        values = (
            [""] * len(names)
            if inputs is None
            else [f"{value:.4g}" for value in inputs[self.order].tolist()]
        )
        others = [(f"{self.n_others} others", "")] if self.n_others else []
        rows = [*zip(names, values, strict=True), *others]
        letters, gap = font(self.height * 5 // 8 + 1), self.height // 2
        values_width = max(letters.getlength(value) for _, value in rows)
        # a row from left to right: gap, name, gap, value, gap
        room = self.input_width - 3 * gap - values_width
        texts = [shorten(name, letters, room) for name, _ in rows]
        width = round(max(map(letters.getlength, texts)) + values_width + 3 * gap)
        background = np.repeat(bars.striped(len(rows), self.height)[:, None], width, axis=1)
        canvas = Image.fromarray(background)
        draw = ImageDraw.Draw(canvas)
        for row, (name, (_, value)) in enumerate(zip(texts, rows, strict=True)):
            middle = (row + 0.5) * self.height
            draw.text((gap, middle), name, INK if row < len(names) else FAINT, letters, anchor="lm")
            draw.text((width - gap, middle), value, FAINT, letters, anchor="rm")
        return pixels.Picture(np.asarray(canvas, np.uint8).copy())


def _write_number(value: float, letters: ImageFont.FreeTypeFont, width: float, *, sign: str) -> str:
    """Writes a number in three digits, or in as many as fit."""
    texts = [f"{value:{sign}.{digits}g}" for digits in (3, 2, 1)]
    return next((text for text in texts if letters.getlength(text) < width), texts[-1])
