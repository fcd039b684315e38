"""Horovod itself, as Keras 3 needs it: started once, and reducing the values of variables between
steps.
"""

import logging
import os
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from hvd_xai.errors import HorovodMissingError, WorldError
from hvd_xai.ranks.world import World

try:
    import horovod.tensorflow as horovod
except ImportError as _error:
    raise HorovodMissingError(
        f"Horovod is not installed or does not load ({_error}). Build it with: hvd-xai"
        " install-horovod"
    ) from _error

log = logging.getLogger(__name__)

Average = horovod.Average
Sum = horovod.Sum
Adasum = horovod.Adasum
Min = horovod.Min
Max = horovod.Max
Product = horovod.Product
Compression = horovod.Compression

rank = horovod.rank
size = horovod.size
local_rank = horovod.local_rank
local_size = horovod.local_size
cross_rank = horovod.cross_rank
cross_size = horovod.cross_size
is_homogeneous = horovod.is_homogeneous
is_initialized = horovod.is_initialized
shutdown = horovod.shutdown

start_timeline = horovod.start_timeline
stop_timeline = horovod.stop_timeline

mpi_built = horovod.mpi_built
mpi_enabled = horovod.mpi_enabled
mpi_threads_supported = horovod.mpi_threads_supported
gloo_built = horovod.gloo_built
gloo_enabled = horovod.gloo_enabled
nccl_built = horovod.nccl_built
ddl_built = horovod.ddl_built
ccl_built = horovod.ccl_built
cuda_built = horovod.cuda_built
rocm_built = horovod.rocm_built

ProcessSet = horovod.ProcessSet
global_process_set = horovod.global_process_set
add_process_set = horovod.add_process_set
remove_process_set = horovod.remove_process_set

allgather_object = horovod.allgather_object
broadcast_object = horovod.broadcast_object

_connected: list[World] = []


def init(*, process_sets: "Sequence[horovod.ProcessSet] | str | None" = None) -> World:
    """Brings the launched ranks together, and gives each its device and its cores.

    Collective: every rank must call this.

    Where there are GPUs, a rank sees only the one of its local rank. Where several ranks share a
    host's cores, TensorFlow gets this rank's share of them, unless the thread counts are already
    set. A second call returns the same world.

    Args:
        process_sets: groups of ranks to reduce over, as `ProcessSet([0, 2])`, the same on every
            rank; or "dynamic", if some will be added later with `add_process_set`.

    Returns:
        The world: pass it to `Explain` and to whatever else asks for one.

    Raises:
        WorldError: as `World.connect`.
    """
    if process_sets is not None:
        os.environ["HOROVOD_DYNAMIC_PROCESS_SETS"] = "1"
    if not _connected:
        world = World.connect()
        _claim_gpu(world)
        _claim_cores(world)
        _connected.append(world)
    new: Sequence[horovod.ProcessSet] = (
        [] if process_sets is None or process_sets == "dynamic" else process_sets
    )
    for process_set in new:
        if process_set.process_set_id is None:
            horovod.add_process_set(process_set)
    return _connected[0]


def is_started() -> bool:
    """Returns whether Horovod runs in this process."""
    return bool(horovod.is_initialized())


def require_started(what: str) -> None:
    """Raises `WorldError` if `init()` was not called."""
    if not is_started():
        raise WorldError(
            f"{what} needs the ranks to be connected first; call `hvd_xai.keras.init()` at the"
            " start of the script."
        )


def broadcast(variables: Sequence["keras.Variable | tf.Variable"], root_rank: int) -> None:
    """Gives every rank the root's values of variables. Collective: every rank must call this.

    The names are ours: Horovod pairs tensors by name, and Keras's names count what a process has
    built, which may differ between ranks.
    """

    def received() -> "list[tf.Tensor]":
        return [
            horovod.broadcast(
                sendable(tf.convert_to_tensor(variable)),
                root_rank,
                name=f"hvd_xai.broadcast.{index}",
                ignore_name_scope=True,
            )
            for index, variable in enumerate(variables)
        ]

    # in one graph, so that all travel at once; a concrete one, for TensorFlow warns of functions
    # that are made often
    together = tf.function(received, autograph=False).get_concrete_function()
    with init().waiting("broadcasting variables"):
        values = together()
    for variable, value in zip(variables, values, strict=True):
        variable.assign(tf.cast(value, variable.dtype))


def sendable(tensor: "tf.Tensor") -> "tf.Tensor":
    """Returns the tensor in a dtype that Horovod has; it has no bfloat16."""
    return tf.cast(tensor, tf.float32) if tensor.dtype == tf.bfloat16 else tensor


def reduce_values(values: Sequence[np.ndarray], *, op: int = Sum, name: str) -> list[np.ndarray]:
    """Sums or averages arrays over the ranks, in float64. Collective: every rank must call this.

    Args:
        values: of this rank; the number of arrays and their shapes are the same on all ranks.
        op: `Sum` or `Average`.
        name: of the reduction, the same on all ranks.

    Returns:
        The reduced arrays, float64, in the shapes given.
    """
    if not values:
        return []
    flat = np.concatenate([np.asarray(value, np.float64).reshape(-1) for value in values])
    with init().waiting(f"reducing {name}"):
        reduced = np.asarray(horovod.allreduce(tf.constant(flat), op=op, name=name))
    ends = np.cumsum([np.size(value) for value in values])
    return [
        part.reshape(np.shape(value))
        for part, value in zip(np.split(reduced, ends[:-1]), values, strict=True)
    ]


def _claim_gpu(world: World) -> None:
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return
    if world.local_size > len(gpus):
        log.warning("%d ranks share the %d GPUs of %s", world.local_size, len(gpus), world.host)
    mine = gpus[world.local_rank % len(gpus)]
    try:
        tf.config.set_visible_devices(mine, "GPU")
        tf.config.experimental.set_memory_growth(mine, enable=True)
    except RuntimeError as error:
        raise WorldError(
            "TensorFlow took its GPUs before `init()` was called; call `init()` first in the"
            f" script. ({error})"
        ) from error


def _claim_cores(world: World) -> None:
    threads = tf.config.threading
    untouched = (
        threads.get_intra_op_parallelism_threads() == 0 and "OMP_NUM_THREADS" not in os.environ
    )
    if world.local_size == 1 or not untouched:
        return
    share = max(1, len(os.sched_getaffinity(0)) // world.local_size)
    try:
        threads.set_intra_op_parallelism_threads(share)
    except (
        RuntimeError
    ):  # TensorFlow is already running: it keeps its threads, which costs speed but nothing else
        log.info("TensorFlow was running before init(); its threads are left as they are")
