"""Starts Horovod once, and gives each rank its GPU and its share of the cores."""

import logging
import os
import warnings
from collections.abc import Sequence

import tensorflow as tf

from hvd_xai.errors import WorldError
from hvd_xai.keras.horovod_names import ProcessSet, add_process_set, is_initialized
from hvd_xai.ranks.world import World

log = logging.getLogger(__name__)

_connected: list[World] = []


def init(*, process_sets: "Sequence[ProcessSet] | str | None" = None) -> World:
    """Connects the launched ranks. Collective: every rank must call this.

    Where a host has GPUs, each rank sees only the GPU with the number of its local rank. Where
    several ranks share a host's cores, TensorFlow gets this rank's share of them, unless the number
    of threads is set already. A second call returns the same world. Without a launcher the world is
    this process alone.

    Args:
        process_sets: groups of ranks to reduce over, such as `[ProcessSet([0, 2])]`, the same on
            every rank; or "dynamic" if `add_process_set` will add groups later.

    Returns:
        The world. Pass it to `Explain` and to everything else that has a parameter `world`.

    Raises:
        HorovodMissingError: if Horovod is not installed.
        WorldError: if the launcher, Horovod and MPI count different numbers of ranks, or
            TensorFlow took its GPUs before this call.

    Example:
        >>> import hvd_xai.keras as hvd
        >>> world = hvd.init()
        >>> world.rank < world.size
        True
        >>> hvd.init() is world
        True
    """
    if process_sets is not None:
        # Horovod reads this variable once, when it starts.
        os.environ["HOROVOD_DYNAMIC_PROCESS_SETS"] = "1"
    if not _connected:
        world = World.connect()
        _claim_gpu(world)
        _claim_cores(world)
        warn_once(world)
        _connected.append(world)
    new: Sequence[ProcessSet] = (
        [] if process_sets is None or process_sets == "dynamic" else process_sets
    )
    for process_set in new:
        if process_set.process_set_id is None:
            add_process_set(process_set)
    return _connected[0]


def is_started() -> bool:
    """Returns whether Horovod runs in this process."""
    return bool(is_initialized())


def require_started(what: str) -> None:
    """Raises `WorldError` if `init()` was not called yet; `what` names who needs it."""
    if not is_started():
        raise WorldError(
            f"{what} needs the ranks to be connected first; call `hvd_xai.keras.init()` at the"
            " start of the script."
        )


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


def warn_once(world: World) -> None:
    """Leaves to the root what Keras would say of the data once a rank."""
    if not world.is_root:
        warnings.filterwarnings("ignore", "`shuffle=True` was passed, but will be ignored")


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
    except RuntimeError:
        # A TensorFlow that runs already keeps its threads: slower, but nothing is wrong.
        log.info("TensorFlow was running before init(); its threads are left as they are")
