"""Lays out text and captioned pictures on a page, each picture above its colour scale.

MARGIN  lines
        [above]   GAP   [above]       the pictures of one row start at one height
        picture         picture
        scale           scale
        [below]         [below]
        legend
"""

import functools
import io
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hvd_xai.views import pixels

Colour: TypeAlias = tuple[int, int, int]

# About 190 MB of RGB; nobody scrolls through a taller picture.
MAX_PIXELS = 64_000_000

INK: Colour = (32, 32, 32)
FAINT: Colour = (105, 105, 105)
FRAME: Colour = (190, 190, 190)
MARGIN = 20
GAP = 18
_BAR_HEIGHT = 10
_WIDEST_WORD = 160
# Below a picture that is a thread, words and the ends of a scale need more room than it has.
_NARROWEST = 110


@dataclass(frozen=True, slots=True)
class Line:
    """Holds a line of text.

    Args:
        text: text of the line.
        colour: colour of the letters.
        size: height of the letters, in pixels.

    Example:
        >>> Line("epoch 3", FAINT).size
        14
    """

    text: str
    colour: Colour = INK
    size: int = 14


@dataclass(frozen=True, slots=True)
class Tile:
    """Holds a picture with lines above and below it, which may be wider than the picture.

    Args:
        picture: picture with its colour scale.
        above: lines above the picture.
        below: lines below the picture and its scale.

    Example:
        >>> Tile(pixels.Picture(np.zeros((8, 8, 3), np.uint8))).has_scale
        False
    """

    picture: pixels.Picture
    above: tuple[Line, ...] = ()
    below: tuple[Line, ...] = ()

    @property
    def width(self) -> int:
        """Width of the picture with its scale, or of the widest line."""
        widths = [font(line.size).getlength(line.text) for line in (*self.above, *self.below)]
        columns = int(self.picture.image.shape[1])
        return math.ceil(max([float(text_width(columns) if self.has_scale else columns), *widths]))

    @property
    def height_above(self) -> int:
        """Height of the lines above the picture."""
        return sum(map(_line_height, self.above))

    @property
    def height_below(self) -> int:
        """Height from the upper edge of the picture down to the end of the tile."""
        height = int(self.picture.image.shape[0]) + 8 + sum(map(_line_height, self.below))
        return height + (_BAR_HEIGHT + 24 if self.has_scale else 0)

    @property
    def has_scale(self) -> bool:
        """Whether the picture's colours are a scale, which is drawn below it."""
        return self.picture.scale != "none"


def lay_out(
    lines: Sequence[Line], rows: Sequence[Sequence[Tile]], legend: Sequence[Line], *, framed: bool
) -> pixels.RGB:
    """Lays out lines, rows of tiles aligned in columns, and the legend, on white.

    Args:
        lines: lines at the top of the page.
        rows: tiles of each row, from left to right.
        legend: lines at the bottom of the page.
        framed: whether every picture gets a thin frame.

    Example:
        >>> tile = Tile(pixels.Picture(np.zeros((500, 600, 3), np.uint8)))
        >>> lay_out([Line("two pictures")], [[tile, tile]], [], framed=True).shape[1]
        1258
    """
    n_columns = max(map(len, rows))
    widths = [
        max((row[column].width for row in rows if column < len(row)), default=0)
        for column in range(n_columns)
    ]
    inner = max(sum(widths) + GAP * (n_columns - 1), 420)
    head = [part for line in lines for part in wrap(line.text, line.size, inner, line.colour)]
    foot = [part for line in legend for part in wrap(line.text, line.size, inner, line.colour)]
    # The tallest text of a row sets its height, so that the pictures of a row start at one height.
    above = [max(tile.height_above for tile in row) for row in rows]
    below = [max(tile.height_below for tile in row) for row in rows]
    height = (
        2 * MARGIN
        + sum(map(_line_height, (*head, *foot)))
        + 2 * GAP
        + sum(above)
        + sum(below)
        + GAP * (len(rows) - 1)
    )
    canvas = Image.new("RGB", (inner + 2 * MARGIN, height), "white")
    draw = ImageDraw.Draw(canvas)
    top = _text(draw, head, MARGIN, MARGIN) + GAP
    for row, height_above, height_below in zip(rows, above, below, strict=True):
        left = MARGIN
        for tile, column_width in zip(row, widths, strict=False):
            _draw_tile(canvas, draw, tile, left, top + height_above, framed=framed)
            left += column_width + GAP
        top += height_above + height_below + GAP
    _text(draw, foot, MARGIN, top)
    return np.asarray(canvas, np.uint8).copy()


def png(image: pixels.RGB) -> bytes:
    """Returns the picture as the bytes of a PNG file.

    Example:
        >>> png(np.zeros((8, 8, 3), np.uint8))[1:4]
        b'PNG'
    """
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", optimize=False)
    return buffer.getvalue()


