"""Takes features of the inputs away, for methods that look at a model in that manner.

A coalition says of each feature whether it is present, or, from 0 to 1, how much of it is. Features
are the cells of a grid over the places of an input: pixels, time steps, voxels, all channels of a
place together. In a table each value is a place. What stands where a feature is absent is the
baseline's business.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float32, Int, Int32, Int64, Shaped

from hvd_xai import scores
from hvd_xai.protocols import Channels, Score
from hvd_xai.tracing import micro_batches, packed_model
from hvd_xai.tracing.channels import channel_axis, place_axes

# where nothing else is asked for: 49 features of an image, which a few hundred rows tell apart
CELLS_OF_AN_AXIS = 7


class Cells(NamedTuple):
    """Division of the places of an input into features.

    Attributes:
        along: cell that each place of an axis belongs to, one array `[size of the axis]` for each
            axis.
        counts: number of cells along each axis.
    """

    along: tuple[Int[np.ndarray, "_"], ...]
    counts: tuple[int, ...]

    @property
    def n_features(self) -> int:
        """Number of features."""
        return math.prod(self.counts)


class Cut(NamedTuple):
    """Division of (example x coalition) rows into micro-batches.

    Attributes:
        n_examples: number of examples in a micro-batch.
        n_rows: number of coalitions of an example.
        n_at_once: number of an example's coalitions that go through the model at once.
    """

    n_examples: int
    n_rows: int
    n_at_once: int


def places(shape: tuple[int, ...], channels: Channels) -> tuple[int, ...]:
    """Returns the lengths of the axes of an input along which it has places.

    A table's row has places along its only axis; everything else along all axes but the channels.

    Args:
        shape: shape of one input, without the axis of examples.
        channels: where the input has its channels, as `tracing.channels` settles it.

    Raises:
        ValueError: if an input is a single number.
    """
    if not shape:
        raise ValueError(
            "an input of shape () has no parts that could be taken away; give it an axis"
        )
    return tuple(shape[axis - 1] for axis in place_axes(channels, len(shape) + 1))


def sides(
    shape: tuple[int, ...], patch: int | tuple[int, ...] | None, channels: Channels
) -> tuple[int, ...]:
    """Returns the sides of a patch, in places, for inputs of a shape.

    Args:
        shape: shape of an input, without the examples.
        patch: side of a patch along every axis, or along each; if left out, a seventh of each axis,
            and single values of tabular inputs.
        channels: where the inputs have their channels, as for `places`.

    Raises:
        ValueError: if a patch has another number of sides than the input has axes of places, or a
            side does not fit its axis.
    """
    sizes = places(shape, channels)
    if patch is None:
        return (1,) if len(shape) == 1 else tuple(-(-size // CELLS_OF_AN_AXIS) for size in sizes)
    lengths = (patch,) * len(sizes) if isinstance(patch, int) else tuple(patch)
    if len(lengths) != len(sizes) or any(
        not 1 <= length <= size for length, size in zip(lengths, sizes, strict=True)
    ):
        raise ValueError(
            f"a patch has one side for each of the axes {sizes}, from 1 to the axis' size; got"
            f" patch={patch}"
        )
    return lengths


def divide(
    shape: tuple[int, ...], patch: int | tuple[int, ...] | None, channels: Channels
) -> Cells:
    """Divides the places of an input into cells of about the size of a patch.

    Each axis gets as many cells as patches are needed to cover it, as equal as can be: their sides
    differ by one place at most.

    Args:
        shape: shape of one input, without the axis of examples.
        patch: side of a feature in places, as for `sides`.
        channels: where the inputs have their channels, as for `places`.

    Raises:
        ValueError: as `sides`.
    """
    sizes = places(shape, channels)
    counts = tuple(
        -(-size // side) for size, side in zip(sizes, sides(shape, patch, channels), strict=True)
    )
    return Cells(
        tuple(np.arange(size) * count // size for size, count in zip(sizes, counts, strict=True)),
        counts,
    )


def spread(cells: Cells, present: Shaped[tf.Tensor, "a r m"]) -> Shaped[tf.Tensor, "a r ..."]:
    """Returns whether, or how much, each place is present, from what its feature is.

    The features `[a, r, m]` become places `[a, r, h, w]`.
    """
    lead = present.shape[:2]
    #     features [a, r, m] -> cells [a r, h', w'] -> places [a r, h, w] -> [a, r, h, w]
    spread_out = tf.reshape(present, [lead[0] * lead[1], *cells.counts])
    # the last axis first, as long as there is little to copy
    for axis in reversed(range(len(cells.counts))):
        if cells.counts[axis] != len(cells.along[axis]):
            spread_out = tf.gather(spread_out, cells.along[axis], axis=axis + 1)
    return tf.reshape(spread_out, [*lead, *[len(cell) for cell in cells.along]])


def settled(
    model: keras.Model, present: Float32[tf.Tensor, "a r ..."]
) -> Float32[tf.Tensor, "a r ..."]:
    """Returns how much each place is present, rounded to all or nothing for whole numbers.

    Only packed inputs have such values: half a token is another token.
    """
    is_whole = packed_model.whole_numbers(model)
    return present if is_whole is None else tf.where(is_whole, tf.round(present), present)


def mix(
    inputs: Float32[tf.Tensor, "n ..."],
    absent: Float32[tf.Tensor, "n ..."],
    present: Shaped[tf.Tensor, "a r ..."],
    channels: Channels,
) -> Float32[tf.Tensor, "n r ..."]:
    """Returns a version of each input for each coalition.

    A place shows the input where it is present and `absent` where it is not. What is present keeps
    its very value.

    Args:
        inputs: examples `[n, ...]`.
        absent: values of absent places: of the shape of the inputs, or `[n, r, ...]` with other
            values for each coalition.
        present: whether, or how much from 0 to 1, each place is present: `[n, r, h, w]`, or `[1, r,
            h, w]` where all inputs share the coalitions.
        channels: where the inputs have their channels, all of which a place shows or hides.
    """
    axis = channel_axis(channels, inputs.shape.rank)
    if absent.shape.rank == inputs.shape.rank:
        absent = absent[:, None]
    if axis is not None:
        # [a, r, h, w] lacks the channels, and has the rows, which the inputs have not.
        present = tf.expand_dims(present, axis + 1)
    if present.dtype.is_bool:
        # Not a sum of products: 0 times an infinity is NaN, and rounding would change the input.
        return tf.where(present, inputs[:, None], absent)
    return present * inputs[:, None] + (1 - present) * absent


def cut(n_rows: int, micro_batch: int) -> Cut:
    """Cuts coalitions so that whole examples, or equal parts of one, fit a micro-batch.

    Raises:
        ValueError: if `micro_batch` is less than 1.
    """
    micro_batches.check_micro_batch(micro_batch)
    n_at_once = micro_batches.size_of_parts(n_rows, micro_batch)
    return Cut(micro_batch // n_at_once, n_rows, n_at_once)


def evaluate(
    model: keras.Model,
    points: Float32[tf.Tensor, "n r ..."],
    targets: Shaped[tf.Tensor, "n"],
    score: str | Score,
) -> Float32[tf.Tensor, "n r"]:
    """Returns the scores of several versions of each example, all computed at once."""
    n_examples, n_rows = points.shape[:2]
    values = scores.evaluate(
        model, tf.reshape(points, [-1, *points.shape[2:]]), tf.repeat(targets, n_rows), score
    )
    return tf.reshape(values, [n_examples, n_rows])


def evaluate_rows(
    model: keras.Model,
    points: Callable[[tf.Tensor], tf.Tensor],
    targets: Shaped[tf.Tensor, "n"],
    score: str | Score,
    cut: Cut,
) -> Float32[tf.Tensor, "n r"]:
    """Returns the scores of all coalitions of a block of examples, a micro-batch at a time.

    Args:
        model: any built Keras model of one input.
        points: function of numbers of coalitions `[r]`, from 0 on, that returns these versions of
            each example, `[n, r, ...]`.
        targets: what the score selects for each example, `[n]`.
        score: scalar to explain, by name or as a function.
        cut: division into micro-batches.
    """
    if cut.n_at_once == cut.n_rows:
        return evaluate(model, points(tf.range(cut.n_rows)), targets, score)

    def evaluate_chunk(row: tf.Tensor) -> tf.Tensor:
        return tf.transpose(evaluate(model, points(row), targets, score))

    values = micro_batches.map_blocks(evaluate_chunk, (tf.range(cut.n_rows),), cut.n_at_once)
    return tf.ensure_shape(tf.transpose(values), [cut.n_examples, cut.n_rows])


def uniform(
    seed: int, ids: Int64[tf.Tensor, "n"], shape: tuple[int, ...]
) -> Float32[tf.Tensor, "n ..."]:
    """Returns random numbers between 0 and 1, `[n, *shape]`.

    An example's numbers depend on the seed and its sample id alone.
    """
    return tf.map_fn(
        lambda sample_id: tf.random.stateless_uniform(
            shape, tf.stack([tf.constant(seed, tf.int64), sample_id]), alg="philox"
        ),
        ids,
        fn_output_signature=tf.TensorSpec(shape, tf.float32),
    )


def orders(drawn: Float32[tf.Tensor, "*any m"]) -> Int32[tf.Tensor, "*any m"]:
    """Returns random orders made of independent random numbers.

    Each order says of `m` features which place they have in it.
    """
    return tf.argsort(drawn, axis=-1)
