"""Colours mean what they say, whatever the values."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hvd_xai.views import pixels

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
    bright = pixels.picture(np.array([[0.0, 1.0], [2.0, 300.0]], np.float32), 2).image
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


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (np.array([[0, 255]], np.uint8), [0, 255]),
        (np.array([[0.0, 0.5]], np.float32), [0, 128]),
        (np.array([[0.0, 51.0]], np.float32), [0, 51]),
        (np.array([[-2.0, 2.0]], np.float32), [0, 255]),
        (np.array([[-3e38, 3e38]], np.float32), [0, 255]),
        (np.array([[5.0e3, 5.0e3]], np.float32), [0, 0]),
    ],
)
def test_inputs_are_spread_over_grey(inputs: np.ndarray, expected: list[int]) -> None:
    image = pixels.picture(inputs, 2).image
    assert [int(image[0, column, 0]) for column in (0, -1)] == expected


@pytest.mark.parametrize(
    "shape", [(8, 8), (8, 8, 1), (8, 8, 3), (8, 8, 4), (8, 8, 7), (2, 8, 8, 3)]
)
def test_inputs_of_any_image_shape_become_a_picture(shape: tuple[int, ...]) -> None:
    assert pixels.picture(np.random.default_rng(0).random(shape), 80).image.shape == (80, 80, 3)


def test_colour_inputs_keep_their_colours() -> None:
    inputs = np.zeros((2, 2, 3), np.uint8)
    inputs[..., 1] = 200
    assert pixels.picture(inputs, 2).image[0, 0].tolist() == [0, 200, 0]


@pytest.mark.parametrize("n_channels", [1, 3])
def test_channels_may_come_first(n_channels: int) -> None:
    generator = np.random.default_rng(0)
    inputs, attributions = (
        generator.random((8, 9, n_channels)),
        generator.normal(size=(8, 9, n_channels)),
    )
    coarse = generator.random((3, 4))
    first = inputs.transpose(2, 0, 1)
    np.testing.assert_array_equal(pixels.picture(first, 72).image, pixels.picture(inputs, 72).image)
    for of_first, of_last in ((attributions.transpose(2, 0, 1), attributions), (coarse, coarse)):
        got, want = pixels.attributed(of_first, first, 72), pixels.attributed(of_last, inputs, 72)
        assert (got.scale, got.limit) == (want.scale, want.limit)
        np.testing.assert_array_equal(got.image, want.image)


def test_a_vector_is_laid_over_a_series_and_not_over_an_image() -> None:
    values = np.array([0.0, 1.0], np.float32)
    over_series = pixels.attributed(values, np.zeros((8, 2), np.float32), 80)
    beside_image = pixels.attributed(values, np.zeros((8, 8, 1), np.float32), 80)
    assert over_series.scale == "sequential"
    # bars
    np.testing.assert_array_equal(
        beside_image.image, pixels.attributed(values, np.zeros(2, np.float32), 80).image
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
    unsigned = pixels.attributed(values, np.zeros(inputs, np.float32), 80)
    signed = pixels.attributed(-values, np.zeros(inputs, np.float32), 80)
    assert (unsigned.scale, signed.scale) == ("sequential", "diverging")
    assert unsigned.limit == signed.limit
    red, green, blue = unsigned.image[-1, -1].astype(int)
    assert min(red, green) > blue + 100  # yellow
    assert signed.image[-1, -1, 2] > signed.image[-1, -1, 0]
    for shown in (unsigned, signed):
        assert len(set(shown.image[0, 0].tolist())) == 1  # the input in grey


@pytest.mark.parametrize(
    ("attributions", "inputs", "scale"),
    [((8, 8, 1), (8, 8, 1), "diverging"), ((3, 3), (8, 8, 1), "sequential"), ((8, 8), (8, 8, 1), "sequential"), ((13,), (13,), "diverging"),
     ((4,), (16, 3), "sequential"), ((), (), "diverging"), ((2, 2, 2), (4, 8, 8, 1), "sequential"), ((3, 3), None, "sequential")],
)  # fmt: skip
def test_scale_follows_from_what_is_attributed(
    attributions: tuple[int, ...], inputs: tuple[int, ...] | None, scale: str
) -> None:
    shown = pixels.attributed(
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
    assert pixels.attributed(values, shown, 64, signed=signed).scale == scale


def test_negative_values_of_a_coarse_map_are_shown_as_negative() -> None:
    shown = pixels.attributed(
        np.array([[-1.0, 1.0]], np.float32), np.zeros((8, 8, 1), np.float32), 80
    )
    assert shown.scale == "diverging"
    assert shown.image[40, 0, 2] > shown.image[40, 0, 0]
    assert shown.image[40, -1, 0] > shown.image[40, -1, 2]


def test_channels_are_summed_so_that_opposite_ones_cancel() -> None:
    attributions = np.stack([np.ones((4, 4)), -np.ones((4, 4))], axis=-1).astype(np.float32)
    np.testing.assert_array_equal(pixels.flat(attributions, channels=True), np.zeros((4, 4)))


def test_bars_go_up_in_red_and_down_in_blue() -> None:
    image = pixels.attributed(
        np.array([1.0, -1.0], np.float32), np.zeros(2, np.float32), 100, limit=1.0
    ).image
    middle = image.shape[0] // 2
    up, down = image[: middle // 2, 25], image[middle + middle // 2 :, 75]
    assert np.all(up[:, 0] > up[:, 2])
    assert np.all(down[:, 2] > down[:, 0])
    assert np.all(image[: middle // 2, 75] == 247)


def test_bars_without_sign_stand_on_the_ground_and_have_the_colours_of_the_scale() -> None:
    image = pixels.attributed(
        np.array([1.0, 0.5], np.float32), np.zeros(2, np.float32), 100, limit=1.0, signed=False
    ).image
    full, half = pixels.sequential(np.array([1.0, 0.5], np.float32), 1.0)
    ground = image.shape[0] - 1
    np.testing.assert_array_equal(image[:ground, 25], np.tile(full, (ground, 1)))
    np.testing.assert_array_equal(image[: ground // 2 - 1, 75], 247)
    np.testing.assert_array_equal(
        image[ground // 2 + 1 : ground, 75], np.tile(half, (ground // 2 - 1, 1))
    )


def test_the_largest_bar_reaches_the_end_of_the_scale() -> None:
    values = np.array([0.1, -0.4, 0.2], np.float32)
    shown = pixels.attributed(values, np.zeros(3, np.float32), 60)
    assert (shown.has_bars, shown.limit) == (True, float(values[1] * -1))
    assert not pixels.attributed(
        np.ones((4, 4, 1), np.float32), np.zeros((4, 4, 1), np.float32), 60
    ).has_bars


def test_a_peak_among_many_bars_is_not_lost() -> None:
    values = np.zeros(10_000, np.float32)
    values[1234] = 5.0
    image = pixels.attributed(values, np.zeros(10_000, np.float32), 200).image
    assert (image[5] != 247).any()


def test_not_finite_attributions_are_counted_and_seen() -> None:
    attributions = np.zeros((4, 4), np.float32)
    attributions[0, 0], attributions[3, 3] = np.nan, np.inf
    shown = pixels.attributed(attributions, np.zeros((4, 4), np.float32), 4)
    assert shown.n_not_finite == 2
    assert shown.image[0, 0].tolist() == shown.image[3, 3].tolist() == GREEN.tolist()
    bars = pixels.attributed(np.array([np.nan, np.inf, 1.0], np.float32), None, 60)
    assert (bars.image == GREEN).all(axis=-1).any()


def test_one_limit_makes_pictures_comparable() -> None:
    weak, strong = np.full((2, 2), 0.1, np.float32), np.full((2, 2), 1.0, np.float32)
    shown = [
        pixels.attributed(values, np.ones((2, 2), np.float32), 2, limit=1.0).image
        for values in (weak, strong)
    ]
    assert whiteness(shown[0]).min() > whiteness(shown[1]).max()


def test_the_strongest_in_any_vector_come_first_and_what_is_not_finite_before_them() -> None:
    vectors = np.array([[0.1, -3.0, 0.0, 1.0], [0.2, 0.0, 2.0, 0.0]], np.float32)
    assert pixels.strongest(vectors, 3).tolist() == [1, 2, 3]
    assert pixels.sum_of_others(vectors[0], np.array([1, 2])) == pytest.approx(1.1)
    vectors[1, 0] = np.nan
    assert pixels.strongest(vectors, 2).tolist() == [0, 1]
    assert np.isnan(
        pixels.sum_of_others(np.array([np.inf, -np.inf], np.float32), np.array([], int))
    )


def test_rows_of_bars_without_sign_have_the_colours_of_the_scale() -> None:
    image = pixels.rows_of_bars(np.array([1.0, 0.5], np.float32), 1.0, 100, 20, "sequential")
    np.testing.assert_array_equal(
        image[[10, 30], 60], pixels.sequential(np.array([1.0, 0.5], np.float32), 1.0)
    )


def test_rows_of_bars_go_right_in_red_and_left_in_blue() -> None:
    image = pixels.rows_of_bars(np.array([1.0, -0.5, np.nan], np.float32), 1.0, 100, 20)
    assert image.shape == (60, 101, 3)
    first, second, third = image[10], image[30], image[50]
    assert first[99, 0] > first[99, 2]
    assert np.all(first[:50] == 255)
    assert second[27, 2] > second[27, 0]
    assert np.all(second[:24] == 247)
    assert np.all(second[51:] == 247)
    np.testing.assert_array_equal(third[99], pixels.NOT_FINITE)
