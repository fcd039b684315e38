"""Drift against closed forms."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hvd_xai.analysis.drift import Snapshot, cosine_similarity, drift

ROUNDING = 1e-12  # everything is computed in float64


def snapshot(
    thumbnails: npt.ArrayLike,
    predictions: npt.ArrayLike | None = None,
    ids: npt.ArrayLike | None = None,
) -> Snapshot:
    thumbnails = np.asarray(thumbnails, np.float32)
    n_samples = len(thumbnails)

    def rows(start: int, stop: int) -> np.ndarray:
        assert stop - start <= 1024, "memory is bounded"
        return thumbnails[start:stop]

    return Snapshot(
        sample_ids=np.arange(n_samples) if ids is None else np.asarray(ids),
        thumbnails=rows,
        predictions=(
            np.zeros(n_samples, np.int32) if predictions is None else np.asarray(predictions)
        ),
    )


def test_cosine_is_the_cosine_of_the_angle() -> None:
    before = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    after = np.array([[5.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [1.0, 0.0]])
    np.testing.assert_allclose(
        cosine_similarity(before, after), [1.0, 0.0, -1.0, np.sqrt(0.5)], atol=ROUNDING
    )


def test_cosine_of_two_zero_vectors_is_one_and_of_one_is_zero() -> None:
    zero, some = np.zeros((1, 4)), np.ones((1, 4))
    assert cosine_similarity(zero, zero) == 1.0
    assert cosine_similarity(zero, some) == 0.0
    assert cosine_similarity(some, zero) == 0.0


@pytest.mark.parametrize("strength", [1e-38, 1e38])
def test_cosine_neither_vanishes_nor_overflows(strength: float) -> None:
    values = np.full((1, 784), strength, np.float32)
    np.testing.assert_allclose(cosine_similarity(values, values), 1.0, atol=ROUNDING)


@given(
    hnp.arrays(np.float32, (5, 3, 2), elements=st.floats(-1e6, 1e6, width=32)), st.floats(1e-3, 1e3)
)
def test_cosine_does_not_see_strength_and_stays_in_range(
    values: np.ndarray, strength: float
) -> None:
    scaled = values * np.float64(strength)
    np.testing.assert_allclose(cosine_similarity(values, scaled), 1.0, atol=ROUNDING)
    assert np.all(np.abs(cosine_similarity(values, scaled[::-1])) <= 1.0)


def test_nothing_changed() -> None:
    thumbnails = np.random.default_rng(0).normal(size=(7, 4, 4))
    result = drift(snapshot(thumbnails), snapshot(thumbnails))
    assert (result.mean_cosine, result.median_cosine) == pytest.approx((1.0, 1.0), abs=ROUNDING)
    assert (
        result.relative_l2,
        result.changed_predictions,
        result.n_samples,
        result.n_left_out,
    ) == (0.0, 0.0, 7, 0)


def test_figures_of_a_case_computed_by_hand() -> None:
    before = snapshot([[3.0, 0.0], [0.0, 4.0], [1.0, 0.0]], predictions=[1, 2, 3])
    after = snapshot([[3.0, 0.0], [4.0, 0.0], [-1.0, 0.0]], predictions=[1, 5, 0])
    result = drift(before, after)
    assert result.mean_cosine == pytest.approx(0.0, abs=ROUNDING)
    assert result.median_cosine == pytest.approx(0.0, abs=ROUNDING)
    assert result.relative_l2 == pytest.approx(np.sqrt((32 + 4) / 26), abs=ROUNDING)
    assert result.changed_predictions == pytest.approx(2 / 3, abs=ROUNDING)


def test_relative_l2_is_symmetric_and_zero_for_zeros() -> None:
    zeros, ones = snapshot(np.zeros((2, 3))), snapshot(np.ones((2, 3)))
    assert drift(zeros, zeros).relative_l2 == 0.0
    assert drift(zeros, ones).relative_l2 == drift(ones, zeros).relative_l2 == 1.0


def test_samples_that_are_not_finite_are_left_out_and_counted() -> None:
    before = snapshot([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    after = snapshot([[1.0, 0.0], [np.nan, 1.0], [0.0, np.inf]])
    result = drift(before, after)
    assert (result.mean_cosine, result.relative_l2, result.n_samples, result.n_left_out) == (
        1.0,
        0.0,
        1,
        2,
    )


@pytest.mark.filterwarnings("error")
def test_infinities_of_one_sign_are_left_out_without_a_warning() -> None:
    infinite = snapshot([[np.inf, 1.0], [1.0, 0.0]])
    result = drift(infinite, infinite)
    assert (result.relative_l2, result.n_samples, result.n_left_out) == (0.0, 1, 1)


def test_no_finite_sample_gives_nan_and_no_warning() -> None:
    nothing = snapshot(np.full((2, 3), np.nan))
    result = drift(nothing, nothing)
    assert np.isnan(result.mean_cosine)
    assert (result.n_samples, result.n_left_out, result.changed_predictions) == (0, 2, None)


def test_predicted_values_are_not_compared_for_equality() -> None:
    one = snapshot(np.ones((2, 3)), predictions=np.array([0.1, 0.2], np.float32))
    assert drift(one, one).changed_predictions is None


def test_blocks_do_not_change_the_figures() -> None:
    generator = np.random.default_rng(1)
    before, after = generator.normal(size=(2, 5000, 3)).astype(np.float32)
    result = drift(snapshot(before), snapshot(after))
    assert result.mean_cosine == pytest.approx(
        cosine_similarity(before, after).mean(), abs=ROUNDING
    )
    whole = np.linalg.norm(after.astype(float) - before) / max(
        np.linalg.norm(before.astype(float)), np.linalg.norm(after.astype(float))
    )
    assert result.relative_l2 == pytest.approx(whole, abs=ROUNDING)


def test_other_samples_or_another_order_are_refused() -> None:
    with pytest.raises(ValueError, match="same samples in the same order"):
        drift(snapshot(np.ones((2, 3)), ids=[0, 1]), snapshot(np.ones((2, 3)), ids=[1, 0]))
    with pytest.raises(ValueError, match=r"one shape; got \(3,\) before and \(4,\) after"):
        drift(snapshot(np.ones((2, 3))), snapshot(np.ones((2, 4))))
