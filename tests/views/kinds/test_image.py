"""Images and the maps that are laid over them, read back as pixels."""

import numpy as np
import pytest

from hvd_xai.probe.facts import ProbeFacts
from hvd_xai.protocols import Channels
from hvd_xai.views import pixels
from hvd_xai.views.kind import Fit
from hvd_xai.views.kinds import image
from hvd_xai.views.samples import Panel, Sample

FACTS = [
    ProbeFacts((28, 28), np.dtype("f4"), channels="none"),
    ProbeFacts((14, 14, 12), np.dtype("f4"), channels="last"),
]
SHAPE = (8, 8, 1)
FULL = pixels.diverging(np.ones(1), 1.0)[0]


def make_sample(attributions: np.ndarray, *, inputs: bool = True) -> Sample:
    is_own = attributions.shape == SHAPE
    panel = Panel(
        "saliency", 0, attributions, 1, 0.9, attributed_to="inputs" if is_own else "places"
    )
    values = np.linspace(0, 1, 64).reshape(SHAPE) if inputs else None
    return Sample(7, 1, 1, (panel,), values, ProbeFacts(SHAPE, np.dtype(np.float32)))


@pytest.mark.parametrize(
    ("shape", "fit"),
    [
        ((8, 8, 1), Fit.SHAPE),
        ((20, 24, 3), Fit.SHAPE),
        ((4, 20, 24), Fit.SHAPE),
        ((8, 8, 7), Fit.ANYTHING),
        ((5,), Fit.ANYTHING),
    ],
)
def test_images_have_1_3_or_4_channels_and_other_arrays_are_drawn_in_need(
    shape: tuple[int, ...], fit: Fit
) -> None:
    assert image.fits(ProbeFacts(shape, np.dtype(np.float32))) == fit


@pytest.mark.parametrize(
    ("shape", "channels", "fit"),
    [
        ((8, 8, 12), "last", Fit.SHAPE),
        ((28, 28), "none", Fit.LENGTHS),
        ((28, 28), "last", Fit.ANYTHING),
        ((3, 20, 24), "none", Fit.ANYTHING),
    ],
)
def test_what_the_model_says_of_channels_goes_before_the_shape(
    shape: tuple[int, ...], channels: Channels, fit: Fit
) -> None:
    facts = ProbeFacts(shape, np.dtype(np.float32), channels=channels)
    assert image.fits(facts) == fit


def test_attributions_of_pixels_are_drawn_by_themselves() -> None:
    attributions = np.zeros(SHAPE, np.float32)
    attributions[2, 5] = 1.0
    sample = make_sample(attributions)
    picture = image.draw(sample.panels[0], sample, 80, 1.0)
    rows, columns = np.nonzero((picture.image == FULL).all(axis=-1))
    assert (rows // 10 == 2).all()
    assert (columns // 10 == 5).all()
    assert len(rows) == 100
    # zero is white, whatever the image shows there
    assert (picture.image[0, 0] == 255).all()


def test_a_coarser_map_is_laid_over_the_image() -> None:
    sample = make_sample(np.zeros((4, 4), np.float32))
    picture = image.draw(sample.panels[0], sample, 80, 1.0).image
    # the image shows through: it is darkest where it starts
    assert int(picture[0, 0].sum()) < int(picture[-1, -1].sum())


def test_a_map_without_its_image_is_drawn_by_itself() -> None:
    sample = make_sample(np.zeros((4, 4), np.float32), inputs=False)
    picture = image.draw(sample.panels[0], sample, 80, 1.0).image
    assert (picture == picture[0, 0]).all()


def test_units_of_a_layer_are_bars() -> None:
    sample = make_sample(np.array([1.0, 0.0, -1.0], np.float32))
    picture = image.draw(sample.panels[0], sample, 80, 1.0).image
    assert (picture == FULL).all(axis=-1).any()
    assert (picture == pixels.diverging(-np.ones(1), 1.0)[0]).all(axis=-1).any()


def test_pixels_have_no_words() -> None:
    assert image.strongest(make_sample(np.ones(SHAPE, np.float32)), 3) is None
