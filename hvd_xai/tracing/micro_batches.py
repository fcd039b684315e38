"""Runs many examples through a model in micro-batches of one fixed size.

Nothing here depends on how many examples there are: a micro-batch always has the same shape, and
what belongs to an example is always split and summed in the same way. So one example alone, ten
thousand examples, and any shard of them give the same numbers, and the micro-batch bounds the
memory. A micro-batch that is not full repeats a row that it holds anyway, so that padding can bring
in neither a NaN nor a new value.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Float64

# of large inputs: 50 and 20 points of a path are whole numbers of such micro-batches, and none is
# filled up
_FEWEST = 10


class Blocks(NamedTuple):
    """Nodes and weights of a quadrature rule, cut to fit micro-batches of (example x node) rows.

    Attributes:
        n_examples: number of examples in a micro-batch.
        nodes: nodes at which each example is evaluated, `s` of them at a time, `[chunk, s]`.
        weights: weights of the nodes, `[chunk, s]`.
    """

    n_examples: int
    nodes: Float64[np.ndarray, "chunk s"]
    weights: Float64[np.ndarray, "chunk s"]


def propose_size(shape: tuple[int, ...]) -> int:
    """Returns how many inputs of this shape to put through a model at once.

    It proposes 256 for small inputs, down to 10 for large ones. A million input values keep the
    cores busy and the activations of a usual convolutional network below some gigabytes: 256 images
    of 28 x 28, 10 of 224 x 224 x 3. The number depends on the shape alone, so that every rank, and
    every number of ranks, computes alike.
    """
    n_values = max(1, math.prod(shape))
    return (
        min(256, max(_FEWEST, 1 << ((2**20 // n_values).bit_length() - 1)))
        if n_values <= 2**20
        else _FEWEST
    )


def check_micro_batch(micro_batch: int) -> None:
    """Raises `ValueError` unless a micro-batch has at least one row."""
    if micro_batch < 1:
        raise ValueError(
            "micro_batch is how many rows go through the model at once, at least 1; got"
            f" {micro_batch}"
        )


def size_of_parts(n_rows: int, micro_batch: int) -> int:
    """Returns the rows in each part, when rows are cut in as few parts as fit micro-batches.

    The parts are as equal as can be, so that the last one is filled up as little as can be.
    """
    # -(-a // b) rounds up.
    n_parts = -(-n_rows // micro_batch)
    return -(-n_rows // n_parts)


def cut(
    nodes: Float64[np.ndarray, "s"], weights: Float64[np.ndarray, "s"], micro_batch: int
) -> Blocks:
    """Cuts nodes and weights so that whole examples, or equal parts of one, fit a micro-batch.

    Where the parts would not be equal, the last node is repeated and its weight shared between the
    copies: the weighted sum stays what it was.

    Args:
        nodes: nodes of a quadrature rule, `[s]`.
        weights: weights of the nodes, `[s]`.
        micro_batch: largest number of rows that go through the model at once.

    Returns:
        The cut. `n_examples * s` is never more than `micro_batch`, and leaves room for both ends of
        each example's path.

    Raises:
        ValueError: if `micro_batch` is less than 1.
    """
    check_micro_batch(micro_batch)
    per_chunk = size_of_parts(len(nodes), micro_batch)
    n_chunks = -(-len(nodes) // per_chunk)
    #     7 nodes, at most 3 at once:   a b c | d e f | g g g     g's weight in three parts
    n_copies = n_chunks * per_chunk - len(nodes)
    nodes = np.append(nodes, np.repeat(nodes[-1:], n_copies))
    weights = np.append(weights[:-1], np.repeat(weights[-1:] / (n_copies + 1), n_copies + 1))
    return Blocks(
        max(1, micro_batch // max(2, per_chunk)),
        nodes.reshape(n_chunks, per_chunk),
        weights.reshape(n_chunks, per_chunk),
    )


def sum_over_chunks(
    function: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], blocks: Blocks, shape: tuple[int, ...]
) -> tf.Tensor:
    """Returns the sum of `function(nodes, weights)` over the chunks of `blocks`, in float32.

    Args:
        function: function of nodes and weights, float32 `[s]` each, that returns float32 of
            `shape`.
        blocks: cut quadrature rule.
        shape: shape of the function's result.
    """
    nodes, weights = tf.constant(blocks.nodes, tf.float32), tf.constant(blocks.weights, tf.float32)
    if len(blocks.nodes) == 1:
        return function(nodes[0], weights[0])
    _, total = tf.while_loop(
        lambda chunk, _: chunk < len(blocks.nodes),
        lambda chunk, total: (chunk + 1, total + function(nodes[chunk], weights[chunk])),
        (tf.constant(0), tf.zeros(shape)),
        parallel_iterations=1,
    )
    return total


def map_blocks(function: Callable[..., Any], arrays: tuple[tf.Tensor, ...], n_rows: int) -> Any:
    """Applies a function to blocks of exactly `n_rows` rows, one by one, and joins the results.

    Args:
        function: function of one block of each array, `[n_rows, ...]`, that returns a nest of
            tensors `[n_rows, ...]`; it is traced once.
        arrays: arrays `[n, ...]` with the same n, which may be 0, and may be unknown while tracing.
        n_rows: number of rows in a block; the last block repeats the last row where it is not full.

    Returns:
        The same nest with tensors `[n, ...]`; n is known while tracing if the arrays' n is.

    Raises:
        ValueError: if the function returns anything whose first axis is not the block's examples.
    """
    check_micro_batch(n_rows)
    # Traced as a function of its own: the loop below must know what comes out before it runs, and
    # tracing twice would cost twice.
    block = tf.function(function, autograph=False).get_concrete_function(
        *[tf.TensorSpec([n_rows, *a.shape[1:]], a.dtype) for a in arrays]
    )
    signature = tf.nest.flatten(block.structured_outputs)
    for tensor in signature:
        if (
            tensor.shape.rank is None
            or tensor.shape.rank < 1
            or tensor.shape[0] != n_rows
            or not tensor.shape.is_fully_defined()
        ):
            raise ValueError(
                f"what is computed for {n_rows} examples must have shape ({n_rows}, ...), all of it"
                f" known before it runs; got {tensor.shape}. Keep examples on the first axis."
            )
    n_examples = tf.shape(arrays[0])[0]
    n_blocks = (n_examples + n_rows - 1) // n_rows

    def body(
        index: tf.Tensor, joined: list[tf.TensorArray]
    ) -> tuple[tf.Tensor, list[tf.TensorArray]]:
        #     n = 5, n_rows = 2:   0 1 | 2 3 | 4 4     the last row fills up
        examples = tf.minimum(index * n_rows + tf.range(n_rows), n_examples - 1)
        returned = tf.nest.flatten(block(*[tf.gather(array, examples) for array in arrays]))
        return index + 1, [
            array.write(index, tensor) for array, tensor in zip(joined, returned, strict=True)
        ]

    _, joined = tf.while_loop(
        lambda index, _: index < n_blocks,
        body,
        (
            tf.constant(0),
            [
                tf.TensorArray(tensor.dtype, n_blocks, element_shape=tensor.shape)
                for tensor in signature
            ],
        ),
        parallel_iterations=1,
    )
    tensors = [
        tf.reshape(array.stack(), [-1, *tensor.shape[1:]])[:n_examples]
        for array, tensor in zip(joined, signature, strict=True)
    ]
    tensors = [
        tf.ensure_shape(tensor, [arrays[0].shape[0], *tensor.shape[1:]]) for tensor in tensors
    ]
    return tf.nest.pack_sequence_as(block.structured_outputs, tensors)
