"""The loops under all methods cut, pad and sum."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.primitives.quadrature import midpoint
from hvd_xai.tracing import micro_batches

SUM_TOLERANCE = 1e-12  # of up to 1,000 weights in float64


@pytest.mark.parametrize("n_nodes", [1, 3, 50, 256, 257, 1000, 1001])
@pytest.mark.parametrize("micro_batch", [2, 7, 64, 256])
def test_a_cut_keeps_the_integral_and_fits_the_micro_batch(n_nodes: int, micro_batch: int) -> None:
    nodes, weights = midpoint(n_nodes)
    blocks = micro_batches.cut(nodes, weights, micro_batch)
    assert blocks.n_examples * blocks.nodes.shape[1] <= micro_batch
    assert blocks.nodes.shape == blocks.weights.shape
    assert abs(blocks.weights.sum() - 1) < SUM_TOLERANCE
    assert (
        abs((blocks.weights * blocks.nodes**2).sum() - (weights * nodes**2).sum()) < SUM_TOLERANCE
    )
    assert np.all(np.isin(blocks.nodes, nodes))  # padding repeats a node; it invents none


def test_a_cut_fills_the_micro_batch_with_whole_examples() -> None:
    assert micro_batches.cut(*midpoint(50), 256).n_examples == 5
    assert micro_batches.cut(*midpoint(1000), 256).nodes.shape == (4, 250)


def compiled(function: Callable[..., object], n_rows: int) -> Callable[..., object]:
    joined: Callable[..., object] = tf.function(
        lambda *arrays: micro_batches.map_blocks(function, arrays, n_rows), autograph=False
    )
    return joined


@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 11])
def test_rows_come_back_in_order(n: int) -> None:
    x, y = tf.reshape(tf.range(n * 2, dtype=tf.float32), [n, 2]), tf.range(n)
    joined = compiled(lambda a, b: {"double": 2 * a, "both": (b, tf.reduce_sum(a, axis=1))}, 4)(
        x, y
    )
    np.testing.assert_array_equal(joined["double"], 2 * x)  # type: ignore[index]
    np.testing.assert_array_equal(joined["both"][0], y)  # type: ignore[index]
    np.testing.assert_array_equal(joined["both"][1], tf.reduce_sum(x, axis=1))  # type: ignore[index]


def test_every_block_has_the_same_shape_and_padding_repeats_the_last_row() -> None:
    shapes: list[tuple[int, ...]] = []

    def count_finite(block: tf.Tensor) -> tf.Tensor:
        shapes.append(tuple(block.shape))
        return tf.repeat(tf.reduce_min(block)[None], 4)

    joined = compiled(count_finite, 4)(tf.constant([3.0, 2.0, 5.0, 4.0, 7.0, 6.0]))
    np.testing.assert_array_equal(joined, [2, 2, 2, 2, 6, 6])  # zeros as padding would show as 0
    assert shapes == [(4,)]


def test_a_nan_stays_in_its_row() -> None:
    joined = compiled(lambda block: block + 1, 4)(tf.constant([1.0, np.nan, 3.0, 4.0, np.inf]))
    np.testing.assert_array_equal(joined, [2.0, np.nan, 4.0, 5.0, np.inf])


def test_works_eagerly() -> None:
    np.testing.assert_array_equal(
        micro_batches.map_blocks(lambda block: -block, (tf.range(5),), 2), -tf.range(5)
    )


def test_blocks_within_blocks_keep_their_shape() -> None:
    # so that a method which forms micro-batches can be called by one that is given them
    joined = compiled(
        lambda block: micro_batches.map_blocks(lambda inner: 2 * inner, (block,), 3), 4
    )(tf.range(6))
    np.testing.assert_array_equal(joined, 2 * tf.range(6))


def test_a_function_that_loses_the_examples_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"must have shape \(4, ...\), all of it known before it runs; got \(\)"
    ):
        compiled(tf.reduce_sum, 4)(tf.zeros(3))


@pytest.mark.parametrize("micro_batch", [2, 3, 64])
def test_chunks_add_up(micro_batch: int) -> None:
    blocks = micro_batches.cut(*midpoint(7), micro_batch)
    total = micro_batches.sum_over_chunks(
        lambda nodes, weights: tf.reduce_sum(weights * nodes)[None] * [1.0, 2.0], blocks, (2,)
    )
    np.testing.assert_allclose(total, [0.5, 1.0], rtol=1e-6)


@pytest.mark.parametrize(("n_rows", "size"), [(1, 1), (4, 4), (5, 3), (8, 4), (9, 3), (10, 4)])
def test_parts_are_few_and_equal(n_rows: int, size: int) -> None:
    assert micro_batches.size_of_parts(n_rows, 4) == size


def test_no_rows_at_a_time_are_refused() -> None:
    with pytest.raises(
        ValueError,
        match="micro_batch is how many rows go through the model at once, at least 1; got 0",
    ):
        micro_batches.cut(*midpoint(3), 0)


@pytest.mark.parametrize(
    ("shape", "n"),
    [
        ((), 256),
        ((30,), 256),
        ((28, 28, 1), 256),
        ((224, 224, 3), 10),
        ((64, 64, 1), 256),
        ((2000, 2000, 3), 10),
    ],
)
def test_a_micro_batch_fits_its_inputs(shape: tuple[int, ...], n: int) -> None:
    assert micro_batches.propose_size(shape) == n
