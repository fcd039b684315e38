"""One range of values for all pictures of a probe's inputs."""

from collections.abc import Iterator

import numpy as np
import pytest

from hvd_xai.probe import window


def in_blocks(values: np.ndarray, n_blocks: int) -> window.Window:
    return window.find_window(values.dtype, lambda: iter(np.array_split(values, n_blocks)))


@pytest.mark.parametrize("n_blocks", [1, 7, 400])
def test_window_ends_at_percentiles_of_all_values(n_blocks: int) -> None:
    values = np.random.default_rng(0).normal(3, 40, (400, 25)).astype(np.float32)
    # the order statistics themselves, without interpolation, so that blocks make no difference
    low = float(np.percentile(values, 0.5, method="lower"))
    high = float(np.percentile(values, 99.5, method="higher"))
    assert in_blocks(values, n_blocks) == (low, high)


def test_one_extreme_voxel_does_not_move_the_window() -> None:
    scans = np.random.default_rng(0).random((4, 16, 16)).astype(np.float32)
    before = window.window_of(scans)
    scans[2, 3, 3] = 1.01
    scans[1, 3, 3] = 4000.0
    np.testing.assert_allclose(window.window_of(scans), before, atol=0.01)


def test_a_background_of_zeros_does_not_hide_what_lies_on_it() -> None:
    values = np.zeros((10, 1000), np.float32)
    values[:, 0] = np.arange(1, 11)
    assert window.window_of(values) == (0.0, 10.0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([3, 200], np.uint8), (0.0, 255.0)),
        (np.array([3, 100], np.int8), (-128.0, 127.0)),
        (np.array([True]), (0.0, 1.0)),
        # 12 bits in 16, as scanners write them
        (np.array([-1024, 0, 3071], np.int16), (-1024.0, 3071.0)),
        (np.array([0, 255], np.int64), (0.0, 255.0)),
        (np.arange(17.0), (0.0, 16.0)),
        (np.array([-2.0, -1.0]), (-2.0, -1.0)),
        (np.array([-1.0, 1.0], ">f4"), (-1.0, 1.0)),
        (np.array([np.nan, np.inf, 1e300, 2.0, 5.0]), (2.0, 5.0)),
        (np.zeros(4), (0.0, 1.0)),
        (np.full(4, 7.0), (7.0, 8.0)),
        (np.empty(0), (0.0, 1.0)),
    ],
)
def test_window_of_every_dtype_and_of_odd_values(
    values: np.ndarray, expected: window.Window
) -> None:
    assert window.window_of(values) == expected


def test_blocks_are_read_twice_at_most_and_bytes_not_at_all() -> None:
    calls: list[None] = []

    def blocks() -> Iterator[np.ndarray]:
        calls.append(None)
        yield np.arange(5.0)

    window.find_window(np.dtype("u1"), blocks)
    assert not calls
    window.find_window(np.dtype("f8"), blocks)
    assert len(calls) == 2


@pytest.mark.parametrize("wrong", [(1, 1), (2, 1), (0, np.nan), (0, np.inf), (1, 2, 3), 5, "ab"])
def test_a_window_is_two_rising_numbers(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"two numbers.*\(-160, 240\)"):
        window.check_window(wrong)
