"""Collectives on values and on variables, under the names of `horovod.tensorflow.keras`."""

import weakref
from collections.abc import Iterable, MutableMapping, Sequence
from typing import Any, TypeAlias

import horovod.tensorflow as horovod
import keras
import numpy as np
import tensorflow as tf
from horovod.tensorflow.compression import Compressor

from hvd_xai.keras.horovod_names import Average, Compression, Sum
from hvd_xai.keras.start import init

Calls: TypeAlias = MutableMapping[Any, int]  # numbers of calls, by TensorFlow's graph

_BROADCASTS: Calls = weakref.WeakKeyDictionary()


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
        value: number, array, tensor or `tf.IndexedSlices`, with the same shape and dtype on all
            ranks.
        name: name of the collective in Horovod, the same on all ranks; by default TensorFlow
            numbers the calls.
        average: Horovod's older way to choose `Average` (True) or `Sum` (False); prefer `op`.
        prescale_factor: factor that multiplies every rank's value before it is sent.
        postscale_factor: factor that multiplies the result.
        op: `Average` (used if None), `Sum`, `Adasum`, `Min`, `Max` or `Product`.
        compression: encoding of what travels; `Compression.fp16` halves the traffic.

    Returns:
        The reduced value, in the shape and dtype of `value`.

    Example:
        >>> import hvd_xai.keras as hvd
        >>> world = hvd.init()
        >>> float(hvd.allreduce(3.0, op=hvd.Max))
        3.0
    """
    return horovod.allreduce(
        _tensor(value),
        average,
        name=name,
        op=op,
        compression=compression,
        prescale_factor=prescale_factor,
        postscale_factor=postscale_factor,
    )


def allgather(value: Any, name: str | None = None) -> "tf.Tensor":
    """Concatenates the ranks' values along the first axis. Collective: every rank must call this.

    Args:
        value: array or tensor; only the length of its first axis may differ between ranks.
        name: name of the collective in Horovod, the same on all ranks; by default TensorFlow
            numbers the calls.

    Returns:
        The values in the order of ranks, the same tensor on every rank.

    Example:
        >>> import hvd_xai.keras as hvd
        >>> world = hvd.init()
        >>> hvd.allgather([1.0, 2.0]).shape == (2 * world.size,)
        True
    """
    return horovod.allgather(_tensor(value), name=name)


def broadcast(value: Any, root_rank: int, name: str | None = None) -> "tf.Tensor":
    """Returns one rank's value on all ranks. Collective: every rank must call this.

    Args:
        value: number, array or tensor, with the same shape and dtype on all ranks.
        root_rank: rank whose value everyone gets.
        name: name of the collective in Horovod, the same on all ranks; by default TensorFlow
            numbers the calls.

    Example:
        >>> import hvd_xai.keras as hvd
        >>> world = hvd.init()
        >>> int(hvd.broadcast(world.rank, root_rank=0))
        0
    """
    return horovod.broadcast(_tensor(value), root_rank, name=name)


def reducescatter(value: Any, name: str | None = None, op: int = Average) -> "tf.Tensor":
    """Reduces a value and scatters its rows. Collective: every rank must call this.

    Args:
        value: array or tensor `[n, ...]`, with the same shape and dtype on all ranks.
        name: name of the collective in Horovod, the same on all ranks; by default TensorFlow
            numbers the calls.
        op: `Average` or `Sum`.

    Returns:
        This rank's part of the reduced value along the first axis; the first n modulo size ranks
        get one row more than the others.

    Example:
        >>> import hvd_xai.keras as hvd
        >>> world = hvd.init()
        >>> hvd.reducescatter([[1.0]] * world.size).numpy().tolist()
        [[1.0]]
    """
    return horovod.reducescatter(_tensor(value), name=name, op=op)


def broadcast_variables(
    variables: "Iterable[keras.Variable | tf.Variable]", root_rank: int
) -> None:
    """Assigns one rank's values to all ranks' variables. Collective: every rank must call this.

    Leave out the states of seed generators: if they were equal, every rank would drop out the same
    units. Call `finalize_state()` afterwards on layers that have it and hold variables, such as
    Normalization: they compute with what they have made of their variables beforehand.
    `BroadcastGlobalVariablesCallback` does both.

    Args:
        variables: Keras's or TensorFlow's variables, in the same order on all ranks.
        root_rank: rank whose values everyone gets.

    Example:
        >>> import keras
        >>> import hvd_xai.keras as hvd
        >>> world = hvd.init()
        >>> variable = keras.Variable([1.0 + world.rank])
        >>> hvd.broadcast_variables([variable], root_rank=0)
        >>> variable.numpy().tolist()
        [1.0]
    """
    variables = list(variables)
    # Our own names: Horovod pairs tensors by name, and Keras's names count what a process has
    # built, which may differ between ranks.
    name = f"hvd_xai.broadcast.{count_call(_BROADCASTS)}"

    def received() -> "list[tf.Tensor]":
        return [
            horovod.broadcast(
                sendable(tf.convert_to_tensor(variable)),
                root_rank,
                name=f"{name}.{index}",
                ignore_name_scope=True,
            )
            for index, variable in enumerate(variables)
        ]

    # One graph sends all variables at once. It is a concrete function because TensorFlow warns of a
    # tf.function that is made again and again.
    together = tf.function(received, autograph=False).get_concrete_function()
    with init().waiting("broadcasting variables"):
        values = together()
    for variable, value in zip(variables, values, strict=True):
        variable.assign(tf.cast(value, variable.dtype))


def broadcast_global_variables(root_rank: int) -> None:
    """Raises, as Horovod does under TensorFlow 2, which has no global variables.

    Args:
        root_rank: rank whose values everyone should get.

    Raises:
        RuntimeError: always; the message says what to call instead.

    Example:
        >>> import hvd_xai.keras as hvd
        >>> hvd.broadcast_global_variables(0)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        RuntimeError: TensorFlow 2 has no global variables...
    """
    raise RuntimeError(
        "TensorFlow 2 has no global variables. Call broadcast_variables([*model.variables,"
        f" *model.optimizer.variables], root_rank={root_rank}), or pass"
        f" BroadcastGlobalVariablesCallback({root_rank}) to fit"
    )


def count_call(calls: Calls) -> int:
    """Returns how many calls before this one were counted in the graph that is being traced.

    Two collectives of one graph may run at once, so that they need two names. The calls of each
    graph are counted by themselves: a rank may trace more often than others, and what it traces has
    the same calls. Where nothing is traced, one call ends before the next begins, and all are 0.

    Args:
        calls: numbers of calls so far, by graph; changed in place.
    """
    if tf.executing_eagerly():
        return 0
    graph = tf.compat.v1.get_default_graph()
    # The branches of a condition are graphs of their own within the function that is traced:
    #
    #     step:  broadcast 0, if first: [ broadcast 1, broadcast 2 ]
    while hasattr(getattr(graph, "outer_graph", None), "outer_graph"):
        graph = graph.outer_graph
    number = calls.get(graph, 0)
    calls[graph] = number + 1
    return number


def sendable(tensor: "tf.Tensor") -> "tf.Tensor":
    """Casts bfloat16 to float32, since Horovod cannot send bfloat16."""
    return tf.cast(tensor, tf.float32) if tensor.dtype == tf.bfloat16 else tensor


def reduce_values(values: Sequence[np.ndarray], *, op: int = Sum, name: str) -> list[np.ndarray]:
    """Reduces arrays over the ranks, in float64. Collective: every rank must call this.

    Args:
        values: this rank's arrays; all ranks have the same number of arrays, with the same shapes.
        op: `Sum`, `Average`, `Min` or `Max`.
        name: name of the reduction, the same on all ranks.

    Returns:
        The reduced arrays, float64, in the shapes given.
    """
    if not values:
        return []
    flat = np.concatenate([np.asarray(value, np.float64).reshape(-1) for value in values])
    with init().waiting(f"reducing {name}"):
        reduced = np.asarray(horovod.allreduce(tf.constant(flat), op=op, name=name))
    # flat:  [ value 0 | value 1 | ... ], cut again where each value ends
    ends = np.cumsum([np.size(value) for value in values])
    return [
        part.reshape(np.shape(value))
        for part, value in zip(np.split(reduced, ends[:-1]), values, strict=True)
    ]


def _tensor(value: Any) -> "tf.Tensor | tf.IndexedSlices":
    return value if isinstance(value, tf.IndexedSlices) else tf.convert_to_tensor(value)
