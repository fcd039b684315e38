"""Volumes as slices, read back as pixels."""

import numpy as np
import pytest

from hvd_xai.probe.facts import ProbeFacts
from hvd_xai.views import pixels
from hvd_xai.views.kind import Fit, find_kind, load_kind
from hvd_xai.views.kinds import volume
from hvd_xai.views.kinds.volume import Slices
from hvd_xai.views.samples import Panel, Sample

SHAPE = (16, 20, 24)


def make_sample(attributions: np.ndarray, *, inputs: bool = True, channels: int = 0) -> Sample:
    shape = (*SHAPE, channels) if channels else SHAPE
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
    grey = np.broadcast_to(np.linspace(0, 1, SHAPE[0])[:, None, None], SHAPE).astype(np.float32)
    values = np.repeat(grey[..., None], channels, axis=-1) if channels else grey
    facts = ProbeFacts(shape, np.dtype(np.float32))
    return Sample(7, 1, 1, (panel,), values if inputs else None, facts)


def arrange(sample: Sample) -> Slices:
    slices = volume.arrange(sample, 200)
    assert isinstance(slices, Slices)
    return slices


def blob(at: tuple[int, int, int]) -> np.ndarray:
    values = np.zeros(SHAPE, np.float32)
    values[at] = 1.0
    return values


@pytest.mark.parametrize(
    ("shape", "fit"),
    [
        ((16, 64, 64), Fit.SHAPE),
        ((4, 64, 64, 2), Fit.SHAPE),
        ((64, 64, 3), Fit.NONE),
        ((3, 64, 64), Fit.NONE),
        ((64, 64, 8), Fit.NONE),
    ],
)
def test_volumes_have_three_axes_of_places(shape: tuple[int, ...], fit: Fit) -> None:
    facts = ProbeFacts(shape, np.dtype(np.float32))
    assert volume.fits(facts) == fit
    assert (find_kind(facts) is load_kind("volume")) == (fit == Fit.SHAPE)


def test_the_strongest_slice_of_each_axis_is_drawn_and_its_neighbours_are_not() -> None:
    values = blob((5, 9, 13))
    values[6, 10, 14] = 0.9
    values[12, 3, 20] = -0.5
    chosen = arrange(make_sample(values)).chosen
    assert chosen == ((0, 5), (0, 12), (1, 3), (1, 9), (2, 13), (2, 20))


def test_a_slice_is_red_where_the_score_is_raised_and_z_runs_upwards() -> None:
    sample = make_sample(blob((12, 9, 13)), inputs=False)
    image = arrange(sample).picture(sample.panels[0]).image
    red = (image == pixels.diverging(np.ones(1), 1.0)[0]).all(axis=-1)
    # cells of 133 pixels: the slice across z is 133 * 20 / 24 high, and its labels are 16
    of_z, of_y = red[: 16 + 111], red[16 + 111 + 4 :]
    rows = np.flatnonzero(of_z.any(axis=1)) - 16
    assert rows.mean() == pytest.approx((9 + 0.5) * 111 / 20, abs=3)
    rows = np.flatnonzero(of_y[: 16 + 89].any(axis=1)) - 16
    assert rows.mean() == pytest.approx((16 - 12 - 0.5) * 89 / 16, abs=4)


def test_a_coarse_map_lies_over_the_slices_of_the_input() -> None:
    coarse = np.zeros((4, 5, 6), np.float32)
    coarse[1, 2, 3] = 1.0
    slices = arrange(make_sample(coarse))
    assert all(index * 4 // SHAPE[0] == 1 for axis, index in slices.chosen[:1] if axis == 0)
    picture = slices.picture(slices.sample.panels[0])
    shown = slices.input_picture()
    assert shown is not None
    assert picture.image.shape == shown.image.shape


def test_channels_are_summed_and_a_volume_without_inputs_is_drawn() -> None:
    values = np.stack([blob((5, 9, 13)), -blob((5, 9, 13))], axis=-1)
    sample = make_sample(values, channels=2, inputs=False)
    slices = arrange(sample)
    assert slices.caption == ""
    image = slices.picture(sample.panels[0]).image
    assert not (image == pixels.diverging(np.ones(1), 1.0)[0]).all(axis=-1).any()


def test_the_strongest_slices_are_told_by_axis_and_index() -> None:
    sample = make_sample(blob((5, 9, 13)))
    told = volume.strongest(sample, 3)
    assert told is not None
    assert [part.name for part in told.parts] == ["z = 5", "y = 9", "x = 13"]
    assert all(part.attributions == (1.0,) for part in told.parts)
    assert volume.strongest(make_sample(np.zeros((4, 5, 6), np.float32)), 3) is None
