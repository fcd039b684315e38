"""Named features as rows of names and bars."""

import numpy as np
import pytest

from hvd_xai.views import pixels
from hvd_xai.views.feature_rows import FeatureRows, names_width

NAMES = tuple(f"feature {number}" for number in range(30))
VALUES = np.arange(30, dtype=np.float32) / 29


def test_the_strongest_of_any_picture_come_first_and_one_row_is_for_the_others() -> None:
    other = np.zeros(30, np.float32)
    other[3] = -2
    rows = FeatureRows.strongest(np.stack([VALUES, other]), NAMES, 96)
    assert rows.order.tolist() == [3, 29, 28, 27, 26]
    assert rows.n_others == 25
    np.testing.assert_allclose(
        rows.values(VALUES)[-1], np.delete(VALUES, rows.order).sum(), rtol=1e-6
    )


def test_a_table_that_fits_has_a_row_for_each_feature() -> None:
    rows = FeatureRows.strongest(VALUES[None, :6], NAMES[:6], 96)
    assert rows.order.tolist() == [5, 4, 3, 2, 1, 0]
    assert rows.n_others == 0
    assert len(rows.values(VALUES[:6])) == 6


@pytest.mark.parametrize("signed", [True, False])
def test_bars_are_as_long_as_the_attributions_and_beside_their_names(signed: bool) -> None:
    rows = FeatureRows.strongest(VALUES[None], NAMES, 96)
    picture = rows.bars(VALUES, 201, signed=signed)
    assert (picture.scale, picture.limit) == ("diverging" if signed else "sequential", 1.0)
    assert picture.image.shape[0] == rows.names_picture(VALUES, 96).image.shape[0]
    colour = pixels.ramp(picture.scale, 2, 1)[0, 1]
    assert (picture.image == colour).all(axis=-1).sum(axis=1).max() == 100
    assert rows.bars(VALUES, 201, limit=2.0).limit == 2.0


def test_values_that_are_not_finite_are_counted_and_drawn() -> None:
    values = VALUES.copy()
    values[[0, 29]] = np.nan, np.inf
    picture = FeatureRows.strongest(values[None], NAMES, 200).bars(values, 201)
    assert picture.n_not_finite == 2
    assert (picture.image == pixels.NOT_FINITE).all(axis=-1).any()


def test_a_long_name_loses_its_middle() -> None:
    names = tuple(f"{name} {'of a very long name ' * 9}" for name in NAMES)
    rows = FeatureRows.strongest(VALUES[None], names, 200)
    assert rows.names_picture(VALUES, 200).image.shape[1] <= names_width(200)
    assert (
        rows.names_picture(None, 200).image.shape[0]
        == rows.names_picture(VALUES, 200).image.shape[0]
    )
