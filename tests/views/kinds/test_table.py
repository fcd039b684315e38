"""Named features as rows of names and bars."""

import numpy as np
import pytest

from hvd_xai.probe.facts import ProbeFacts
from hvd_xai.views import pixels
from hvd_xai.views.kind import Fit
from hvd_xai.views.kinds import table
from hvd_xai.views.kinds.table import FeatureRows
from hvd_xai.views.samples import Panel, Sample

NAMES = tuple(f"feature {number}" for number in range(30))
VALUES = np.arange(30, dtype=np.float32) / 29


def make_sample(
    *attributions: np.ndarray,
    names: tuple[str, ...] = NAMES,
    inputs: bool = True,
    signed: bool | None = None,
) -> Sample:
    facts = ProbeFacts((len(names),), np.dtype(np.float32), names)
    panels = tuple(
        Panel(f"method_{place}", 0, values, 1, 1.0, attributed_to="inputs", is_signed=signed)
        for place, values in enumerate(attributions)
    )
    values = np.linspace(-1, 1, len(names)).astype(np.float32)
    return Sample(0, 1, 1, panels, values if inputs else None, facts)


def arrange(sample: Sample, size: int) -> FeatureRows:
    rows = table.arrange(sample, size)
    assert isinstance(rows, FeatureRows)
    return rows


def test_vectors_whose_values_have_names_are_tables() -> None:
    assert table.fits(ProbeFacts((3,), np.dtype("f4"), ("a", "b", "c"))) == Fit.NAMES
    assert table.fits(ProbeFacts((3,), np.dtype("f4"))) == Fit.NONE


def test_only_what_is_attributed_to_the_inputs_is_labelled_with_features() -> None:
    values = np.array([1.0, 2.0, 3.0], np.float32)
    for attributed_to in ("units", "places", None):
        panel = Panel("units", 0, values, 1, 1.0, attributed_to=attributed_to)
        facts = ProbeFacts((3,), np.dtype(np.float32), ("a", "b", "c"))
        sample = Sample(0, 1, 1, (panel,), values, facts)
        assert table.arrange(sample, 96).caption == "input"
        assert table.strongest(sample, 2) is None


def test_the_strongest_features_are_told_with_their_values_and_the_sum_of_the_others() -> None:
    sample = make_sample(VALUES, -VALUES[::-1])
    told = table.strongest(sample, 2)
    assert told is not None
    assert [part.name for part in told.parts] == ["feature 0", "feature 29"]
    assert told.parts[0].beside == "-1"
    assert told.parts[0].attributions == (0.0, -1.0)
    assert told.others is not None
    assert told.others.name == "28 others"
    assert told.others.attributions[0] == pytest.approx(VALUES[1:-1].sum())
    assert told.record == {"features": {"feature 0": 0.0, "feature 29": 1.0}}


def test_the_strongest_of_any_picture_come_first_and_one_row_is_for_the_others() -> None:
    other = np.zeros(30, np.float32)
    other[3] = -2
    rows = arrange(make_sample(VALUES, other), 96)
    assert rows.order.tolist() == [3, 29, 28, 27, 26]
    assert rows.n_others == 25
    np.testing.assert_allclose(
        rows.values(VALUES)[-1], np.delete(VALUES, rows.order).sum(), rtol=1e-6
    )


def test_a_table_that_fits_has_a_row_for_each_feature() -> None:
    rows = arrange(make_sample(VALUES[:6], names=NAMES[:6]), 96)
    assert rows.order.tolist() == [5, 4, 3, 2, 1, 0]
    assert rows.n_others == 0
    assert len(rows.values(VALUES[:6])) == 6


@pytest.mark.parametrize("signed", [True, False])
def test_bars_are_as_long_as_the_attributions_and_beside_their_names(signed: bool) -> None:
    sample = make_sample(VALUES, signed=signed)
    rows = arrange(sample, 201)
    picture = rows.picture(sample.panels[0])
    assert (picture.scale, picture.limit) == ("diverging" if signed else "sequential", 1.0)
    assert picture.image.shape[0] == rows.input_picture().image.shape[0]
    colour = pixels.ramp(picture.scale, 2, 1)[0, 1]
    assert (picture.image == colour).all(axis=-1).sum(axis=1).max() == 100
    assert rows.picture(sample.panels[0], 2.0).limit == 2.0


def test_values_that_are_not_finite_are_counted_and_drawn() -> None:
    values = VALUES.copy()
    values[[0, 29]] = np.nan, np.inf
    sample = make_sample(values)
    picture = arrange(sample, 201).picture(sample.panels[0])
    assert picture.n_not_finite == 2
    assert (picture.image == pixels.NOT_FINITE).all(axis=-1).any()


def test_a_long_name_loses_its_middle() -> None:
    names = tuple(f"{name} {'of a very long name ' * 9}" for name in NAMES)
    rows = arrange(make_sample(VALUES, names=names), 200)
    assert rows.input_picture().image.shape[1] <= rows.input_width
    without_inputs = arrange(make_sample(VALUES, names=names, inputs=False), 200)
    heights = [one.input_picture().image.shape[0] for one in (rows, without_inputs)]
    assert heights[0] == heights[1]
