"""Vectors as bars, read back as pixels."""

import numpy as np
import pytest

from hvd_xai.views import bars, pixels


def test_bars_go_up_in_red_and_down_in_blue() -> None:
    image = bars.upright(np.array([1.0, -1.0], np.float32), 1.0, 100, "diverging")
    middle = image.shape[0] // 2
    up, down = image[: middle // 2, 25], image[middle + middle // 2 :, 75]
    assert np.all(up[:, 0] > up[:, 2])
    assert np.all(down[:, 2] > down[:, 0])
    assert np.all(image[: middle // 2, 75] == 247)


def test_bars_without_sign_stand_on_the_ground_and_have_the_colours_of_the_scale() -> None:
    image = bars.upright(np.array([1.0, 0.5], np.float32), 1.0, 100, "sequential")
    full, half = pixels.sequential(np.array([1.0, 0.5], np.float32), 1.0)
    ground = image.shape[0] - 1
    np.testing.assert_array_equal(image[:ground, 25], np.tile(full, (ground, 1)))
    np.testing.assert_array_equal(image[: ground // 2 - 1, 75], 247)
    np.testing.assert_array_equal(
        image[ground // 2 + 1 : ground, 75], np.tile(half, (ground // 2 - 1, 1))
    )


def test_a_peak_among_many_bars_is_not_lost() -> None:
    values = np.zeros(10_000, np.float32)
    values[1234] = 5.0
    image = bars.upright(values, 5.0, 200, "diverging")
    assert (image[5] != 247).any()


def test_rows_of_bars_without_sign_have_the_colours_of_the_scale() -> None:
    image = bars.in_rows(np.array([1.0, 0.5], np.float32), 1.0, 100, 20, "sequential")
    np.testing.assert_array_equal(
        image[[10, 30], 60], pixels.sequential(np.array([1.0, 0.5], np.float32), 1.0)
    )


def test_rows_of_bars_go_right_in_red_and_left_in_blue() -> None:
    image = bars.in_rows(np.array([1.0, -0.5, np.nan], np.float32), 1.0, 100, 20)
    assert image.shape == (60, 101, 3)
    first, second, third = image[10], image[30], image[50]
    assert first[99, 0] > first[99, 2]
    assert np.all(first[:50] == 255)
    assert second[27, 2] > second[27, 0]
    assert np.all(second[:24] == 247)
    assert np.all(second[51:] == 247)
    np.testing.assert_array_equal(third[99], pixels.NOT_FINITE)


@pytest.mark.parametrize("is_upright", [True, False])
def test_error_bars_reach_one_standard_error_to_both_sides(is_upright: bool) -> None:
    values, errors = np.array([0.5, -0.5], np.float32), np.array([0.25, 0.0])
    image = (
        bars.upright(values, 1.0, 100, "diverging", errors)
        if is_upright
        else bars.in_rows(values, 1.0, 100, 20, "diverging", errors).transpose(1, 0, 2)[::-1]
    )
    # rows from the largest value down; zero is in the middle
    zero = len(image) // 2
    first = slice(0, image.shape[1] // 2)
    is_whisker = (image[:, first] == 20).all(axis=-1).any(axis=1)
    high, low = zero - np.flatnonzero(is_whisker)[[0, -1]]
    assert abs(high / zero - 0.75) < 0.03
    assert abs(low / zero - 0.25) < 0.03


def test_the_longest_bar_leaves_room_for_its_error() -> None:
    assert bars.limit_of(np.array([1.0, -2.0])) == 2.0
    assert bars.limit_of(np.array([1.0, -2.0, np.nan]), np.array([3.0, 0.5, 1.0])) == 4.0
