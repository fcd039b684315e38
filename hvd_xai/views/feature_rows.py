"""A table's features as rows, the strongest first: their names and values, and beside them one bar
for each method.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int, Num
from PIL import Image, ImageDraw, ImageFont

from hvd_xai.views import pixels
from hvd_xai.views.layout import FAINT, INK, font, shortened


@dataclass(frozen=True, slots=True)
class FeatureRows:
    """The features of a sample that are drawn, each in a row with its name, and the others in one
    row more.

    Args:
        order: which they are, the strongest first.
        names: of all.
        height: of a row, in pixels.
    """

    order: Int[np.ndarray, "m"]
    names: tuple[str, ...]
    height: int

    @classmethod
    def strongest(
        cls, scaled: Num[np.ndarray, "p d"], names: tuple[str, ...], size: int
    ) -> "FeatureRows":
        """Returns as many features as a picture of a size has rows for.

        Args:
            scaled: attributions of all that are drawn side by side, each divided by where its scale
                ends.
            names: of the features.
            size: about the height of the picture, in pixels.
        """
        height = max(16, size // 11)
        n_rows = max(2, size // height)
        return cls(
            pixels.strongest(scaled, n_rows if len(names) <= n_rows else n_rows - 1), names, height
        )

    @property
    def n_others(self) -> int:
        """How many features have no row of their own."""
        return len(self.names) - len(self.order)

    def values(self, attributions: Num[np.ndarray, "d"]) -> Float32[np.ndarray, "r"]:
        """Returns the attribution of each row; that of the others is their sum."""
        others = [pixels.sum_of_others(attributions, self.order)] if self.n_others else []
        return np.array([*attributions[self.order], *others], np.float32)

    def bars(
        self,
        attributions: Num[np.ndarray, "d"],
        width: int,
        *,
        limit: float | None = None,
        signed: bool = True,
    ) -> pixels.Picture:
        """Draws one sample's attributions as a bar with a number in each row.

        Args:
            attributions: of all features.
            width: of the picture, in pixels.
            limit: where the scale ends; at the largest if left out.
            signed: whether the method's attributions have a sign, and so the diverging scale.
        """
        values = self.values(attributions)
        limit = pixels.robust_limit(attributions, 100.0) if limit is None else limit
        # a sum of many would dwarf the bars of single features
        bars = np.where(np.arange(len(values)) < len(self.order), values, 0)
        scale: pixels.Scale = "diverging" if signed else "sequential"
        canvas = Image.fromarray(pixels.rows_of_bars(bars, limit, width, self.height, scale))
        draw, small, middle = ImageDraw.Draw(canvas), font(self.height * 5 // 8), canvas.width // 2
        for row, value in enumerate(values.tolist()):  # each number stands where its bar does not
            left, anchor = (middle - 4, "rm") if value >= 0 else (middle + 5, "lm")
            text = _number(value, small, middle - 5, sign="+" if signed else "")
            draw.text((left, (row + 0.5) * self.height), text, FAINT, small, anchor=anchor)
        n_bad = int(np.count_nonzero(~np.isfinite(attributions)))
        return pixels.Picture(
            np.asarray(canvas, np.uint8).copy(), scale, limit, n_bad, has_bars=True
        )

    def names_picture(self, inputs: Num[np.ndarray, "d"] | None, size: int) -> pixels.Picture:
        """Draws the names of the features, and what they are of this sample, beside which their
        bars are drawn.
        """
        names = [self.names[index] for index in self.order.tolist()]
        values = (
            [""] * len(names)
            if inputs is None
            else [f"{value:.4g}" for value in inputs[self.order].tolist()]
        )
        rows = [
            *zip(names, values, strict=True),
            *([(f"{self.n_others} others", "")] if self.n_others else []),
        ]
        of_size, gap = font(self.height * 5 // 8 + 1), self.height // 2
        of_values = max(of_size.getlength(value) for _, value in rows)
        texts = [
            shortened(name, of_size, names_width(size) - 3 * gap - of_values) for name, _ in rows
        ]
        width = round(max(map(of_size.getlength, texts)) + of_values + 3 * gap)
        canvas = Image.fromarray(
            np.repeat(pixels.striped(len(rows), self.height)[:, None], width, axis=1)
        )
        draw = ImageDraw.Draw(canvas)
        for row, (name, (_, value)) in enumerate(zip(texts, rows, strict=True)):
            middle = (row + 0.5) * self.height
            draw.text((gap, middle), name, INK if row < len(names) else FAINT, of_size, anchor="lm")
            draw.text((width - gap, middle), value, FAINT, of_size, anchor="rm")
        return pixels.Picture(np.asarray(canvas, np.uint8).copy())


def names_width(size: int) -> int:
    """Returns the width of the names beside a picture of a size, at most."""
    return size * 2


def _number(value: float, of_size: ImageFont.FreeTypeFont, width: int, *, sign: str) -> str:
    """Writes a number in three digits, or as many as fit."""
    texts = [f"{value:{sign}.{digits}g}" for digits in (3, 2, 1)]
    return next((text for text in texts if of_size.getlength(text) < width), texts[-1])
