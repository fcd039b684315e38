"""Lines and pictures on a page, read back as pixels."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from hvd_xai.views import layout, pixels


def tile(width: int, *lines: str, scale: pixels.Scale = "none") -> layout.Tile:
    return layout.Tile(
        pixels.Picture(np.full((30, width, 3), 9, np.uint8), scale, 1.0),
        tuple(map(layout.Line, lines)),
    )


def corners(image: np.ndarray) -> list[tuple[int, int]]:
    """Returns where pictures of `tile` begin, as (row, column)."""
    dark = (image == 9).all(axis=-1)
    rows, columns = np.flatnonzero(dark.any(axis=1)), np.flatnonzero(dark.any(axis=0))
    starts = [[int(place) for place in axis if place - 1 not in axis] for axis in (rows, columns)]
    return [(row, column) for row in starts[0] for column in starts[1] if dark[row, column]]


def test_png_reads_back_as_the_same_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(layout.png(image)))), image)


def test_tiles_stand_in_rows_and_columns_whatever_lines_are_above_them() -> None:
    rows = [[tile(200), tile(90, "one", "two")], [tile(120, "one"), tile(300)]]
    (top, left), (same_top, right), (below, same_left), (same_below, same_right) = corners(
        layout.lay_out([], rows, [], framed=False)
    )
    assert (top, left, right) == (same_top, same_left, same_right)
    assert (below, right) == (same_below, left + 200 + layout.GAP)


def test_a_picture_has_its_scale_below_it() -> None:
    for scale in ("diverging", "sequential"):
        image = layout.lay_out([], [[tile(150, scale=scale)]], [], framed=True)
        ends = pixels.ramp(scale, 150, 1)[0, [0, -1]]
        assert all((image == end).all(axis=-1).any() for end in ends)
    assert layout.lay_out([], [[tile(150)]], [], framed=True).shape[0] < image.shape[0]


def test_a_line_is_broken_between_words_and_behind_underscores_alone() -> None:
    text = "a few words of guided_integrated_gradients at runs/demo"
    lines = [line.text for line in layout.wrap(text, 13, 90, layout.INK)]
    assert lines == ["a few words of", "guided_", "integrated_", "gradients at", "runs/demo"]


def test_a_wide_word_makes_its_tile_wider_or_loses_its_middle() -> None:
    (line,) = layout.wrap("Gradientenverfahren", 13, 60, layout.INK)
    assert line.text == "Gradientenverfahren"
    picture = pixels.Picture(np.zeros((9, 60, 3), np.uint8))
    assert layout.Tile(picture, (line,)).width == math.ceil(layout.font(13).getlength(line.text))
    (line,) = layout.wrap("Donaudampfschiffahrtsgesellschaftskapitaen", 13, 60, layout.INK)
    assert line.text.startswith("Donau")
    assert line.text.endswith("taen")
    assert layout.font(13).getlength(line.text) <= 160


def test_accents_are_dropped_and_other_scripts_told() -> None:
    assert layout.printable("élève · 猫\n") == "eleve · ??"


def test_names_lose_their_middle_however_long_they_are() -> None:
    assert layout.shorten("short", layout.font(13), 90.0) == "short"
    for text in ("a longer name than there is room for", "begin" + "x" * 200_000 + "end"):
        told = layout.shorten(text, layout.font(13), 90.0)
        assert layout.font(13).getlength(told) <= 90
        before, after = told.split("..")
        assert before
        assert after
        assert text.startswith(before)
        assert text.endswith(after)


def test_a_picture_too_large_is_refused() -> None:
    layout.check_pixels(8000, 8000, "samples")
    with pytest.raises(
        ValueError,
        match="8001 x 8000 pixels, more than 64 million; ask for fewer samples at a time",
    ):
        layout.check_pixels(8001, 8000, "samples")


def test_no_caption_is_drawn_over_another() -> None:
    hostile, shown = "\x1b[31ma\nb\u202e", "?[31ma?b?"
    picture = pixels.Picture(np.full((40, 200, 3), 255, np.uint8))
    drawn, expected = (
        layout.lay_out(
            [layout.Line(text)],
            [[layout.Tile(picture, (layout.Line(text),), (layout.Line(text),))]],
            [layout.Line(text)],
            framed=False,
        )
        for text in (hostile, shown)
    )
    assert np.array_equal(drawn, expected)
