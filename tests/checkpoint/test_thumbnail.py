import numpy as np
import pytest

from hvd_xai.checkpoint.thumbnail import thumbnail_shape, thumbnails
from tests.checkpoint.small import SHAPES, make_attributions


@pytest.mark.parametrize(
    ("sample_shape", "expected"),
    [
        ((), (1,)),
        ((5,), (5,)),
        ((1000,), (784,)),
        ((8, 8), (8, 8)),
        ((224, 224), (28, 28)),
        ((224, 10, 3), (28, 10)),
        ((2, 3, 4, 2), (48,)),
        ((9, 9, 9, 3), (784,)),
    ],
)
def test_thumbnails_have_at_most_28_blocks_an_axis(
    sample_shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert thumbnail_shape(sample_shape) == expected
    assert thumbnails(make_attributions(2, sample_shape)).shape == (2, *expected)


def test_blocks_are_means_of_the_channel_sum() -> None:
    attributions = make_attributions(3, (56, 84, 2))
    expected = attributions.sum(axis=3).reshape(3, 28, 2, 28, 3).mean(axis=(2, 4))
    # sums of 12 float32 in another order
    np.testing.assert_allclose(thumbnails(attributions), expected, rtol=1e-4, atol=1e-10)


def test_channels_that_come_first_are_summed_as_those_that_come_last() -> None:
    attributions = make_attributions(3, (56, 84, 2))
    first = np.ascontiguousarray(attributions.transpose(0, 3, 1, 2))
    assert thumbnail_shape((2, 56, 84), True) == (28, 28)
    np.testing.assert_allclose(
        thumbnails(first, True), thumbnails(attributions), rtol=1e-4, atol=1e-10
    )


def test_blocks_of_an_uneven_axis_cover_every_entry_once() -> None:
    attributions = np.ones((1, 1001), np.float32)
    np.testing.assert_array_equal(thumbnails(attributions), np.ones((1, 784), np.float32))


@pytest.mark.parametrize("shape", SHAPES)
def test_no_samples_have_no_thumbnails(shape: tuple[int, ...]) -> None:
    assert thumbnails(make_attributions(0, shape)).shape == (0, *thumbnail_shape(shape))


def test_nan_stays_in_its_own_block() -> None:
    attributions = np.zeros((1, 56, 56), np.float32)
    attributions[0, 0, 1] = np.nan
    attributions[0, 10, 10], attributions[0, 10, 11] = np.inf, -np.inf
    found = np.argwhere(np.isnan(thumbnails(attributions)[0])).tolist()
    assert found == [[0, 0], [5, 5]]
