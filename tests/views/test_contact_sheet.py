"""Contact sheets, and what they share with strips, read back as pixels."""

import numpy as np
import pytest

from hvd_xai.views import pixels
from hvd_xai.views.contact_sheet import contact_sheet
from hvd_xai.views.samples import Panel, Sample
from hvd_xai.views.strip import strip
from tests.views.samples_under_test import (
    GREEN,
    NAMES,
    RED,
    has_colour,
    make_sample,
    make_table_sample,
    make_text_sample,
    red_bars,
)


def test_epochs_share_one_scale() -> None:
    weak, strong = np.full((8, 8, 1), 0.1, np.float32), np.full((8, 8, 1), 1.0, np.float32)
    panels = tuple(
        Panel("integrated_gradients", epoch, values, 1, 1.0)
        for epoch, values in enumerate((weak, strong))
    )
    shown = Sample(0, 1, 1, panels, np.ones((8, 8, 1)))
    full = pixels.diverging(np.ones(1, np.float32), 1.0)[0]
    faint = pixels.diverging(np.full(1, 0.1, np.float32), 1.0)[0]
    for image, size in (
        (strip(shown), 190),
        (contact_sheet([shown]), 100),
    ):
        assert has_colour(image, full)
        assert (image == faint).all(axis=-1).sum() >= size * size


@pytest.mark.parametrize("shape", [(13,), (40, 3), (224, 224, 3), (1, 1, 1)])
@pytest.mark.parametrize("inputs", [True, False])
def test_samples_of_any_shape_are_drawn(shape: tuple[int, ...], inputs: bool) -> None:
    attributions = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    panels = (Panel("integrated_gradients", 0, attributions, 1, 1.0, 0.1),)
    shown = Sample(0, 1, 1, panels, np.abs(attributions) if inputs else None)
    assert strip(shown).shape[1] >= 420
    assert contact_sheet([shown] * 3).size > 0


def test_contact_sheet_puts_many_samples_in_rows() -> None:
    image = contact_sheet(
        [make_sample(sample_id=index, prediction=index % 10) for index in range(32)], title="run"
    )
    assert image.shape[1] <= 1460
    assert image.shape[0] <= 2000
    assert has_colour(image, RED)
    assert has_colour(image, GREEN)
    assert contact_sheet([make_sample()]).shape[1] < 1460


def test_nothing_to_show_is_an_error() -> None:
    with pytest.raises(ValueError, match="no sample to show"):
        contact_sheet([])
    with pytest.raises(ValueError, match="sample 4 has no explanation"):
        strip(Sample(4, 1, 1, ()))


def test_a_sheet_too_large_is_refused_before_it_is_drawn() -> None:
    with pytest.raises(ValueError, match="fewer samples at a time"):
        contact_sheet([make_sample()] * 5000)


def test_named_features_are_drawn_the_strongest_first_and_the_others_in_one_row() -> None:
    values = np.zeros(30, np.float32)
    values[[4, 9, 17]] = 0.5, 1.0, 0.25
    for image, half in (
        (strip(make_table_sample(values)), 100),
        (contact_sheet([make_table_sample(values)]), 52),
    ):
        assert red_bars(image)[:3] == [half, half // 2, half // 4]
    other = tuple("x" if name == "feature 9" else name for name in NAMES)
    least = tuple("x" if name == "feature 29" else name for name in NAMES)
    assert not np.array_equal(
        strip(make_table_sample(values, names=other)), strip(make_table_sample(values))
    )
    np.testing.assert_array_equal(
        strip(make_table_sample(values, names=least)), strip(make_table_sample(values))
    )


def test_two_epochs_have_their_features_in_one_order() -> None:
    before, after = np.zeros(30, np.float32), np.zeros(30, np.float32)
    before[[2, 3]], after[[2, 3]] = (0.5, 0.25), (0.25, 1.0)
    image = contact_sheet([make_table_sample(before, after)])
    assert red_bars(image) == [13 + 52, 26 + 13]  # feature 3 above feature 2


def test_words_of_a_text_share_one_scale_over_epochs() -> None:
    values = np.array([0.25, 0.5, 1.0], np.float32)
    shown = make_text_sample(values / 10, values, words=("not", "so", "bad"))
    limit = pixels.robust_limit(values)
    full, half, faint = (
        pixels.diverging(np.full(1, value, np.float32), limit)[0] for value in (1.0, 0.5, 0.05)
    )
    for image in (strip(shown), contact_sheet([shown])):
        assert has_colour(image, full)
        assert has_colour(image, half)
        assert has_colour(image, faint)


def test_a_text_stands_alone_and_its_methods_below_each_other() -> None:
    words = ("not", "so", "bad")
    values = np.array([0.25, 0.5, 1.0], np.float32)
    one, two = (
        make_text_sample(values, words=words),
        make_text_sample(values, words=words, methods=("saliency", "occlusion")),
    )
    assert strip(two).shape[1] == strip(one).shape[1]
    assert strip(two).shape[0] > strip(one).shape[0]


@pytest.mark.parametrize("n_epochs", [1, 3])
def test_what_has_no_words_is_drawn_beside_what_has(n_epochs: int) -> None:
    shown = make_text_sample(*[np.ones(3, np.float32)] * n_epochs, words=("not", "so", "bad"))
    panels = (
        *shown.panels,
        *(Panel("rollout", epoch, np.ones(4, np.float32), 1, 1.0) for epoch in range(n_epochs)),
    )
    mixed = Sample(0, 1, 1, panels, shown.inputs)
    assert strip(mixed).shape[0] > strip(shown).shape[0]
    assert contact_sheet([mixed]).shape[1] >= contact_sheet([shown]).shape[1]


@pytest.mark.parametrize("inputs", [True, False])
@pytest.mark.parametrize("n_features", [1, 3, 30])
def test_tables_of_any_width_are_drawn_at_one_epoch_or_more(n_features: int, inputs: bool) -> None:
    values = np.random.default_rng(0).normal(size=(2, n_features)).astype(np.float32)
    names = tuple(f"{name} {'of a very long name ' * 9}" for name in NAMES[:n_features])
    assert (
        strip(make_table_sample(values[0], inputs=inputs, names=names)).shape[1]
        <= 2 * 20 + 400 + 18 + 201
    )
    assert strip(make_table_sample(*values, inputs=inputs, names=names)).size
    assert (
        contact_sheet([make_table_sample(*values, inputs=inputs, names=names)] * 5).shape[1] <= 1460
    )
