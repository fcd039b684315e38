"""Inputs and attributions of any shape as pictures."""

import numpy as np
import pytest

from hvd_xai.views import arrays, pixels
from hvd_xai.views.kind import load_kind
from hvd_xai.views.samples import Panel, Sample

GREEN = np.array(pixels.NOT_FINITE, np.uint8)


def whiteness(colours: np.ndarray) -> np.ndarray:
    return np.asarray(colours.astype(int).min(axis=-1))


def draw(
    attributions: np.ndarray,
    inputs: np.ndarray | None,
    size: int,
    *,
    limit: float | None = None,
    signed: bool | None = None,
) -> pixels.Picture:
    """Draws attributions as series or images are drawn."""
    panel = Panel("saliency", 0, attributions, 1, 1.0, is_signed=signed)
    sample = Sample(0, 1, 1, (panel,), inputs)
    kind = load_kind("series" if len(sample.known.shape) <= 2 else "image")
    return kind.arrange(sample, size).picture(panel, limit)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (np.array([[0, 255]], np.uint8), [0, 255]),
        (np.array([[0, 51]], np.uint8), [0, 51]),
        (np.array([[0.0, 0.5]], np.float32), [0, 255]),
        (np.array([[0.0, 16.0]], np.float32), [0, 255]),
        (np.array([[-2.0, 2.0]], np.float32), [0, 255]),
        (np.array([[-3e38, 3e38]], np.float32), [0, 255]),
        (np.array([[5.0e3, 5.0e3]], np.float32), [0, 0]),
    ],
)
def test_inputs_are_spread_over_grey(inputs: np.ndarray, expected: list[int]) -> None:
    image = arrays.picture(inputs, 2).image
    assert [int(image[0, column, 0]) for column in (0, -1)] == expected


def test_a_window_is_drawn_from_black_to_white_and_what_lies_beyond_is_counted() -> None:
    scan = np.array([[-1000.0, -160.0, 40.0, 240.0]], np.float32)
    shown = arrays.picture(scan, 4, (-160.0, 240.0))
    assert shown.image[0, :, 0].tolist() == [0, 0, 128, 255]
    assert (shown.window, shown.clipped) == ((-160.0, 240.0), 0.25)


def test_bars_of_inputs_share_the_length_of_the_probe() -> None:
    low, high = (
        arrays.picture(np.array([value, 0.0], np.float32), 80, (-10.0, 5.0)).image
        for value in (5.0, 10.0)
    )
    heights = [int((image[:, 2] == 70).all(axis=-1).sum()) for image in (low, high)]
    assert heights[1] == 2 * heights[0]


@pytest.mark.parametrize(
    "shape", [(8, 8), (8, 8, 1), (8, 8, 3), (8, 8, 4), (8, 8, 7), (2, 8, 8, 3)]
)
def test_inputs_of_any_image_shape_become_a_picture(shape: tuple[int, ...]) -> None:
    assert arrays.picture(np.random.default_rng(0).random(shape), 80).image.shape == (80, 80, 3)


def test_colour_inputs_keep_their_colours() -> None:
    inputs = np.zeros((2, 2, 3), np.uint8)
    inputs[..., 1] = 200
    assert arrays.picture(inputs, 2).image[0, 0].tolist() == [0, 200, 0]


@pytest.mark.parametrize("n_channels", [1, 3])
def test_channels_may_come_first(n_channels: int) -> None:
    generator = np.random.default_rng(0)
    inputs, attributions = (
        generator.random((8, 9, n_channels)),
        generator.normal(size=(8, 9, n_channels)),
    )
    coarse = generator.random((3, 4))
    first = inputs.transpose(2, 0, 1)
    np.testing.assert_array_equal(arrays.picture(first, 72).image, arrays.picture(inputs, 72).image)
    for of_first, of_last in ((attributions.transpose(2, 0, 1), attributions), (coarse, coarse)):
        got, want = draw(of_first, first, 72), draw(of_last, inputs, 72)
        assert (got.scale, got.limit) == (want.scale, want.limit)
        np.testing.assert_array_equal(got.image, want.image)


def test_a_vector_is_laid_over_a_series_and_not_over_an_image() -> None:
    values = np.array([0.0, 1.0], np.float32)
    over_series = draw(values, np.zeros((8, 2), np.float32), 80)
    beside_image = draw(values, np.zeros((8, 8, 1), np.float32), 80)
    assert over_series.scale == "sequential"
    # bars
    np.testing.assert_array_equal(
        beside_image.image, draw(values, np.zeros(2, np.float32), 80).image
    )


