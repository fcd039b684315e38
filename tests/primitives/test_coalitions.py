"""Features as cells of a grid, and inputs with some of them absent."""

from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.attributions.occlusion import occlusion
from hvd_xai.compute.attribute import Compute
from hvd_xai.primitives import coalitions
from hvd_xai.protocols import Channels


@pytest.mark.parametrize("shape", [(30,), (50, 2), (28, 28, 1), (9, 5, 13, 1), (3, 100, 3)])
@pytest.mark.parametrize("patch", [None, 1, 3])
def test_cells_are_contiguous_and_equal_up_to_one_place(
    shape: tuple[int, ...], patch: int | None
) -> None:
    channels: Channels = "none" if len(shape) == 1 else "last"
    cells = coalitions.divide(shape, patch, channels)
    for cell, count, size, side in zip(
        cells.along,
        cells.counts,
        coalitions.places(shape, channels),
        coalitions.sides(shape, patch, channels),
        strict=True,
    ):
        n_places = np.bincount(cell)
        assert np.all(np.diff(cell) >= 0)
        assert len(cell) == size
        assert len(n_places) == count == -(-size // side)
        assert n_places.max() - n_places.min() <= 1
        assert n_places.max() <= side


def test_left_out_a_patch_is_a_seventh_of_an_image_and_one_value_of_a_table() -> None:
    assert coalitions.divide((224, 28, 3), None, "last").counts == (7, 7)
    assert coalitions.divide((3, 224, 28), None, "first").counts == (7, 7)
    assert coalitions.divide((224, 28), None, "none").counts == (7, 7)
    assert coalitions.divide((30,), None, "none").counts == (30,)


@pytest.mark.parametrize(
    ("patch", "shown"), [(0, "0"), (5, "5"), ((2, 2, 1), r"\(2, 2, 1\)"), ((2,), r"\(2,\)")]
)
def test_a_patch_that_does_not_fit_is_refused(patch: int | tuple[int, ...], shown: str) -> None:
    with pytest.raises(
        ValueError, match=rf"one side for each of the axes \(4, 8\), .* got patch={shown}"
    ):
        coalitions.divide((4, 8, 3), patch, "last")


def test_a_single_number_has_no_parts() -> None:
    with pytest.raises(ValueError, match="no parts that could be taken away"):
        coalitions.divide((), None, "none")


@pytest.mark.parametrize("dtype", [bool, np.float32])
def test_a_coalition_shows_its_cells_with_all_their_channels(dtype: type) -> None:
    inputs = np.arange(1, 2 * 4 * 5 * 2 + 1, dtype=np.float32).reshape(2, 4, 5, 2)
    absent = -inputs
    cells = coalitions.divide((4, 5, 2), (2, 3), "last")  # cells of 2 x 3 and 2 x 2 places
    present: np.ndarray = np.array(
        [[[1, 1, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0]], [[0, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 1]]],
        dtype,
    )
    points = coalitions.mix(
        tf.constant(inputs),
        tf.constant(absent),
        coalitions.spread(cells, tf.constant(present)),
        "last",
    ).numpy()
    np.testing.assert_array_equal(points[0, 0], inputs[0])
    np.testing.assert_array_equal(points[0, 1], absent[0])
    want = absent[0].copy()
    want[:2, 3:] = inputs[0, :2, 3:]
    np.testing.assert_array_equal(points[0, 2], want)
    want = absent[1].copy()
    want[2:, :3] = inputs[1, 2:, :3]
    np.testing.assert_array_equal(points[1, 0], want)


def test_a_feature_may_be_half_there() -> None:
    inputs = tf.constant([[2.0, 4.0]])
    points = coalitions.mix(
        inputs,
        0 * inputs,
        coalitions.spread(coalitions.divide((2,), None, "none"), tf.constant([[[0.5, 0.25]]])),
        "none",
    )
    np.testing.assert_array_equal(points, [[[1.0, 1.0]]])


def test_each_row_may_have_a_baseline_of_its_own() -> None:
    inputs = tf.constant([[2.0, 4.0]])
    points = coalitions.mix(
        inputs, tf.constant([[[7.0, 7.0], [8.0, 8.0]]]), tf.constant([[[True, False]] * 2]), "none"
    )
    np.testing.assert_array_equal(points, [[[2.0, 7.0], [2.0, 8.0]]])


@pytest.mark.parametrize("n_rows", [1, 5, 50, 256, 257, 1000])
@pytest.mark.parametrize("micro_batch", [1, 7, 64, 256])
def test_a_cut_fits_the_micro_batch(n_rows: int, micro_batch: int) -> None:
    cut = coalitions.cut(n_rows, micro_batch)
    assert cut.n_examples >= 1
    assert cut.n_examples * cut.n_at_once <= micro_batch
    assert cut.n_rows == n_rows
    assert cut.n_examples == 1 or cut.n_at_once == n_rows  # an example in parts stands alone


def test_random_numbers_depend_on_seed_and_sample_id_alone() -> None:
    ids = tf.constant([5, 2**62, 5, 7], tf.int64)
    drawn = coalitions.uniform(3, ids, (4, 2)).numpy()
    np.testing.assert_array_equal(drawn[0], drawn[2])
    np.testing.assert_array_equal(drawn[3:], coalitions.uniform(3, ids[3:], (4, 2)))
    everything = np.concatenate([drawn[[0, 1, 3]], coalitions.uniform(4, ids[:1], (4, 2))])
    assert len(np.unique(everything)) == everything.size
    assert np.all((everything >= 0) & (everything < 1))


def test_a_table_of_token_ids_is_explained_place_by_place() -> None:
    keras.utils.set_random_seed(2)
    tokens = keras.Input((6,), dtype="int32")
    embedded = keras.layers.Embedding(9, 3)(tokens)
    model = keras.Model(
        tokens, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling1D()(embedded))
    )
    inputs = np.array([[1, 2, 3, 4, 5, 0], [8, 8, 0, 0, 0, 1]], np.int32)
    attributions = Compute(model, partial(occlusion, patch=1))(
        inputs, np.array([0, 1]), np.arange(2)
    ).attributions
    for i, j in ((0, 2), (1, 5), (1, 3)):
        padded = inputs[i : i + 1].copy()
        padded[0, j] = 0
        drop = model(inputs[i : i + 1])[0, i] - model(padded)[0, i]
        assert abs(attributions[i, j] - drop) < 1e-6