def check_pixels(width: int, height: int, of_what: str) -> None:
    """Checks that a picture is not larger than `MAX_PIXELS`.

    Args:
        width: width of the picture, in pixels.
        height: height of the picture, in pixels.
        of_what: what the picture shows too many of if it is too large, such as "samples".

    Raises:
        ValueError: if the picture is larger.

    Example:
        >>> check_pixels(800, 600, "samples")
    """
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"the picture would have {width} x {height} pixels, more than {MAX_PIXELS / 1e6:.0f}"
            f" million; ask for fewer {of_what} at a time"
        )


def wrap(text: str, size: int, width: int, colour: Colour) -> list[Line]:
    """Breaks a text into lines of about `width` pixels, between words and never inside one.

    A long name is broken behind its underscores. A word of its own that is wider than a line makes
    a wider line, up to `_WIDEST_WORD` pixels, beyond which its middle is left out.

    Example:
        >>> [line.text for line in wrap("integrated_gradients of 8", 14, 100, INK)]
        ['integrated_', 'gradients of 8']
    """
    letters = font(size)
    lines = [""]
    # a number and its % stay together
    for word in re.split(" (?!%)", printable(text)):
        space = " " if lines[-1] else ""
        if letters.getlength(lines[-1] + space + word) <= width:
            lines[-1] += space + word
            continue
        if lines[-1]:
            lines.append("")
        for part in re.findall(r"[^_/]*[_/]*", word)[:-1] or [word]:
            if lines[-1] and letters.getlength(lines[-1] + part) > width:
                lines.append("")
            lines[-1] += shorten(part, letters, float(max(width, _WIDEST_WORD)))
    return [Line(line, colour, size) for line in lines]


def text_width(columns: int) -> int:
    """Returns the width of the lines, and of the colour scale, of a picture of so many columns.

    Example:
        >>> text_width(40), text_width(200)
        (110, 200)
    """
    return max(columns, _NARROWEST)


def printable(text: str) -> str:
    """Returns a text in characters of the built-in font.

    Accents are dropped, and letters of other scripts become question marks.

    Example:
        >>> printable("âge 年")
        'age ?'
    """
    plain = unicodedata.normalize("NFKD", text)
    return "".join(
        c if (c.isascii() and c.isprintable()) or c == "·" else "?"
        for c in plain
        if not unicodedata.combining(c)
    )


def shorten(text: str, letters: ImageFont.FreeTypeFont, width: float) -> str:
    """Shortens a text to at most `width` pixels, in characters that the font has.

    Its middle is left out, because names mostly differ at their ends.

    Example:
        >>> shorten("block_2_convolution_kernel", font(14), 80.0)[:5]
        'block'
    """
    text = printable(text)
    # Each character is at least a pixel wide, so no more than `width` of them need be tried.
    kept = min(len(text), max(3, round(width)))
    while kept > 2 and letters.getlength(text) > width:
        kept -= 1
        # kept = 5:  abcdefghij -> abc..ij; the first half is the longer one
        text = f"{text[: -(-kept // 2)]}..{text[len(text) - kept // 2 :]}"
    return text


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Returns the font of all text at a height in pixels.

    Raises:
        TypeError: if Pillow was built without FreeType.

    Example:
        >>> font(14).getlength("wide") > font(14).getlength("w")
        True
    """
    found = ImageFont.load_default(size)
    if not isinstance(found, ImageFont.FreeTypeFont):
        raise TypeError(
            "this Pillow was built without FreeType and cannot draw text at a size; install"
            " Pillow's own wheel from PyPI"
        )
    return found


def _draw_tile(
    canvas: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, left: int, top: int, *, framed: bool
) -> None:
    """Draws a tile; the upper left corner of its picture is at `left`, `top`."""
    _text(draw, tile.above, left, top - tile.height_above)
    rows, columns, _ = tile.picture.image.shape
    canvas.paste(Image.fromarray(tile.picture.image), (left, top))
    if framed:
        draw.rectangle((left - 1, top - 1, left + columns, top + rows), outline=FRAME)
    top += rows + 8
    if tile.has_scale:
        columns = text_width(columns)
        bar = pixels.ramp(tile.picture.scale, columns, _BAR_HEIGHT)
        canvas.paste(Image.fromarray(bar), (left, top))
        draw.rectangle((left - 1, top - 1, left + columns, top + _BAR_HEIGHT), outline=FRAME)
        end = f"{tile.picture.limit:.2g}"
        signed = tile.picture.scale == "diverging"
        small = font(12)
        below = top + _BAR_HEIGHT + 3
        draw.text((left, below), f"-{end}" if signed else "0", FAINT, small)
        if signed and columns >= 120:
            draw.text((left + columns / 2, below), "0", FAINT, small, anchor="ma")
        draw.text((left + columns, below), f"+{end}" if signed else end, FAINT, small, anchor="ra")
        top += _BAR_HEIGHT + 24
    _text(draw, tile.below, left, top)


def _text(draw: ImageDraw.ImageDraw, lines: Sequence[Line], left: int, top: int) -> int:
    """Draws lines one below the other; returns the height at which the next would start."""
    for line in lines:
        # Here again, because Pillow draws a line break of a name over what stands below.
        draw.text((left, top), printable(line.text), line.colour, font(line.size))
        top += _line_height(line)
    return top


def _line_height(line: Line) -> int:
    return round(line.size * 1.4)
