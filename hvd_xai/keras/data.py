"""Each rank's share of the data, and equal steps on all ranks."""

from typing import Any, Literal, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from hvd_xai.keras.collectives import init
from hvd_xai.ranks.world import World

Shared: TypeAlias = "tuple[np.ndarray, ...] | tf.data.Dataset | keras.utils.PyDataset"


def shard(
    *data: "np.ndarray | tf.data.Dataset | keras.utils.PyDataset", world: World | None = None
) -> Shared:
    """Returns this rank's part of data that every rank holds: every `world.size`-th row, element or
    batch, the same number on each rank.

    Up to `world.size - 1` of them at the end are left out: uneven ranks would slip epochs.
    `batches` need leave out none, and shuffles over all ranks, anew each epoch.

    Args:
        data: arrays `[n, ...]` with one n; or one `tf.data.Dataset`, which must give the same
            elements in the same order on every rank: examples, or batches; or one
            `keras.utils.PyDataset`, whose batches are dealt out.
        world: the ranks; those of `init()` if None.

    Returns:
        A tuple of arrays `[n // world.size, ...]`; or a dataset, which TensorFlow will not shard
        again; or a `PyDataset`.

    Raises:
        ValueError: if the arrays differ in length, there is less data than ranks, or a dataset is
            infinite.
        TypeError: if the data are none of these, or several datasets.
    """
    world = world or init()
    if len(data) == 1 and isinstance(data[0], tf.data.Dataset):
        n_mine = _share(count_elements(data[0]), world, "elements")
        return settled(data[0].take(n_mine * world.size).shard(world.size, world.rank))
    if len(data) == 1 and isinstance(data[0], keras.utils.PyDataset):
        return _Dealt(data[0], world)
    _share(rows_of(data), world, "training examples")
    n_rows = len(data[0]) // world.size
    return tuple(array[world.rank :: world.size][:n_rows] for array in data)


def rows_of(arrays: "tuple[Any, ...]") -> int:
    """Returns how many rows arrays have.

    Raises:
        TypeError: if they are no arrays.
        ValueError: if they differ in length.
    """
    odd = next(
        (
            array
            for array in arrays
            if isinstance(array, tf.data.Dataset | keras.utils.PyDataset)
            or not hasattr(array, "shape")
        ),
        None,
    )
    if odd is not None or not arrays:
        raise TypeError(
            "give arrays, one tf.data.Dataset, or one keras.utils.PyDataset; got"
            f" {[type(one).__name__ for one in arrays]}"
        )
    lengths = {len(array) for array in arrays}
    if len(lengths) != 1:
        raise ValueError(f"arrays to shard must have one length; got {sorted(lengths)}")
    return lengths.pop()


def count_elements(dataset: "tf.data.Dataset") -> int:
    """Returns how many elements a dataset gives; goes through it once where TensorFlow does not
    know.

    Raises:
        ValueError: if it is infinite.
    """
    count = int(dataset.cardinality())
    if count == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            "the dataset never ends, so it has no epochs to share; leave out repeat(), or cut it"
            " with take(n)"
        )
    if count == tf.data.UNKNOWN_CARDINALITY:
        count = int(dataset.reduce(np.int64(0), lambda counted, *_: counted + 1))
    return count


def settled(dataset: "tf.data.Dataset") -> "tf.data.Dataset":
    """Returns the dataset with its order fixed, and left alone by TensorFlow's own sharding."""
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options)


def agree_steps(
    world: World, n_steps: int | None, *, uneven: Literal["refuse", "min", "max"] = "refuse"
) -> int | None:
    """Returns the steps of an epoch that all ranks take. Collective: every rank must call this.

    Where each rank reads data of its own, call it before `fit`, and give what it returns as
    `steps_per_epoch` with a dataset that repeats: with "min" the longer ranks' last batches wait
    for a later epoch, with "max" the shorter ranks begin anew. `join_batches` counts every batch
    once.

    Args:
        world: the ranks.
        n_steps: of this rank; None if it is not known.
        uneven: what to do where the ranks differ.

    Raises:
        ValueError: on every rank, naming the ranks' counts, if they differ and `uneven` is
            "refuse", or if one of several ranks does not know its own; ranks that step unequally
            wait for each other for ever, or pair one's epoch with another's.
    """
    counts = world.allgather("counting the batches of an epoch", n_steps)
    known = [int(count) for count in counts if isinstance(count, int)]
    said = ", ".join(
        f"rank {rank}: {'unknown' if count is None else count}" for rank, count in enumerate(counts)
    )
    error = None
    if len(known) < len(counts) and world.size > 1:
        error = ValueError(
            f"it is not known how many batches an epoch has ({said}), as for a generator and a"
            " dataset that is filtered or repeated; ranks that end it at different batches would"
            " wait for each other for ever. Pass steps_per_epoch to fit, the same on all ranks."
        )
    elif len(set(counts)) > 1 and uneven == "refuse":
        error = ValueError(
            f"the ranks have different numbers of batches an epoch ({said}). Pass"
            f" steps_per_epoch={min(known)} to fit, or give each rank the same number of rows, as"
            " `hvd_xai.keras.shard` does."
        )
    world.agree("comparing the batches of an epoch", error)
    if not known:
        return None
    return max(known) if uneven == "max" else min(known)


def _share(count: int, world: World, what: str) -> int:
    if count < world.size:
        raise ValueError(
            f"{count} {what} cannot be shared by {world.size} ranks; start at most {count} ranks"
        )
    return count // world.size


class _Dealt(keras.utils.PyDataset):  # type: ignore[misc]  # keras ships no types
    """Every `world.size`-th batch of a PyDataset."""

    def __init__(self, whole: "keras.utils.PyDataset", world: World) -> None:
        super().__init__(
            workers=whole.workers,
            use_multiprocessing=whole.use_multiprocessing,
            max_queue_size=whole.max_queue_size,
        )
        if whole.num_batches is None:
            raise ValueError(
                "the PyDataset never ends, so it has no epochs to share; give it a num_batches"
            )
        self._whole = whole
        self._rank, self._size = world.rank, world.size
        self._n_batches = _share(whole.num_batches, world, "batches")

    @property
    def num_batches(self) -> int:
        """Batches of this rank."""
        return self._n_batches

    def __getitem__(self, index: int) -> Any:
        return self._whole[index * self._size + self._rank]

    def on_epoch_begin(self) -> None:
        """Passes it on."""
        self._whole.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Passes it on."""
        self._whole.on_epoch_end()
