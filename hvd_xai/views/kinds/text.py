"""Texts, whose tokens have words: the words in lines, each on the colour of its attribution."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Num, UInt8
from PIL import Image, ImageDraw

from hvd_xai.analysis import strongest as numbers
from hvd_xai.probe.facts import ProbeFacts
from hvd_xai.protocols import Json
from hvd_xai.views import pixels
from hvd_xai.views.arrays import Plain, draw_alone
from hvd_xai.views.kind import Arrangement, Fit, Part, Strongest
from hvd_xai.views.layout import FAINT, font, shorten
from hvd_xai.views.samples import Panel, Sample, scale_panels

_PADDING = ""
# Pillow draws round corners without shades; they get them when the drawing is made smaller
_FINER = 4


def fits(facts: ProbeFacts) -> Fit:
    """Says that vectors of token ids fit that have a vocabulary."""
    return Fit.NAMES if facts.vocabulary and len(facts.shape) == 1 else Fit.NONE


def arrange(sample: Sample, size: int) -> Arrangement:
    """Arranges a sample as its words, if a panel has attributions of tokens."""
    panels = [panel for panel in sample.panels if _has_words(panel, sample)]
    if not panels or sample.inputs is None:
        return Plain(sample, size, draw_alone)
    words = read_words(sample.inputs, sample.known.vocabulary)
    return choose_lines(sample, words, scale_panels(panels), size)


def strongest(sample: Sample, most: int) -> Strongest | None:
    """Returns the words with the strongest attributions, each with its position; no padding."""
    panels = tuple(panel for panel in sample.panels if _has_words(panel, sample))
    if not panels or sample.inputs is None:
        return None
    words = read_words(sample.inputs, sample.known.vocabulary)
    # positions of words among all tokens; the strongest are looked for among these only
    positions = np.flatnonzero(np.array(words) != _PADDING)
    order = positions.take(numbers.strongest(scale_panels(panels)[:, positions], most))
    parts = [
        Part(
            words[position],
            str(position),
            tuple(float(panel.attributions[position]) for panel in panels),
        )
        for position in order.tolist()
    ]
    n_others = len(words) - len(parts)
    sums = tuple(numbers.sum_of_others(panel.attributions, order) for panel in panels)
    tokens: list[Json] = [
        {"word": part.name, "position": int(part.beside), "attribution": part.attributions[0]}
        for part in parts
    ]
    return Strongest(
        ("word", "position"),
        panels,
        tuple(parts),
        Part(f"{n_others} other tokens", "", sums) if n_others else None,
        {"tokens": tokens},
    )


@dataclass(frozen=True, slots=True)
class Word:
    """Holds a word in its line.

    Args:
        place: place of its token in the text.
        text: the word as it is written.
        left: where it begins, in pixels.
        right: where it ends, in pixels.
    """

    place: int
    text: str
    left: int
    right: int


@dataclass(frozen=True, slots=True)
class TokenText:
    """Draws the lines of a text: all, or as many successive ones as fit, the strongest together.

    Padding has no word and is left out.

    Args:
        sample: the sample.
        lines: words of each line.
        n_before: number of words in front of the first line.
        n_after: number of words behind the last line.
        letter_size: size of the font, in pixels.
        width: width of a line, in pixels.
    """

    sample: Sample
    lines: tuple[tuple[Word, ...], ...]
    n_before: int
    n_after: int
    letter_size: int
    width: int

    @property
    def caption(self) -> str:
        """No word: the words of the text are its input."""
        return ""

    @property
    def input_width(self) -> int:
        """Width of the picture of the input, which there is not."""
        return 0

    @property
    def is_wide(self) -> bool:
        """Whether each method needs a line of its own."""
        return True

    def input_picture(self) -> None:
        """Returns None: the words of the text are its input."""

    def picture(self, panel: Panel, limit: float | None = None) -> pixels.Picture:
        """Draws the words on the colours of one panel's attributions.

        Args:
            panel: explanation that is drawn; by itself, unless its attributions are of tokens.
            limit: value at the end of the scale; `pixels.robust_limit` of the words that are drawn
                if left out.
        """
        if not _has_words(panel, self.sample):
            return draw_alone(panel, self.sample, self.width // 2, limit)
        attributions, signed = panel.attributions, panel.is_signed is not False
        if limit is None:
            places = np.array([word.place for line in self.lines for word in line], int)
            limit = pixels.robust_limit(attributions[places])
        colours = pixels.colour(attributions, limit, signed=signed)
        canvas = self._draw_boxes(colours)
        draw, letters = ImageDraw.Draw(canvas), font(self.letter_size)
        inks = np.where(pixels.is_dark(colours), "white", "black")
        half_line = _line_height(self.letter_size) / 2
        for row, line in enumerate(self.lines):
            for word in line:
                middle = (word.left + word.right) / 2, self._top(row) + half_line
                draw.text(middle, word.text, str(inks[word.place]), letters, anchor="mm")
        left_out = [
            f"{n} {where}" for n, where in ((self.n_before, "before"), (self.n_after, "after")) if n
        ]
        if left_out:
            middle = _margin(self.letter_size), self._top(len(self.lines)) + half_line
            draw.text(middle, f"words left out: {', '.join(left_out)}", FAINT, letters, anchor="lm")
        n_bad = int(np.count_nonzero(~np.isfinite(attributions)))
        image = np.asarray(canvas, np.uint8).copy()
        return pixels.Picture(image, "diverging" if signed else "sequential", limit, n_bad)

    def _draw_boxes(self, colours: UInt8[np.ndarray, "t 3"]) -> Image.Image:
        """Draws the boxes on which the words are written, with round corners."""
        n_rows = len(self.lines) + (self.n_before + self.n_after > 0)
        height = self._top(n_rows) + _margin(self.letter_size)
        canvas = Image.new("RGB", (self.width * _FINER, height * _FINER), "white")
        draw, radius = ImageDraw.Draw(canvas), _pad(self.letter_size) * _FINER
        for row, line in enumerate(self.lines):
            # a white pixel above and below each box; Pillow's boxes include their last pixel
            top, bottom = (self._top(row) + 1) * _FINER, (self._top(row + 1) - 1) * _FINER - 1
            for word in line:
                box = (word.left * _FINER, top, word.right * _FINER - 1, bottom)
                draw.rounded_rectangle(box, radius, tuple(colours[word.place].tolist()))
        return canvas.reduce(_FINER)

    def _top(self, row: int) -> int:
        """Returns where a row begins, from the upper edge down."""
        return _margin(self.letter_size) + row * _line_height(self.letter_size)


def choose_lines(
    sample: Sample, words: Sequence[str], scaled: Num[np.ndarray, "p t"], size: int
) -> TokenText:
    """Wraps a text into lines, and chooses as many as a picture has room for.

    Of a longer text, those successive lines are chosen whose attributions are the strongest.

    Args:
        sample: the sample.
        words: word of each token; that of padding is empty.
        scaled: attributions of each panel, each divided by the end of its scale.
        size: longer side of a picture of another kind, about, in pixels; a text is twice as wide.
    """
    letter_size, width = max(12, size // 14), size * 2
    lines = _wrap(words, letter_size, width)
    n_lines = max(2, width // _line_height(letter_size))
    if len(lines) <= n_lines:
        return TokenText(sample, lines, 0, 0, letter_size, width)
    # The last line is taken up by the number of words that are left out.
    n_lines -= 1
    magnitudes = np.where(np.isfinite(scaled), np.abs(scaled), np.inf).max(axis=0)
    strengths = [float(magnitudes[[word.place for word in line]].sum()) for line in lines]
    # A window of `n_lines` slides over the lines; the first of the strongest windows is drawn:
    #   lines    0  1 [2  3  4] 5  6      n_before = words of 0, 1; n_after = words of 5, 6
    windows = [sum(strengths[at : at + n_lines]) for at in range(len(lines) - n_lines + 1)]
    first = int(np.argmax(windows))
    n_before = sum(map(len, lines[:first]))
    n_after = sum(map(len, lines[first + n_lines :]))
    return TokenText(sample, lines[first : first + n_lines], n_before, n_after, letter_size, width)


def read_words(tokens: Num[np.ndarray, "t"], vocabulary: Sequence[str]) -> tuple[str, ...]:
    """Returns the word of each token.

    Raises:
        ValueError: if a token has no word.

    Example:
        >>> read_words(np.array([2, 0]), ("", "[UNK]", "film"))
        ('film', '')
    """
    # so written, NaN is among those that have no word
    absent = tokens[~((tokens >= 0) & (tokens < len(vocabulary)))]
    if len(absent):
        raise ValueError(
            f"the vocabulary has {len(vocabulary)} words, and none for token id {absent[0]}; it is"
            " not the one of these texts"
        )
    return tuple(vocabulary[int(token)] for token in tokens.tolist())


def _has_words(panel: Panel, sample: Sample) -> bool:
    """Says whether a panel has an attribution for each token, whose place is that of its word."""
    is_known = panel.attributed_to in ("inputs", "places")
    return is_known and panel.attributions.shape == sample.known.shape


def _wrap(words: Sequence[str], letter_size: int, width: int) -> tuple[tuple[Word, ...], ...]:
    """Wraps words into lines of a width."""
    letters, margin, pad = font(letter_size), _margin(letter_size), _pad(letter_size)
    lines: list[list[Word]] = [[]]
    left = margin
    for place, word in enumerate(words):
        if word == _PADDING:
            continue
        text = shorten(word, letters, float(width - 2 * (margin + pad)))
        advance = round(letters.getlength(text)) + 2 * pad
        if lines[-1] and left + advance > width - margin:
            lines.append([])
            left = margin
        lines[-1].append(Word(place, text, left, left + advance))
        # A white pixel stands between two boxes.
        left += advance + 1
    return tuple(map(tuple, lines))


def _line_height(letter_size: int) -> int:
    return letter_size * 3 // 2


def _margin(letter_size: int) -> int:
    """Returns the width of the margin around all lines."""
    return letter_size // 3


def _pad(letter_size: int) -> int:
    """Returns how far a box goes beyond its word, to the left and to the right."""
    return letter_size // 4
