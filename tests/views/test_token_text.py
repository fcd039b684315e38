"""Texts as coloured words."""

import numpy as np
import pytest

from hvd_xai.views import pixels
from hvd_xai.views.token_text import TokenText, text_side, words_of

WORDS = ("a", "wonderful", "film", "of", "[UNK]", "", "and", "others", "", "")
VALUES = np.array([0.1, 1.0, -0.5, 0.2, -1.0, 9.0, 0.0, 0.3, 0.0, 7.0], np.float32)


def places_of(text: TokenText) -> list[int]:
    return [word.place for line in text.lines for word in line]


def test_a_text_is_its_words_in_order_without_padding() -> None:
    text = TokenText.strongest(VALUES[None], WORDS, 100)
    assert places_of(text) == [0, 1, 2, 3, 4, 6, 7]
    assert (text.n_before, text.n_after) == (0, 0)
    assert [word.text for line in text.lines for word in line] == [word for word in WORDS if word]
    assert len(text.lines) > 1
    assert max(word.right for line in text.lines for word in line) < text.width == text_side(100)
    assert words_of(np.array([1.0, 0.0, 2.0], np.float32), ("", "one", "two")) == ("one", "", "two")


@pytest.mark.parametrize("token", [3.0, -1.0, np.nan])
def test_a_token_without_a_word_is_told(token: float) -> None:
    with pytest.raises(ValueError, match=f"has 3 words, and none for token id {token}"):
        words_of(np.array([1.0, token], np.float32), ("", "one", "two"))


@pytest.mark.parametrize("signed", [True, False])
def test_each_word_stands_on_the_colour_of_its_attribution(signed: bool) -> None:
    text = TokenText.strongest(VALUES[None], WORDS, 200)
    picture = text.coloured(VALUES, signed=signed)
    # padding does not count
    assert picture.limit == pytest.approx(pixels.robust_limit(VALUES[places_of(text)]))
    assert picture.scale == ("diverging" if signed else "sequential")
    colours = (pixels.diverging if signed else pixels.sequential)(VALUES, picture.limit)
    row_height = (picture.image.shape[0] - 2 * (text.size // 3)) // len(text.lines)
    for row, line in enumerate(text.lines):
        for word in line:  # between the box's upper edge and the letters
            assert (
                picture.image[
                    text.size // 3 + row * row_height + 2, (word.left + word.right) // 2
                ].tolist()
                == colours[word.place].tolist()
            )
    assert text.coloured(VALUES, limit=4.0, signed=signed).limit == 4.0


def test_letters_are_read_on_every_colour() -> None:
    for signed in (True, False):
        for value in np.linspace(-1, 1, 9, dtype=np.float32):
            image = (
                TokenText.strongest(np.ones((1, 1)), ("word",), 200)
                .coloured(np.array([value]), limit=1.0, signed=signed)
                .image
            )
            paper = image[image.shape[0] // 2, 5].astype(int)
            assert np.abs(image[8:-8, 8:30].astype(int) - paper).sum(axis=-1).max() > 300


def test_of_a_long_text_the_strongest_lines_are_drawn_and_the_others_counted() -> None:
    words = tuple(f"word{number}" for number in range(500))
    scaled = np.full((2, 500), 0.01)
    scaled[1, 300] = -1.0
    text = TokenText.strongest(scaled, words, 100)
    shown = places_of(text)
    assert 300 in shown
    assert shown == list(range(text.n_before, 500 - text.n_after))
    assert min(text.n_before, text.n_after) > 0
    assert text.coloured(scaled[0]).image.shape[0] <= text_side(100) + text.size
    assert places_of(TokenText.strongest(np.zeros((1, 500)), words, 100))[0] == 0


def test_values_that_are_not_finite_are_counted_and_drawn() -> None:
    values = VALUES.copy()
    values[[1, 9]] = np.nan, np.inf
    picture = TokenText.strongest(values[None], WORDS, 200).coloured(values)
    assert picture.n_not_finite == 2
    assert (picture.image == pixels.NOT_FINITE).all(axis=-1).any()


@pytest.mark.parametrize("words", [("", "", ""), ("x" * 900, "", "猫"), (" ", "\n", "élève")])
def test_any_words_are_drawn(words: tuple[str, ...]) -> None:
    picture = TokenText.strongest(np.ones((1, 3)), words, 100).coloured(np.ones(3, np.float32))
    assert picture.image.shape[1] == text_side(100)
