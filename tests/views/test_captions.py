"""Captions say in words what a picture shows."""

import numpy as np

from hvd_xai.views import captions
from hvd_xai.views.pixels import Picture
from hvd_xai.views.samples import Panel
from tests.views.samples_under_test import make_sample

IMAGE = np.zeros((9, 300, 3), np.uint8)


def test_a_sample_is_told_with_the_models_verdict() -> None:
    sample = make_sample(prediction=3, target=3)
    known, said = captions.describe_sample(sample, ("a", "b", "c", "cat"), sample.panels[0])
    assert known.text == "label 3 'cat' · target 3 'cat' · score 0.9"
    assert (said.text, said.colour) == ("prediction 3 'cat' (right)", captions.RIGHT)
    wrong = make_sample(prediction=2, target=3)
    *_, said = captions.describe_sample(wrong, (), wrong.panels[0])
    assert (said.text, said.colour) == ("prediction 2 (wrong)", captions.WRONG)
    assert len(captions.describe_sample(wrong, (), None)) == 1


def test_what_is_not_finite_and_what_is_missing_is_told_below_a_picture() -> None:
    panel = Panel("integrated_gradients", 0, np.zeros(3, np.float32), 1, 1.0, 0.25)
    tile = captions.caption_panel(panel, Picture(IMAGE, n_not_finite=2), ["integrated_gradients"])
    assert [line.text for line in tile.below] == ["convergence delta 0.25", "2 values not finite"]
    assert tile.below[-1].colour == captions.WRONG


def test_the_legend_explains_only_colours_that_are_shown() -> None:
    bars = Picture(IMAGE, "diverging", has_bars=True)
    (line,) = captions.explain_colours([Picture(IMAGE), bars], "there")
    assert line.text == "Red raises the score, blue lowers it."
    (line,) = captions.explain_colours([Picture(IMAGE, "sequential", n_not_finite=1)], "there")
    assert line.text == (
        "Violet to yellow: importance, from 0 to the most. Colours end at there. Green: not finite."
    )


def test_the_legend_tells_the_window_of_the_inputs_and_when_it_clips() -> None:
    shown = [Picture(IMAGE, window=(-160.0, 240.0), clipped=share) for share in (0.0, 0.031)]
    (line,) = captions.explain_colours(shown[:1], "there")
    assert line.text == "Inputs: -160 is black, 240 is white."
    (line,) = captions.explain_colours(shown, "there")
    assert line.text == (
        "Inputs: -160 is black, 240 is white; values beyond are clipped: up to 3.1 % of a picture."
    )
    bars = Picture(IMAGE, limit=10.0, has_bars=True, window=(-10.0, 5.0))
    (line,) = captions.explain_colours([bars], "there")
    assert line.text == "Inputs: the longest bars are 10."
