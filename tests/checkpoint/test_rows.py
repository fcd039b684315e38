import itertools
from typing import Any

import numpy as np
import pytest
import xxhash

from hvd_xai.checkpoint.rows import decode, encode, row_dtype
from tests.checkpoint.small import SHAPES, make_attributions, make_rows, make_rows_with_errors

# Half a unit in the last place of float16 for values up to 1, and the rounding of the division and
# of the product.
FLOAT16_ERROR = 2.0**-11 + 2.0**-23


@pytest.mark.parametrize("shape", SHAPES)
def test_stored_attributions_are_within_float16_of_each_samples_largest(
    shape: tuple[int, ...],
) -> None:
    attributions = make_attributions(9, shape) * 10.0 ** np.arange(
        -30, 33, 7, dtype=np.float32
    ).reshape(9, *(1 for _ in shape))
    error = np.abs(decode(make_rows(attributions)) - attributions).reshape(9, -1).max(axis=1)
    assert (error <= FLOAT16_ERROR * np.abs(attributions).reshape(9, -1).max(axis=1)).all()


def test_small_attributions_survive_where_plain_float16_loses_them() -> None:
    attributions = make_attributions(50, (16, 16)) * 0.01
    assert (attributions.astype(np.float16) == 0).mean() > 0.5
    assert (decode(make_rows(attributions)) == 0).mean() == (attributions == 0).mean()


def test_scale_is_the_largest_finite_magnitude_and_1_where_all_is_zero() -> None:
    attributions = np.array(
        [[1, -3], [0, 0], [np.nan, 2], [-np.inf, 5], [np.nan, np.inf]], np.float32
    )
    assert make_rows(attributions)["scale"].tolist() == [3, 1, 2, 5, 1]


def test_nan_and_infinity_stay_what_they_are() -> None:
    attributions = np.array([[np.nan, 1, np.inf, -np.inf, 2]], np.float32)
    np.testing.assert_array_equal(decode(make_rows(attributions)), attributions)


def test_content_hash_is_of_float16_bytes_and_scale() -> None:
    rows = make_rows(make_attributions(3, (4, 2)))
    expected = [
        xxhash.xxh3_64_intdigest(
            row["attributions"].astype("<f2").tobytes() + np.float32(row["scale"]).tobytes()
        )
        for row in rows
    ]
    assert rows["content_hash"].tolist() == expected


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_do_not_depend_on_the_batch_they_were_packed_in(shape: tuple[int, ...]) -> None:
    attributions = make_attributions(23, shape)
    attributions.reshape(23, -1)[4, 0] = np.nan
    edges = [0, 1, 1, 8, 9, 23]
    parts = [
        make_rows(attributions[start:stop], first=start)
        for start, stop in itertools.pairwise(edges)
    ]
    assert np.concatenate(parts).tobytes() == make_rows(attributions).tobytes()


@pytest.mark.parametrize("shape", SHAPES)
def test_no_examples_give_no_rows(shape: tuple[int, ...]) -> None:
    rows = make_rows(make_attributions(0, shape))
    assert rows.shape == (0,)
    assert decode(rows).shape == (0, *shape)


def test_label_is_the_target_where_it_is_left_out() -> None:
    ids = np.arange(3)
    columns: dict[str, Any] = {
        "sample_id": ids,
        "target": ids + 5,
        "prediction": ids,
        "score": ids.astype(np.float32),
    }
    rows = encode(row_dtype(()), np.zeros(3, np.float32), rank=2, **columns)
    assert rows["label"].tolist() == [5, 6, 7]
    assert rows["rank"].tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attributions": np.zeros((3, 2), np.float32)}, "must have shape"),
        ({"score": np.zeros(2, np.float32)}, "column 'score' must have shape"),
        ({"target": np.arange(3) + 2**31}, "column 'target' .* do not fit"),
        ({"target": np.array([0.5, 1, 2])}, "column 'target' .* do not fit"),
        ({"extra": np.zeros(3)}, "need the columns"),
        ({"prediction": None}, "need the columns"),
    ],
)
def test_wrong_columns_are_refused(change: dict[str, Any], message: str) -> None:
    ids = np.arange(3)
    columns: dict[str, Any] = {
        "attributions": np.zeros(3, np.float32),
        "sample_id": ids,
        "target": ids,
        "prediction": ids,
        "score": ids.astype(np.float32),
    }
    columns = {name: value for name, value in {**columns, **change}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        encode(row_dtype(()), columns.pop("attributions"), rank=0, **columns)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((2, 0), {}),
        ((1, 1, 1, 1, 1), {}),
        ((2,), {"per_sample": {"scale": "f4"}}),
        ((2,), {"per_sample": {"../x": "f4"}}),
        ((2,), {"per_sample": {"name": "U5"}}),
        ((2,), {"target": object}),
    ],
)
def test_what_cannot_be_stored_has_no_row_dtype(
    shape: tuple[int, ...], options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"must|needs"):
        row_dtype(shape, **options)


def test_row_dtype_does_not_depend_on_the_order_of_names() -> None:
    assert row_dtype((2,), per_sample={"b": "f4", "a": "i4"}) == row_dtype(
        (2,), per_sample={"a": "<i4", "b": "<f4"}
    )


def test_standard_errors_need_the_shape_of_the_attributions() -> None:
    attributions = np.ones((3, 4), np.float32)
    rows, _ = make_rows_with_errors(attributions)
    columns = {name: rows[name] for name in ("sample_id", "target", "prediction", "score")}
    for shape in ((3,), (3, 5)):
        with pytest.raises(ValueError, match=r"'standard_errors' must have shape \(3, 4\)"):
            encode(
                rows.dtype,
                attributions,
                rank=0,
                channels_first=False,
                standard_errors=np.ones(shape, "f4"),
                **columns,
            )
