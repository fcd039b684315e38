"""Explanations that mean little, by closed forms."""

import numpy as np
import pytest

from hvd_xai.analysis.doubts import (
    DOUBTS,
    Doubt,
    Rows,
    Tally,
    find_doubts,
    gap_shares,
    magnitudes,
    tell_doubts,
)
from hvd_xai.protocols import ScoreFacts, ScoreUnit


def make_rows(
    attributions: list[list[float]],
    *,
    score: float = 1.0,
    target: float = 1,
    magnitude: float = 1.0,
    delta: float | None = None,
    facts: ScoreFacts | None = None,
) -> Rows:
    n = len(attributions)
    return Rows(
        np.array(attributions, np.float32),
        np.full(n, score, np.float32),
        np.full(n, target),
        np.full(n, magnitude),
        None if delta is None else np.full(n, delta, np.float32),
        facts or ScoreFacts(),
    )


def doubts_of(rows: Rows) -> set[Doubt]:
    return {doubt for doubt, has in find_doubts(rows).items() if has.any()}


def test_zeros_and_what_float32_cannot_tell_from_them_are_doubted() -> None:
    eps = float(np.finfo(np.float32).eps)
    rows = make_rows([[0, 0], [1e-13, -1e-13], [eps / 4, eps / 4], [eps, eps]])
    assert find_doubts(rows)["zero"].tolist() == [True, True, True, False]
    # as parts of a small score they are not small
    assert doubts_of(make_rows([[1e-13, -1e-13]], score=1e-12)) == set()


def test_a_small_slope_of_large_inputs_is_no_zero() -> None:
    # a price of 10,000 that rises by 1e-4 with each unit of an income of 50,000
    slope = [[1e-4]]
    assert doubts_of(make_rows(slope, score=1e4)) == {"zero"}
    assert doubts_of(make_rows(slope, score=1e4, magnitude=5e4)) == set()


def test_a_gap_is_a_part_of_what_the_score_gains() -> None:
    # attributions of 0.8 + 0.2 that are 0.25 more than the gain, which so is 0.75
    rows = make_rows([[0.8, 0.2]], delta=0.25)
    np.testing.assert_allclose(gap_shares(rows), [1 / 3])
    assert doubts_of(rows) == {"gap"}
    assert doubts_of(make_rows([[0.8, 0.2]], delta=-0.25)) == {"gap"}
    assert doubts_of(make_rows([[0.8, 0.2]], delta=0.04)) == set()
    assert doubts_of(make_rows([[0.8, 0.2]])) == set()


def test_a_delta_that_float32_cannot_tell_is_no_gap() -> None:
    # the score gains 1e-5, and is known to about 1e-4 where it is 10
    assert doubts_of(make_rows([[2e-5]], score=10.0, delta=1e-5)) == set()
    assert doubts_of(make_rows([[0.5]], delta=0.5)) == {"gap"}  # it gains nothing


@pytest.mark.parametrize(
    ("unit", "score", "attribution", "is_saturated"),
    [
        ("probability", 1 - 1e-7, 1e-6, True),
        ("probability", 1e-7, 1e-6, True),
        # a path that leads out of the saturated part adds up to all that the score gains
        ("probability", 1 - 1e-7, 0.9, False),
        ("probability", 0.99, 1e-6, False),
        ("logit", 1 - 1e-7, 1e-6, False),
        (None, 1 - 1e-7, 1e-6, False),
    ],
)
def test_probabilities_that_cannot_move_are_saturated(
    unit: ScoreUnit | None, score: float, attribution: float, is_saturated: bool
) -> None:
    rows = make_rows([[attribution]], score=score, facts=ScoreFacts(unit))
    assert ("saturated" in doubts_of(rows)) == is_saturated


def test_a_score_of_class_1_is_not_that_of_target_0() -> None:
    of_class_1 = ScoreFacts("probability", "1")
    assert doubts_of(make_rows([[0.1]], target=0, facts=of_class_1)) == {"other class"}
    assert doubts_of(make_rows([[0.1]], target=1, facts=of_class_1)) == set()
    assert doubts_of(make_rows([[0.1]], target=0, facts=ScoreFacts("logit", "target"))) == set()
    # values of a regression
    assert doubts_of(make_rows([[0.1]], target=0.0, facts=of_class_1)) == set()


def test_what_is_not_finite_is_no_doubt() -> None:
    for odd in (np.nan, np.inf):
        assert doubts_of(make_rows([[odd, 0.0]], delta=odd)) == set()
        assert doubts_of(make_rows([[0.5]], score=odd)) == set()


def test_no_rows_have_no_doubt() -> None:
    empty = Rows(np.empty((0, 3)), np.empty(0), np.empty(0), np.empty(0), np.empty(0))
    assert doubts_of(empty) == set()
    assert gap_shares(empty).shape == magnitudes(np.empty((0, 3))).shape == (0,)


def test_tallies_of_ranks_add_up_to_that_of_all_rows() -> None:
    values = np.array([[0, 0], [0.8, 0.2], [0.5, 0.5], [0, 0]], np.float32)
    parts = [make_rows(values[rows].tolist(), delta=0.2) for rows in (slice(0, 1), slice(1, 4))]
    whole, ranks = Tally(), [Tally(), Tally(), Tally()]
    whole.add(make_rows(values.tolist(), delta=0.2))
    for rank, part in zip(ranks, parts, strict=False):
        rank.add(part)
    assert Tally.of_all([rank.numbers() for rank in ranks]) == whole
    assert whole.counts == {"zero": 2, "gap": 4, "saturated": 0, "other class": 0}
    assert whole.largest_gap == pytest.approx(1.0)


def test_every_doubt_has_words() -> None:
    lines = tell_doubts(dict.fromkeys(DOUBTS, 3), 12, 0.384)
    assert [line.split()[:4] for line in lines] == [["3", "of", "12", "samples"]] * len(DOUBTS)
    assert "at worst 38 %" in lines[1]
    assert "score='logit'" in lines[2]
    assert "score='target_probability'" in lines[3]
    assert tell_doubts({"of a later version": 2, "zero": 0}, 12) == []
