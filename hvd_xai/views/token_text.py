"""A text as its words in lines, each word on the colour of its attribution."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Num, UInt8
from PIL import Image, ImageDraw

from hvd_xai.views import pixels
from hvd_xai.views.layout import FAINT, font, shortened

_PADDING = ""
_FINER = (
    4  # Pillow draws round corners without shades; they get them when the drawing is made smaller
)


@dataclass(frozen=True, slots=True)
class Word:
    """A word in its line: the place of its token, how it is written, and where it begins and ends,
    in pixels.
    """

    place: int
    text: str
    left: int
    right: int


@dataclass(frozen=True, slots=True)
class TokenText:
    """The lines of a text that are drawn: all, or as many in a row as fit, the strongest together.

    Padding has no word and is left out.

    Args:
        lines: the words of each.
        n_before: words in front of the first line.
        n_after: words behind the last one.
        size: of the font, in pixels.
        width: of a line, in pixels.
    """

    lines: tuple[tuple[Word, ...], ...]
    n_before: int
    n_after: int
    size: int
    width: int

    @classmethod
    def strongest(
        cls, scaled: Num[np.ndarray, "p t"], words: Sequence[str], size: int
    ) -> "TokenText":
        """Returns as many lines of a text as a picture has room for.

        Args:
            scaled: attributions of all pictures that are drawn of the text, each divided by where
                its scale ends.
            words: of the tokens; that of padding is empty.
            size: about the longer side of a picture of something else, in pixels.
        """
        of_font, width = max(12, size // 14), text_side(size)
        lines = _lines(words, of_font, width)
        n_lines = max(2, width // _height(of_font))
        if len(lines) <= n_lines:
            return cls(lines, 0, 0, of_font, width)
        n_lines -= 1  # the last says how many words are left out
        magnitudes = np.where(np.isfinite(scaled), np.abs(scaled), np.inf).max(axis=0)
        of_lines = [float(magnitudes[[word.place for word in line]].sum()) for line in lines]
        first = int(
            np.argmax(
                [
                    sum(of_lines[start : start + n_lines])
                    for start in range(len(lines) - n_lines + 1)
                ]
            )
        )
        n_before, n_after = (
            sum(map(len, left_out)) for left_out in (lines[:first], lines[first + n_lines :])
        )
        return cls(lines[first : first + n_lines], n_before, n_after, of_font, width)

    def coloured(
        self, attributions: Num[np.ndarray, "t"], *, limit: float | None = None, signed: bool = True
    ) -> pixels.Picture:
        """Draws the words on the colours of one sample's attributions.

        Args:
            attributions: of all tokens.
            limit: where the scale ends; `pixels.robust_limit` of the words that are drawn if left
                out.
            signed: whether the method's attributions have a sign, and so the diverging scale.
        """
        if limit is None:
            limit = pixels.robust_limit(
                attributions[np.array([word.place for line in self.lines for word in line], int)]
            )
        colours = (pixels.diverging if signed else pixels.sequential)(attributions, limit)
        canvas = self._coloured_boxes(colours)
        draw, of_size = ImageDraw.Draw(canvas), font(self.size)
        inks = np.where(pixels.is_dark(colours), "white", "black")
        for row, line in enumerate(self.lines):
            for word in line:
                middle = (word.left + word.right) / 2, self._top(row) + _height(self.size) / 2
                draw.text(middle, word.text, str(inks[word.place]), of_size, anchor="mm")
        left_out = [
            f"{n} {where}" for n, where in ((self.n_before, "before"), (self.n_after, "after")) if n
        ]
        if left_out:
            middle = _margin(self.size), self._top(len(self.lines)) + _height(self.size) / 2
            draw.text(middle, f"words left out: {', '.join(left_out)}", FAINT, of_size, anchor="lm")
        n_bad = int(np.count_nonzero(~np.isfinite(attributions)))
        return pixels.Picture(
            np.asarray(canvas, np.uint8).copy(),
            "diverging" if signed else "sequential",
            limit,
            n_bad,
        )

    def _coloured_boxes(self, colours: UInt8[np.ndarray, "t 3"]) -> Image.Image:
        """Draws the boxes that the words are written on, their corners round."""
        height = self._top(len(self.lines) + (self.n_before + self.n_after > 0)) + _margin(
            self.size
        )
        canvas = Image.new("RGB", (self.width * _FINER, height * _FINER), "white")
        draw = ImageDraw.Draw(canvas)
        for row, line in enumerate(self.lines):
            top, bottom = (self._top(row) + 1) * _FINER, (self._top(row + 1) - 1) * _FINER - 1
            for word in line:
                box = (word.left * _FINER, top, word.right * _FINER - 1, bottom)
                draw.rounded_rectangle(
                    box, _pad(self.size) * _FINER, tuple(colours[word.place].tolist())
                )
        return canvas.reduce(_FINER)

    def _top(self, row: int) -> int:
        """Returns where a row begins, from the upper edge down."""
        return _margin(self.size) + row * _height(self.size)


def text_side(size: int) -> int:
    """Returns the width of a text, and its largest height, where other pictures have a size."""
    return size * 2


def words_of(tokens: Num[np.ndarray, "t"], vocabulary: Sequence[str]) -> tuple[str, ...]:
    """Returns the word of each token.

    Raises:
        ValueError: if a token has none.
    """
    absent = tokens[~((tokens >= 0) & (tokens < len(vocabulary)))]  # NaN is among them
    if len(absent):
        raise ValueError(
            f"the vocabulary has {len(vocabulary)} words, and none for token id {absent[0]}; it is"
            " not the one of these texts"
        )
    return tuple(vocabulary[int(token)] for token in tokens.tolist())


def _lines(words: Sequence[str], size: int, width: int) -> tuple[tuple[Word, ...], ...]:
    """Wraps words to a width."""
    of_size, margin, pad = font(size), _margin(size), _pad(size)
    lines: list[list[Word]] = [[]]
    left = margin
    for place, word in enumerate(words):
        if word == _PADDING:
            continue
        text = shortened(word, of_size, float(width - 2 * (margin + pad)))
        advance = round(of_size.getlength(text)) + 2 * pad
        if lines[-1] and left + advance > width - margin:
            lines.append([])
            left = margin
        lines[-1].append(Word(place, text, left, left + advance))
        left += advance + 1
    return tuple(map(tuple, lines))


def _height(size: int) -> int:
    """Returns the height of a line."""
    return size * 3 // 2


def _margin(size: int) -> int:
    """Returns the width of the margin around all lines."""
    return size // 3


def _pad(size: int) -> int:
    """Returns how far the box of a word goes beyond it, to the left and to the right."""
    return size // 4
