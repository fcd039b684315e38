"""Explanations that mean little are drawn empty, with the words."""

from dataclasses import replace

import numpy as np
import pytest

from hvd_xai.protocols import ScoreFacts
from hvd_xai.views import doubtful, pixels
from hvd_xai.views.captions import WRONG
from hvd_xai.views.contact_sheet import contact_sheet
from hvd_xai.views.kind import find_kind
from hvd_xai.views.samples import Panel, Sample
from hvd_xai.views.strip import strip
from tests.views.samples_under_test import has_colour

NAVY, YELLOW = (tuple(pixels.sequential(np.array([value]), 1.0)[0].tolist()) for value in (0, 1))


def make_sample(
    *strengths: float, shape: tuple[int, ...] = (8, 8, 1), score: float = 1.0
) -> Sample:
    values = np.random.default_rng(0).random(shape).astype(np.float32)
    panels = tuple(
        Panel(
            "saliency",
            epoch,
            strength * values,
            1,
            score,
            attributed_to="inputs",
            is_signed=False,
            score_facts=ScoreFacts("probability", "target"),
        )
        for epoch, strength in enumerate(strengths)
    )
    return Sample(7, 1, 1, panels, np.ones(shape, np.float32))


@pytest.mark.parametrize("strength", [0.0, 1e-13])
@pytest.mark.parametrize("shape", [(8, 8, 1), (5,), (12, 3), (12, 12, 12)])
def test_nothing_is_drawn_without_colours_and_their_scale(
    strength: float, shape: tuple[int, ...]
) -> None:
    sample = make_sample(strength, shape=shape)
    arranged = find_kind(sample.known).arrange(sample, 80)
    shown = doubtful.draw(arranged, sample.panels[0], sample)
    assert shown.scale == "none"
    # grey or white alone
    assert (shown.image.max(axis=-1) == shown.image.min(axis=-1)).all()
    assert shown.image.shape == arranged.picture(sample.panels[0]).image.shape


def test_an_epoch_with_nothing_leaves_the_scale_of_the_others() -> None:
    sample = make_sample(0.0, 1e-3)
    arranged = find_kind(sample.known).arrange(sample, 80)
    limit = doubtful.shared_limit(arranged, sample.panels, sample)
    assert limit == arranged.picture(sample.panels[1]).limit
    assert has_colour(strip(sample), YELLOW)
    shown = doubtful.draw(arranged, sample.panels[0], sample, limit)
    assert not has_colour(shown.image, NAVY)


def test_the_words_stand_in_strips_and_sheets() -> None:
    plain, nothing = make_sample(0.5, score=0.5), make_sample(0.0, score=0.5)
    for draw in (strip, lambda sample: contact_sheet([sample])):
        assert not has_colour(draw(plain), WRONG)
        assert has_colour(draw(nothing), WRONG)


def test_each_doubt_is_told_in_words() -> None:
    sample = make_sample(1e-13)
    (nothing, saturated) = doubtful.find_doubts(sample.panels[0], sample).lines
    assert nothing.startswith("attributions below float rounding, 1e-13")
    assert saturated == "the probability is saturated: explain score='logit'"
    values = np.array([0.8, 0.2], np.float32)
    panel = replace(sample.panels[0], attributions=values, convergence_delta=0.25)
    assert doubtful.find_doubts(panel, sample).lines == ["misses 33 % of the score's gain"]
