"""Strips, read back as pixels."""

import numpy as np
import pytest

from hvd_xai.probe.facts import ProbeFacts
from hvd_xai.views import arrays, pixels
from hvd_xai.views.samples import Panel, Sample
from hvd_xai.views.strip import strip
from tests.views.samples_under_test import (
    GREEN,
    RED,
    has_colour,
    make_sample,
)


def test_strip_holds_input_attributions_and_overlay_side_by_side() -> None:
    shown = make_sample()
    assert shown.inputs is not None
    image = strip(shown)
    for expected in (
        arrays.picture(shown.inputs, 200).image,
        arrays.draw_alone(shown.panels[0], shown, 200).image,
        arrays.draw_over_input(shown.panels[1], shown, 200).image,
    ):
        rows, columns, _ = expected.shape
        windows = np.lib.stride_tricks.sliding_window_view(image, (rows, columns, 3))[:, :, 0]
        corners = (windows[:, :, 0, 0] == expected[0, 0]).all(-1) & (
            windows[:, :, -1, -1] == expected[-1, -1]
        ).all(-1)
        assert any(np.array_equal(windows[y, x], expected) for y, x in np.argwhere(corners))


def test_colour_says_whether_the_prediction_is_right() -> None:
    assert has_colour(strip(make_sample(prediction=3)), GREEN)
    assert not has_colour(strip(make_sample(prediction=3)), RED)
    wrong = strip(make_sample(prediction=5))
    assert has_colour(wrong, RED)
    assert not has_colour(wrong, GREEN)


def test_predicted_values_are_neither_right_nor_wrong() -> None:
    image = strip(make_sample(prediction=1.5, target=1.5))
    assert not has_colour(image, RED)
    assert not has_colour(image, GREEN)


def test_class_names_are_drawn() -> None:
    assert not np.array_equal(
        strip(make_sample(), class_names=["a", "b", "c", "cat"]),
        strip(make_sample()),
    )


def test_epochs_become_columns() -> None:
    assert strip(make_sample(5)).shape[1] > strip(make_sample(2)).shape[1] > 2 * 200


@pytest.mark.parametrize("names", [(), ("a", "b", "c")])
@pytest.mark.parametrize("is_signed", [True, False])
def test_vectors_of_methods_without_sign_have_colours_that_have_none(
    names: tuple[str, ...], is_signed: bool
) -> None:
    facts = ProbeFacts((3,), np.dtype(float), names)
    panel = Panel(
        "sobol",
        0,
        np.array([1.0, 0.5, 0.2], np.float32),
        1,
        1.0,
        attributed_to="inputs",
        is_signed=is_signed,
    )
    image = strip(Sample(0, 1, 1, (panel,), np.ones(3), facts))
    yellow, red = (pixels.ramp(scale, 2, 1)[0, 1] for scale in ("sequential", "diverging"))
    assert [has_colour(image, yellow), has_colour(image, red)] == [not is_signed, is_signed]


def test_not_finite_values_are_told() -> None:
    attributions = np.full((8, 8, 1), np.nan, np.float32)
    broken = Sample(
        0,
        1,
        1,
        (Panel("integrated_gradients", 0, attributions, 1, 1.0),),
        np.ones((8, 8, 1)),
    )
    image = strip(broken)
    assert has_colour(image, pixels.NOT_FINITE)
    assert has_colour(image, RED)


@pytest.mark.parametrize("inputs", [True, False])
def test_epochs_are_drawn_without_inputs_too(inputs: bool) -> None:
    assert strip(make_sample(3, inputs=inputs)).size > 0


def test_names_that_the_font_lacks_and_very_long_ones_are_drawn() -> None:
    names = ["", "", "", "élève 猫 " * 40 + "x" * 500]
    assert strip(make_sample(), class_names=names).shape[1] < 1000
