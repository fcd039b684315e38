"""Pictures with captions, read back as pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from hvd_xai import render, sheet

RED, GREEN = (192, 0, 32), (0, 110, 60)


def has_colour(image: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((image == np.array(colour, np.uint8)).all(axis=-1).any())


def sample(n_epochs: int = 1, *, prediction: float = 3, target: float = 3, inputs: bool = True, sample_id: int = 17) -> sheet.Sample:
    shape = (8, 8, 1)
    generator = np.random.default_rng(sample_id)
    panels = []
    for epoch in range(n_epochs):
        attributions = generator.normal(size=shape).astype(np.float32)
        panels.append(sheet.Panel("integrated_gradients", epoch, attributions, prediction, 0.9, 0.001))
        panels.append(sheet.Panel("grad_cam", epoch, generator.random(shape[:1] * 2).astype(np.float32), prediction, 0.9))
    return sheet.Sample(sample_id, target, target, tuple(panels), generator.random(shape) if inputs else None)


def test_png_reads_back_as_the_same_pixels() -> None:
    image = sheet.strip(sample())
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(sheet.png(image)))), image)


def test_strip_holds_input_attributions_and_overlay_side_by_side() -> None:
    shown = sample()
    assert shown.inputs is not None
    image = sheet.strip(shown)
    for expected in (
        render.picture(shown.inputs, 200).image,
        *(render.attributed(panel.attributions, shown.inputs, 200).image for panel in shown.panels),
    ):
        rows, columns, _ = expected.shape
        windows = np.lib.stride_tricks.sliding_window_view(image, (rows, columns, 3))[:, :, 0]
        corners = (windows[:, :, 0, 0] == expected[0, 0]).all(-1) & (windows[:, :, -1, -1] == expected[-1, -1]).all(-1)
        assert any(np.array_equal(windows[y, x], expected) for y, x in np.argwhere(corners))


def test_colour_says_whether_the_prediction_is_right() -> None:
    assert has_colour(sheet.strip(sample(prediction=3)), GREEN)
    assert not has_colour(sheet.strip(sample(prediction=3)), RED)
    wrong = sheet.strip(sample(prediction=5))
    assert has_colour(wrong, RED)
    assert not has_colour(wrong, GREEN)


def test_predicted_values_are_neither_right_nor_wrong() -> None:
    image = sheet.strip(sample(prediction=1.5, target=1.5))
    assert not has_colour(image, RED)
    assert not has_colour(image, GREEN)


def test_class_names_are_drawn() -> None:
    assert not np.array_equal(sheet.strip(sample(), class_names=["a", "b", "c", "cat"]), sheet.strip(sample()))


def test_epochs_become_columns() -> None:
    assert sheet.strip(sample(5)).shape[1] > sheet.strip(sample(2)).shape[1] > 2 * 200


def test_epochs_share_one_scale() -> None:
    weak, strong = np.full((8, 8, 1), 0.1, np.float32), np.full((8, 8, 1), 1.0, np.float32)
    panels = tuple(sheet.Panel("integrated_gradients", epoch, values, 1, 1.0) for epoch, values in enumerate((weak, strong)))
    shown = sheet.Sample(0, 1, 1, panels, np.ones((8, 8, 1)))
    full = render.diverging(np.ones(1, np.float32), 1.0)[0]
    faint = render.diverging(np.full(1, 0.1, np.float32), 1.0)[0]
    for image, size in ((sheet.strip(shown), 190), (sheet.contact_sheet([shown]), 100)):
        assert has_colour(image, full)
        assert (image == faint).all(axis=-1).sum() >= size * size


def test_not_finite_values_are_told() -> None:
    attributions = np.full((8, 8, 1), np.nan, np.float32)
    broken = sheet.Sample(0, 1, 1, (sheet.Panel("integrated_gradients", 0, attributions, 1, 1.0),), np.ones((8, 8, 1)))
    image = sheet.strip(broken)
    assert has_colour(image, render.NOT_FINITE)
    assert has_colour(image, RED)


@pytest.mark.parametrize("shape", [(13,), (40, 3), (224, 224, 3), (1, 1, 1)])
@pytest.mark.parametrize("inputs", [True, False])
def test_samples_of_any_shape_are_drawn(shape: tuple[int, ...], inputs: bool) -> None:
    attributions = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    panels = (sheet.Panel("integrated_gradients", 0, attributions, 1, 1.0, 0.1),)
    shown = sheet.Sample(0, 1, 1, panels, np.abs(attributions) if inputs else None)
    assert sheet.strip(shown).shape[1] >= 420
    assert sheet.contact_sheet([shown] * 3).size > 0


@pytest.mark.parametrize("inputs", [True, False])
def test_epochs_are_drawn_without_inputs_too(inputs: bool) -> None:
    assert sheet.strip(sample(3, inputs=inputs)).size > 0


def test_names_that_the_font_lacks_and_very_long_ones_are_drawn() -> None:
    names = ["", "", "", "élève 猫 " * 40 + "x" * 500]
    assert sheet.strip(sample(), class_names=names).shape[1] < 1000


def test_contact_sheet_puts_many_samples_in_rows() -> None:
    image = sheet.contact_sheet([sample(sample_id=index, prediction=index % 10) for index in range(32)], title="run")
    assert image.shape[1] <= 1460
    assert image.shape[0] <= 2000
    assert has_colour(image, RED)
    assert has_colour(image, GREEN)
    assert sheet.contact_sheet([sample()]).shape[1] < 1460


def test_nothing_to_show_is_an_error() -> None:
    with pytest.raises(ValueError, match="no sample to show"):
        sheet.contact_sheet([])
    with pytest.raises(ValueError, match="sample 4 has no explanation"):
        sheet.strip(sheet.Sample(4, 1, 1, ()))


def test_a_sheet_too_large_is_refused_before_it_is_drawn() -> None:
    with pytest.raises(ValueError, match="fewer samples at a time"):
        sheet.contact_sheet([sample()] * 5000)