@pytest.mark.parametrize(
    ("attributions", "inputs"),
    [((5,), (20, 2)), ((4, 4), (8, 8)), ((4, 4), (8, 8, 3)), ((2, 4, 4), (4, 8, 8, 1))],
)
def test_maps_of_every_rank_show_where_they_are_strong_and_of_which_sign(
    attributions: tuple[int, ...], inputs: tuple[int, ...]
) -> None:
    values = np.zeros(attributions, np.float32)
    values[..., -1] = 1.0
    unsigned = draw(values, np.zeros(inputs, np.float32), 80)
    signed = draw(-values, np.zeros(inputs, np.float32), 80)
    assert (unsigned.scale, signed.scale) == ("sequential", "diverging")
    assert unsigned.limit == signed.limit
    red, green, blue = unsigned.image[-1, -1].astype(int)
    assert min(red, green) > blue + 100  # yellow
    assert signed.image[-1, -1, 2] > signed.image[-1, -1, 0]
    for shown in (unsigned, signed):
        assert len(set(shown.image[0, 0].tolist())) == 1  # the input in grey


@pytest.mark.parametrize(
    ("attributions", "inputs", "scale"),
    [
        ((8, 8, 1), (8, 8, 1), "diverging"),
        ((3, 3), (8, 8, 1), "sequential"),
        ((8, 8), (8, 8, 1), "sequential"),
        ((13,), (13,), "diverging"),
        ((4,), (16, 3), "sequential"),
        ((), (), "diverging"),
        ((2, 2, 2), (4, 8, 8, 1), "sequential"),
        ((3, 3), None, "sequential"),
    ],
)
def test_scale_follows_from_what_is_attributed(
    attributions: tuple[int, ...], inputs: tuple[int, ...] | None, scale: str
) -> None:
    shown = draw(
        np.full(attributions, 0.5, np.float32),
        None if inputs is None else np.ones(inputs, np.float32),
        64,
    )
    assert shown.scale == scale
    assert shown.image.shape[-1] == 3


@pytest.mark.parametrize(
    ("attributions", "inputs"),
    [
        ((8, 8, 1), (8, 8, 1)),
        ((3, 3), (8, 8, 1)),
        ((13,), (13,)),
        ((4,), (16, 3)),
        ((), ()),
        ((3, 3), None),
    ],
)
@pytest.mark.parametrize(("signed", "scale"), [(True, "diverging"), (False, "sequential")])
def test_scale_is_that_of_the_method_where_it_is_known(
    attributions: tuple[int, ...], inputs: tuple[int, ...] | None, signed: bool, scale: str
) -> None:
    values, shown = (
        np.full(attributions, 0.5, np.float32),
        None if inputs is None else np.ones(inputs, np.float32),
    )
    assert draw(values, shown, 64, signed=signed).scale == scale


def test_negative_values_of_a_coarse_map_are_shown_as_negative() -> None:
    shown = draw(np.array([[-1.0, 1.0]], np.float32), np.zeros((8, 8, 1), np.float32), 80)
    assert shown.scale == "diverging"
    assert shown.image[40, 0, 2] > shown.image[40, 0, 0]
    assert shown.image[40, -1, 0] > shown.image[40, -1, 2]


def test_channels_are_summed_so_that_opposite_ones_cancel() -> None:
    attributions = np.stack([np.ones((4, 4)), -np.ones((4, 4))], axis=-1).astype(np.float32)
    np.testing.assert_array_equal(arrays.flatten(attributions, channels=True), np.zeros((4, 4)))


def test_the_largest_bar_reaches_the_end_of_the_scale() -> None:
    values = np.array([0.1, -0.4, 0.2], np.float32)
    shown = draw(values, np.zeros(3, np.float32), 60)
    assert (shown.has_bars, shown.limit) == (True, float(values[1] * -1))
    assert not draw(np.ones((4, 4, 1), np.float32), np.zeros((4, 4, 1), np.float32), 60).has_bars


def test_not_finite_attributions_are_counted_and_seen() -> None:
    attributions = np.zeros((4, 4), np.float32)
    attributions[0, 0], attributions[3, 3] = np.nan, np.inf
    shown = draw(attributions, np.zeros((4, 4), np.float32), 4)
    assert shown.n_not_finite == 2
    assert shown.image[0, 0].tolist() == shown.image[3, 3].tolist() == GREEN.tolist()
    bars = draw(np.array([np.nan, np.inf, 1.0], np.float32), None, 60)
    assert (bars.image == GREEN).all(axis=-1).any()


def test_one_limit_makes_pictures_comparable() -> None:
    weak, strong = np.full((2, 2), 0.1, np.float32), np.full((2, 2), 1.0, np.float32)
    shown = [
        draw(values, np.ones((2, 2), np.float32), 2, limit=1.0).image for values in (weak, strong)
    ]
    assert whiteness(shown[0]).min() > whiteness(shown[1]).max()
