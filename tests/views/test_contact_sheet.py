"""Pictures with captions, read back as pixels."""

import numpy as np
import pytest

from hvd_xai.views import contact_sheet, pixels

RED, GREEN = (192, 0, 32), (0, 110, 60)


def has_colour(image: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((image == np.array(colour, np.uint8)).all(axis=-1).any())


def sample(
    n_epochs: int = 1,
    *,
    prediction: float = 3,
    target: float = 3,
    inputs: bool = True,
    sample_id: int = 17,
) -> contact_sheet.Sample:
    shape = (8, 8, 1)
    generator = np.random.default_rng(sample_id)
    panels = []
    for epoch in range(n_epochs):
        attributions = generator.normal(size=shape).astype(np.float32)
        panels.append(
            contact_sheet.Panel("integrated_gradients", epoch, attributions, prediction, 0.9, 0.001)
        )
        panels.append(
            contact_sheet.Panel(
                "grad_cam",
                epoch,
                generator.random(shape[:1] * 2).astype(np.float32),
                prediction,
                0.9,
            )
        )
    return contact_sheet.Sample(
        sample_id, target, target, tuple(panels), generator.random(shape) if inputs else None
    )


def test_strip_holds_input_attributions_and_overlay_side_by_side() -> None:
    shown = sample()
    assert shown.inputs is not None
    image = contact_sheet.strip(shown)
    for expected in (
        pixels.picture(shown.inputs, 200).image,
        *(pixels.attributed(panel.attributions, shown.inputs, 200).image for panel in shown.panels),
    ):
        rows, columns, _ = expected.shape
        windows = np.lib.stride_tricks.sliding_window_view(image, (rows, columns, 3))[:, :, 0]
        corners = (windows[:, :, 0, 0] == expected[0, 0]).all(-1) & (
            windows[:, :, -1, -1] == expected[-1, -1]
        ).all(-1)
        assert any(np.array_equal(windows[y, x], expected) for y, x in np.argwhere(corners))


def test_colour_says_whether_the_prediction_is_right() -> None:
    assert has_colour(contact_sheet.strip(sample(prediction=3)), GREEN)
    assert not has_colour(contact_sheet.strip(sample(prediction=3)), RED)
    wrong = contact_sheet.strip(sample(prediction=5))
    assert has_colour(wrong, RED)
    assert not has_colour(wrong, GREEN)


def test_predicted_values_are_neither_right_nor_wrong() -> None:
    image = contact_sheet.strip(sample(prediction=1.5, target=1.5))
    assert not has_colour(image, RED)
    assert not has_colour(image, GREEN)


def test_class_names_are_drawn() -> None:
    assert not np.array_equal(
        contact_sheet.strip(sample(), class_names=["a", "b", "c", "cat"]),
        contact_sheet.strip(sample()),
    )


def test_epochs_become_columns() -> None:
    assert (
        contact_sheet.strip(sample(5)).shape[1] > contact_sheet.strip(sample(2)).shape[1] > 2 * 200
    )


def test_epochs_share_one_scale() -> None:
    weak, strong = np.full((8, 8, 1), 0.1, np.float32), np.full((8, 8, 1), 1.0, np.float32)
    panels = tuple(
        contact_sheet.Panel("integrated_gradients", epoch, values, 1, 1.0)
        for epoch, values in enumerate((weak, strong))
    )
    shown = contact_sheet.Sample(0, 1, 1, panels, np.ones((8, 8, 1)))
    full = pixels.diverging(np.ones(1, np.float32), 1.0)[0]
    faint = pixels.diverging(np.full(1, 0.1, np.float32), 1.0)[0]
    for image, size in (
        (contact_sheet.strip(shown), 190),
        (contact_sheet.contact_sheet([shown]), 100),
    ):
        assert has_colour(image, full)
        assert (image == faint).all(axis=-1).sum() >= size * size


@pytest.mark.parametrize("names", [(), ("a", "b", "c")])
@pytest.mark.parametrize("is_signed", [True, False])
def test_vectors_of_methods_without_sign_have_colours_that_have_none(
    names: tuple[str, ...], is_signed: bool
) -> None:
    panel = contact_sheet.Panel(
        "sobol",
        0,
        np.array([1.0, 0.5, 0.2], np.float32),
        1,
        1.0,
        feature_names=names,
        is_signed=is_signed,
    )
    image = contact_sheet.strip(contact_sheet.Sample(0, 1, 1, (panel,), np.ones(3)))
    yellow, red = (pixels.ramp(scale, 2, 1)[0, 1] for scale in ("sequential", "diverging"))
    assert [has_colour(image, yellow), has_colour(image, red)] == [not is_signed, is_signed]


def test_not_finite_values_are_told() -> None:
    attributions = np.full((8, 8, 1), np.nan, np.float32)
    broken = contact_sheet.Sample(
        0,
        1,
        1,
        (contact_sheet.Panel("integrated_gradients", 0, attributions, 1, 1.0),),
        np.ones((8, 8, 1)),
    )
    image = contact_sheet.strip(broken)
    assert has_colour(image, pixels.NOT_FINITE)
    assert has_colour(image, RED)


@pytest.mark.parametrize("shape", [(13,), (40, 3), (224, 224, 3), (1, 1, 1)])
@pytest.mark.parametrize("inputs", [True, False])
def test_samples_of_any_shape_are_drawn(shape: tuple[int, ...], inputs: bool) -> None:
    attributions = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    panels = (contact_sheet.Panel("integrated_gradients", 0, attributions, 1, 1.0, 0.1),)
    shown = contact_sheet.Sample(0, 1, 1, panels, np.abs(attributions) if inputs else None)
    assert contact_sheet.strip(shown).shape[1] >= 420
    assert contact_sheet.contact_sheet([shown] * 3).size > 0


@pytest.mark.parametrize("inputs", [True, False])
def test_epochs_are_drawn_without_inputs_too(inputs: bool) -> None:
    assert contact_sheet.strip(sample(3, inputs=inputs)).size > 0


def test_names_that_the_font_lacks_and_very_long_ones_are_drawn() -> None:
    names = ["", "", "", "élève 猫 " * 40 + "x" * 500]
    assert contact_sheet.strip(sample(), class_names=names).shape[1] < 1000


def test_contact_sheet_puts_many_samples_in_rows() -> None:
    image = contact_sheet.contact_sheet(
        [sample(sample_id=index, prediction=index % 10) for index in range(32)], title="run"
    )
    assert image.shape[1] <= 1460
    assert image.shape[0] <= 2000
    assert has_colour(image, RED)
    assert has_colour(image, GREEN)
    assert contact_sheet.contact_sheet([sample()]).shape[1] < 1460


def test_nothing_to_show_is_an_error() -> None:
    with pytest.raises(ValueError, match="no sample to show"):
        contact_sheet.contact_sheet([])
    with pytest.raises(ValueError, match="sample 4 has no explanation"):
        contact_sheet.strip(contact_sheet.Sample(4, 1, 1, ()))


def test_a_sheet_too_large_is_refused_before_it_is_drawn() -> None:
    with pytest.raises(ValueError, match="fewer samples at a time"):
        contact_sheet.contact_sheet([sample()] * 5000)


NAMES = tuple(f"feature {number}" for number in range(30))


def of_table(
    *epochs: np.ndarray, inputs: bool = True, names: tuple[str, ...] = NAMES
) -> contact_sheet.Sample:
    panels = tuple(
        contact_sheet.Panel("saliency", epoch, values, 1, 1.0, feature_names=names)
        for epoch, values in enumerate(epochs)
    )
    return contact_sheet.Sample(
        0, 1, 1, panels, np.linspace(-1, 1, len(epochs[0])) if inputs else None
    )


def bars_of(image: np.ndarray) -> list[int]:
    """Returns the lengths of red bars, from top to bottom, with those that stand side by side
    added."""
    red = (image == pixels.diverging(np.ones(1, np.float32), 1.0)[0]).all(axis=-1).sum(axis=1)
    # the end of a colour scale is a column or so
    starts = np.flatnonzero((red[1:] > 1) & (red[:-1] <= 1)) + 1
    return [int(red[start]) for start in starts]


def test_named_features_are_drawn_the_strongest_first_and_the_others_in_one_row() -> None:
    values = np.zeros(30, np.float32)
    values[[4, 9, 17]] = 0.5, 1.0, 0.25
    for image, half in (
        (contact_sheet.strip(of_table(values)), 100),
        (contact_sheet.contact_sheet([of_table(values)]), 52),
    ):
        assert bars_of(image)[:3] == [half, half // 2, half // 4]
    other = tuple("x" if name == "feature 9" else name for name in NAMES)
    least = tuple("x" if name == "feature 29" else name for name in NAMES)
    assert not np.array_equal(
        contact_sheet.strip(of_table(values, names=other)), contact_sheet.strip(of_table(values))
    )
    np.testing.assert_array_equal(
        contact_sheet.strip(of_table(values, names=least)), contact_sheet.strip(of_table(values))
    )


def test_two_epochs_have_their_features_in_one_order() -> None:
    before, after = np.zeros(30, np.float32), np.zeros(30, np.float32)
    before[[2, 3]], after[[2, 3]] = (0.5, 0.25), (0.25, 1.0)
    image = contact_sheet.contact_sheet([of_table(before, after)])
    assert bars_of(image) == [13 + 52, 26 + 13]  # feature 3 above feature 2


def of_text(
    *epochs: np.ndarray, words: tuple[str, ...], methods: tuple[str, ...] = ("saliency",)
) -> contact_sheet.Sample:
    panels = tuple(
        contact_sheet.Panel(method, epoch, values, 1, 1.0, words=words)
        for epoch, values in enumerate(epochs)
        for method in methods
    )
    return contact_sheet.Sample(0, 1, 1, panels, np.ones(len(words), np.int64))


def test_words_of_a_text_share_one_scale_over_epochs() -> None:
    values = np.array([0.25, 0.5, 1.0], np.float32)
    shown = of_text(values / 10, values, words=("not", "so", "bad"))
    limit = pixels.robust_limit(values)
    full, half, faint = (
        pixels.diverging(np.full(1, value, np.float32), limit)[0] for value in (1.0, 0.5, 0.05)
    )
    for image in (contact_sheet.strip(shown), contact_sheet.contact_sheet([shown])):
        assert has_colour(image, full)
        assert has_colour(image, half)
        assert has_colour(image, faint)


def test_a_text_stands_alone_and_its_methods_below_each_other() -> None:
    words = ("not", "so", "bad")
    values = np.array([0.25, 0.5, 1.0], np.float32)
    one, two = (
        of_text(values, words=words),
        of_text(values, words=words, methods=("saliency", "occlusion")),
    )
    without_inputs = contact_sheet.Sample(0, 1, 1, one.panels)
    np.testing.assert_array_equal(contact_sheet.strip(one), contact_sheet.strip(without_inputs))
    np.testing.assert_array_equal(
        contact_sheet.contact_sheet([one] * 3), contact_sheet.contact_sheet([without_inputs] * 3)
    )
    assert contact_sheet.strip(two).shape[1] == contact_sheet.strip(one).shape[1]
    assert contact_sheet.strip(two).shape[0] > contact_sheet.strip(one).shape[0]


@pytest.mark.parametrize("n_epochs", [1, 3])
def test_what_has_no_words_is_drawn_beside_what_has(n_epochs: int) -> None:
    shown = of_text(*[np.ones(3, np.float32)] * n_epochs, words=("not", "so", "bad"))
    panels = (
        *shown.panels,
        *(
            contact_sheet.Panel("rollout", epoch, np.ones(4, np.float32), 1, 1.0)
            for epoch in range(n_epochs)
        ),
    )
    mixed = contact_sheet.Sample(0, 1, 1, panels, shown.inputs)
    assert contact_sheet.strip(mixed).shape[0] > contact_sheet.strip(shown).shape[0]
    assert (
        contact_sheet.contact_sheet([mixed]).shape[1]
        >= contact_sheet.contact_sheet([shown]).shape[1]
    )


@pytest.mark.parametrize("inputs", [True, False])
@pytest.mark.parametrize("n_features", [1, 3, 30])
def test_tables_of_any_width_are_drawn_at_one_epoch_or_more(n_features: int, inputs: bool) -> None:
    values = np.random.default_rng(0).normal(size=(2, n_features)).astype(np.float32)
    names = tuple(f"{name} {'of a very long name ' * 9}" for name in NAMES[:n_features])
    assert (
        contact_sheet.strip(of_table(values[0], inputs=inputs, names=names)).shape[1]
        <= 2 * 20 + 400 + 18 + 201
    )
    assert contact_sheet.strip(of_table(*values, inputs=inputs, names=names)).size
    assert (
        contact_sheet.contact_sheet([of_table(*values, inputs=inputs, names=names)] * 5).shape[1]
        <= 1460
    )
