"""Colours mean what they say, whatever the values."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hvd_xai.views import arrays, pixels

GREEN = np.array(pixels.NOT_FINITE, np.uint8)
FLOAT32_ROUNDING = 1e-5
any_floats = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=1, max_dims=3, max_side=6), elements=st.floats(width=32)
)


def whiteness(colours: np.ndarray) -> np.ndarray:
    return np.asarray(colours.astype(int).min(axis=-1))


def test_zero_is_white_and_the_ends_are_blue_and_red() -> None:
    colours = pixels.diverging(np.array([-1.0, 0.0, 1.0], np.float32), 1.0)
    assert colours[1].tolist() == [255, 255, 255]
    assert colours[0][2] > 150 > colours[0][0]
    assert colours[2][0] > 150 > colours[2][2]


@pytest.mark.parametrize("sign", [-1, 1])
def test_diverging_is_monotone_in_magnitude_on_both_sides(sign: int) -> None:
    colours = pixels.diverging(sign * np.linspace(0, 2, 500, dtype=np.float32), 1.0)
    assert np.all(np.diff(whiteness(colours)) <= 0)
    assert whiteness(colours)[-1] < 40


def test_sequential_is_monotone_in_lightness() -> None:
    lightness = pixels.sequential(np.linspace(0, 1, 200, dtype=np.float32), 1.0) @ np.array(
        [0.299, 0.587, 0.114]
    )
    assert np.all(np.diff(lightness) >= -0.6), "rounding to bytes alone may lower it"


def test_overlay_covers_the_input_the_more_the_stronger_the_map_is() -> None:
    image = np.full((1, 64, 3), 90, np.uint8)
    covered = pixels.overlay(image, np.linspace(0, 1, 64, dtype=np.float32)[None], 1.0)
    grey = round(0.15 * 255 + 0.7 * 90)
    np.testing.assert_allclose(covered[0, 0], grey, atol=1)
    assert np.all(
        np.diff((covered.astype(int).max(axis=-1) - covered.astype(int).min(axis=-1))[0, ::8]) > 0
    )


@given(any_floats, st.floats(1e-30, 1e30))
def test_any_value_gets_a_colour_without_a_warning_and_only_what_is_not_finite_is_green(
    values: np.ndarray, limit: float
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for colours in (pixels.diverging(values, limit), pixels.sequential(values, limit)):
            assert colours.shape == (*values.shape, 3)
            assert colours.dtype == np.uint8
            np.testing.assert_array_equal((colours == GREEN).all(axis=-1), ~np.isfinite(values))


def test_values_beyond_the_limit_do_not_wrap() -> None:
    beyond = pixels.diverging(np.array([1.0, 50.0, 1e30], np.float32), 1.0)
    assert np.all(beyond == beyond[0])
    bright = arrays.picture(np.array([[0.0, 1.0], [2.0, 300.0]], np.float32), 2).image
    assert bright[1, 1].tolist() == [255, 255, 255]


def test_limit_ignores_outliers_and_is_never_zero() -> None:
    values = np.concatenate([np.full(999, 0.5), [1e6]]).astype(np.float32)
    assert pixels.robust_limit(values) == 0.5
    assert pixels.robust_limit(np.zeros((3, 3), np.float32)) == 1.0
    assert pixels.robust_limit(np.full(3, np.nan, np.float32)) == 1.0
    one_bright_pixel = np.zeros(1000, np.float32)
    one_bright_pixel[7] = 3.0
    assert pixels.robust_limit(one_bright_pixel) == 3.0


def test_limit_is_symmetric() -> None:
    values = np.random.default_rng(0).normal(size=100).astype(np.float32)
    assert pixels.robust_limit(values) == pixels.robust_limit(-values)


def test_resize_of_a_plane_is_that_plane() -> None:
    plane = (np.arange(4)[:, None] + 10 * np.arange(6)[None]).astype(np.float32)
    resized = pixels.resize(plane, 8, 12)
    inner_rows, inner_columns = (np.arange(8) + 0.5) / 2 - 0.5, (np.arange(12) + 0.5) / 2 - 0.5
    expected = inner_rows[:, None] + 10 * inner_columns[None]
    np.testing.assert_allclose(resized[1:-1, 1:-1], expected[1:-1, 1:-1], atol=FLOAT32_ROUNDING)
    np.testing.assert_allclose(pixels.resize(plane, 4, 6), plane, atol=FLOAT32_ROUNDING)


def test_resize_keeps_what_is_not_finite_in_its_neighbourhood() -> None:
    values = np.zeros((4, 4), np.float32)
    values[0, 0] = np.inf
    resized = pixels.resize(values, 16, 16)
    assert not np.isfinite(resized[0, 0])
    assert np.isfinite(resized[8:, 8:]).all()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((8, 8), (200, 200)),
        ((28, 28), (196, 196)),
        ((224, 224), (224, 224)),
        ((600, 450), (200, 150)),
    ],
)
def test_pictures_come_near_the_size_asked_for(
    shape: tuple[int, ...], expected: tuple[int, int]
) -> None:
    assert pixels.fit(np.zeros((*shape, 3), np.uint8), 200).shape[:2] == expected


def test_enlarging_keeps_pixels_flat_squares() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    large = pixels.fit(image, 200)
    np.testing.assert_array_equal(large[::25, ::25], image)
    np.testing.assert_array_equal(large[24::25, 24::25], image)


def test_a_thread_is_stretched_to_a_strip() -> None:
    assert pixels.fit(np.zeros((200, 2, 3), np.uint8), 200).shape[1] >= 50


def test_a_signed_map_over_a_dark_input_has_the_hue_of_its_sign_and_no_white_haze() -> None:
    dark = np.zeros((1, 2, 3), np.uint8)
    shown = pixels.overlay(dark, np.array([[-0.2, 0.2]], np.float32), 1.0, signed=True)
    blue, red = shown[0].astype(int)
    assert blue[2] > blue[0] + 10
    assert red[0] > red[2] + 10
    # zero shows the input as it is: no line where the sign changes
    zero = pixels.overlay(dark, np.zeros((1, 2), np.float32), 1.0, signed=True)[0, 0].astype(int)
    assert np.abs(red - zero).max() <= 40
