"""Horovod's collectives on single values and on variables, in the terms of
`horovod.tensorflow.keras`.
"""

from collections.abc import Iterable
from typing import Any

import horovod.tensorflow as horovod
import keras
import tensorflow as tf
from horovod.tensorflow.compression import Compressor

from hvd_xai.keras import collectives
from hvd_xai.keras.collectives import Average, Compression


def allreduce(
    value: Any,
    name: str | None = None,
    average: bool | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    op: int | None = None,
    compression: type[Compressor] = Compression.none,
) -> "tf.Tensor | tf.IndexedSlices":
    """Reduces a value over the ranks. Collective: every rank must call this.

    Args:
        value: of one shape and dtype on all ranks.
        name: of the collective, the same on all ranks.
        average: Horovod's old way to choose between `Average` and `Sum`; use `op`.
        prescale_factor: what values are multiplied with before.
        postscale_factor: what the result is multiplied with.
        op: `Average` by default, `Sum`, `Adasum`, `Min`, `Max` or `Product`.
        compression: of what travels.

    Returns:
        The reduced value, in the shape and dtype of `value`.
    """
    return horovod.allreduce(
        _tensor(value), average, name=name, op=op, compression=compression, prescale_factor=prescale_factor,
        postscale_factor=postscale_factor,
    )  # fmt: skip


def allgather(value: Any, name: str | None = None) -> "tf.Tensor":
    """Concatenates the ranks' values along their first axis, which may differ in length.

    Collective: every rank must call this.
    """
    return horovod.allgather(_tensor(value), name=name)


def broadcast(value: Any, root_rank: int, name: str | None = None) -> "tf.Tensor":
    """Returns the value of the root on all ranks; shape and dtype are the same on all.

    Collective: every rank must call this.
    """
    return horovod.broadcast(_tensor(value), root_rank, name=name)


def reducescatter(value: Any, name: str | None = None, op: int = Average) -> "tf.Tensor":
    """Reduces a value and gives each rank its part along the first axis.

    Collective: every rank must call this.
    """
    return horovod.reducescatter(_tensor(value), name=name, op=op)


def broadcast_variables(
    variables: "Iterable[keras.Variable | tf.Variable]", root_rank: int
) -> None:
    """Gives every rank the root's values of Keras's or TensorFlow's variables.

    Collective: every rank must call this.

    Leave the states of seed generators out: with equal ones every rank drops out the same units, as
    `BroadcastGlobalVariablesCallback` knows.
    """
    collectives.broadcast(list(variables), root_rank)


def broadcast_global_variables(root_rank: int) -> None:
    """Refuses, as Horovod does under TensorFlow 2, which has no global variables.

    Raises:
        RuntimeError: always, with what to call instead.
    """
    raise RuntimeError(
        "TensorFlow 2 has no global variables. Call broadcast_variables([*model.variables,"
        f" *model.optimizer.variables], root_rank={root_rank}), or pass"
        f" BroadcastGlobalVariablesCallback({root_rank}) to fit"
    )


def _tensor(value: Any) -> "tf.Tensor | tf.IndexedSlices":
    return value if isinstance(value, tf.IndexedSlices) else tf.convert_to_tensor(value)
