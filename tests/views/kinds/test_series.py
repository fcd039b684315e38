"""Vectors as bars and series as maps, read back as pixels."""

from dataclasses import replace

import numpy as np
import pytest

from hvd_xai.probe.facts import ProbeFacts
from hvd_xai.views import pixels
from hvd_xai.views.arrays import draw_alone
from hvd_xai.views.kind import Fit
from hvd_xai.views.kinds import series
from hvd_xai.views.samples import Panel, Sample

SHAPE = (10, 2)
FULL = pixels.diverging(np.ones(1), 1.0)[0]


def make_sample(attributions: np.ndarray, shape: tuple[int, ...] = SHAPE) -> Sample:
    is_own = attributions.shape == shape
    panel = Panel(
        "saliency",
        0,
        attributions,
        1,
        0.9,
        attributed_to="inputs" if is_own else "places",
        is_signed=True,
    )
    values = np.linspace(0, 1, int(np.prod(shape))).reshape(shape)
    return Sample(7, 1, 1, (panel,), values, ProbeFacts(shape, np.dtype(np.float32)))


@pytest.mark.parametrize(
    ("shape", "fit"),
    [((), Fit.SHAPE), ((5,), Fit.SHAPE), ((40, 3), Fit.SHAPE), ((8, 8, 1), Fit.NONE)],
)
def test_vectors_and_series_have_up_to_two_axes(shape: tuple[int, ...], fit: Fit) -> None:
    assert series.fits(ProbeFacts(shape, np.dtype(np.float32))) == fit


def test_steps_run_downwards() -> None:
    attributions = np.zeros(SHAPE, np.float32)
    attributions[7] = 1.0
    sample = make_sample(attributions)
    image = series.draw(sample.panels[0], sample, 100, 1.0).image
    is_full = (image == FULL).all(axis=-1)
    step = len(image) // SHAPE[0]
    assert np.flatnonzero(is_full.any(axis=1)).tolist() == list(range(7 * step, 8 * step))


def test_attributions_of_steps_alone_are_laid_over_the_series() -> None:
    sample = make_sample(np.zeros(5, np.float32))
    image = series.draw(sample.panels[0], sample, 100, 1.0).image
    own = series.draw(make_sample(np.zeros(SHAPE, np.float32)).panels[0], sample, 100, 1.0).image
    assert image.shape == own.shape
    # the series shows through: it is darkest at its first step
    assert int(image[0, 0].sum()) < int(image[-1, -1].sum())


@pytest.mark.parametrize("shape", [(5,), (10,), (10, 4)])
def test_units_of_a_layer_are_no_steps(shape: tuple[int, ...]) -> None:
    units = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    panel = Panel("units", 0, units, 1, 0.9, attributed_to="units", is_signed=True)
    sample = replace(make_sample(np.zeros(SHAPE, np.float32)), panels=(panel,))
    drawn = series.draw(panel, sample, 100)
    alone = draw_alone(panel, sample, 100)
    np.testing.assert_array_equal(drawn.image, alone.image)
    assert drawn.has_bars == (len(shape) == 1)


def test_a_vector_becomes_bars() -> None:
    sample = make_sample(np.array([1.0, 0.0, -1.0, 0.5], np.float32), (4,))
    image = series.draw(sample.panels[0], sample, 100, 1.0).image
    assert (image == FULL).all(axis=-1).any()
    assert (image == pixels.diverging(-np.ones(1), 1.0)[0]).all(axis=-1).any()


def test_steps_have_no_words() -> None:
    assert series.strongest(make_sample(np.ones(SHAPE, np.float32)), 3) is None
