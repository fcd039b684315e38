"""Texts as coloured words."""

import numpy as np
import pytest

from hvd_xai.probe.facts import ProbeFacts
from hvd_xai.views import pixels
from hvd_xai.views.kind import Fit
from hvd_xai.views.kinds import text as kind
from hvd_xai.views.kinds.text import TokenText, read_words
from hvd_xai.views.samples import Panel, Sample

WORDS = ("a", "wonderful", "film", "of", "[UNK]", "", "and", "others", "", "")
VALUES = np.array([0.1, 1.0, -0.5, 0.2, -1.0, 9.0, 0.0, 0.3, 0.0, 7.0], np.float32)


def make_sample(
    *attributions: np.ndarray, words: tuple[str, ...] = WORDS, signed: bool | None = None
) -> Sample:
    facts = ProbeFacts((len(words),), np.dtype(np.int64), vocabulary=words)
    panels = tuple(
        Panel(f"method_{place}", 0, values, 1, 1.0, attributed_to="inputs", is_signed=signed)
        for place, values in enumerate(attributions)
    )
    return Sample(0, 1, 1, panels, np.arange(len(words)), facts)


def arrange(sample: Sample, size: int) -> TokenText:
    lines = kind.arrange(sample, size)
    assert isinstance(lines, TokenText)
    return lines


def test_token_ids_with_a_vocabulary_are_texts() -> None:
    assert kind.fits(ProbeFacts((5,), np.dtype("i4"), vocabulary=("", "a"))) == Fit.NAMES
    assert kind.fits(ProbeFacts((5,), np.dtype("i4"))) == Fit.NONE


def test_what_is_not_attributed_to_the_tokens_has_no_words() -> None:
    panel = Panel("units", 0, VALUES, 1, 1.0, attributed_to="units")
    facts = ProbeFacts((10,), np.dtype(np.int64), vocabulary=WORDS)
    sample = Sample(0, 1, 1, (panel,), np.arange(10), facts)
    assert not kind.arrange(sample, 100).is_wide
    assert kind.strongest(sample, 3) is None


def test_the_strongest_words_are_told_with_their_positions_and_no_padding() -> None:
    told = kind.strongest(make_sample(VALUES), 3)
    assert told is not None
    assert [(part.name, part.beside) for part in told.parts] == [
        ("wonderful", "1"),
        ("[UNK]", "4"),
        ("film", "2"),
    ]
    assert told.others is not None
    assert told.others.name == "7 other tokens"
    tokens = told.record["tokens"]
    assert isinstance(tokens, list)
    assert tokens[0] == {"word": "wonderful", "position": 1, "attribution": 1.0}


def places_of(text: TokenText) -> list[int]:
    return [word.place for line in text.lines for word in line]


def test_a_text_is_its_words_in_order_without_padding() -> None:
    text = arrange(make_sample(VALUES), 100)
    assert places_of(text) == [0, 1, 2, 3, 4, 6, 7]
    assert (text.n_before, text.n_after) == (0, 0)
    assert [word.text for line in text.lines for word in line] == [word for word in WORDS if word]
    assert len(text.lines) > 1
    assert max(word.right for line in text.lines for word in line) < text.width == 200
    assert read_words(np.array([1.0, 0.0, 2.0], np.float32), ("", "one", "two")) == (
        "one",
        "",
        "two",
    )


@pytest.mark.parametrize("token", [3.0, -1.0, np.nan])
def test_a_token_without_a_word_is_told(token: float) -> None:
    with pytest.raises(ValueError, match=f"has 3 words, and none for token id {token}"):
        read_words(np.array([1.0, token], np.float32), ("", "one", "two"))


@pytest.mark.parametrize("signed", [True, False])
def test_each_word_stands_on_the_colour_of_its_attribution(signed: bool) -> None:
    sample = make_sample(VALUES, signed=signed)
    text = arrange(sample, 200)
    picture = text.picture(sample.panels[0])
    # padding does not count
    assert picture.limit == pytest.approx(pixels.robust_limit(VALUES[places_of(text)]))
    assert picture.scale == ("diverging" if signed else "sequential")
    colours = (pixels.diverging if signed else pixels.sequential)(VALUES, picture.limit)
    row_height = (picture.image.shape[0] - 2 * (text.letter_size // 3)) // len(text.lines)
    for row, line in enumerate(text.lines):
        for word in line:  # between the box's upper edge and the letters
            assert (
                picture.image[
                    text.letter_size // 3 + row * row_height + 2, (word.left + word.right) // 2
                ].tolist()
                == colours[word.place].tolist()
            )
    assert text.picture(sample.panels[0], 4.0).limit == 4.0


def test_letters_are_read_on_every_colour() -> None:
    for signed in (True, False):
        for value in np.linspace(-1, 1, 9, dtype=np.float32):
            sample = make_sample(np.array([value]), words=("word",), signed=signed)
            image = arrange(sample, 200).picture(sample.panels[0], 1.0).image
            paper = image[image.shape[0] // 2, 5].astype(int)
            assert np.abs(image[8:-8, 8:30].astype(int) - paper).sum(axis=-1).max() > 300


def test_of_a_long_text_the_strongest_lines_are_drawn_and_the_others_counted() -> None:
    words = tuple(f"word{number}" for number in range(500))
    scaled = np.full((2, 500), 0.01)
    scaled[:, 300] = 1.0, -1.0
    sample = make_sample(*scaled, words=words)
    text = arrange(sample, 100)
    shown = places_of(text)
    assert 300 in shown
    assert shown == list(range(text.n_before, 500 - text.n_after))
    assert min(text.n_before, text.n_after) > 0
    assert text.picture(sample.panels[0]).image.shape[0] <= 200 + text.letter_size
    assert places_of(arrange(make_sample(np.zeros(500), words=words), 100))[0] == 0


def test_values_that_are_not_finite_are_counted_and_drawn() -> None:
    values = VALUES.copy()
    values[[1, 9]] = np.nan, np.inf
    sample = make_sample(values)
    picture = arrange(sample, 200).picture(sample.panels[0])
    assert picture.n_not_finite == 2
    assert (picture.image == pixels.NOT_FINITE).all(axis=-1).any()


@pytest.mark.parametrize("words", [("", "", ""), ("x" * 900, "", "猫"), (" ", "\n", "élève")])
def test_any_words_are_drawn(words: tuple[str, ...]) -> None:
    sample = make_sample(np.ones(3, np.float32), words=words)
    assert arrange(sample, 100).picture(sample.panels[0]).image.shape[1] == 200
