"""Shares data out to the ranks: an equal part for each, cut from data that every rank holds."""

from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from hvd_xai.keras.start import init
from hvd_xai.ranks.world import World

Shared: TypeAlias = "tuple[np.ndarray, ...] | tf.data.Dataset | keras.utils.PyDataset"


def shard(
    *data: "np.ndarray | tf.data.Dataset | keras.utils.PyDataset", world: World | None = None
) -> Shared:
    """Returns this rank's part of data that every rank holds.

    The part is every `world.size`-th row, element or batch, the same number on each rank. Up to
    `world.size - 1` of them at the end are left out, since ranks with unequal parts would begin
    their epochs at different times. `batches` need leave out none, and shuffles over all ranks,
    anew in each epoch.

    Args:
        data: arrays `[n, ...]` with the same n; or one `tf.data.Dataset` of examples or batches,
            which must give the same elements in the same order on every rank; or one
            `keras.utils.PyDataset`, whose batches are dealt out.
        world: ranks that share the data; the world of `init()` if None.

    Returns:
        A tuple of arrays `[n // world.size, ...]`; or a dataset, which TensorFlow will not shard
        again; or a `PyDataset`.

    Raises:
        ValueError: if the arrays differ in length, there is less data than ranks, or a dataset is
            infinite.
        TypeError: if the data are of no such type, or there are several datasets.

    Example:
        >>> import numpy as np
        >>> import hvd_xai.keras as hvd
        >>> world = hvd.init()
        >>> x, y = hvd.shard(np.zeros((6 * world.size, 2)), np.zeros(6 * world.size), world=world)
        >>> x.shape, y.shape
        ((6, 2), (6,))
    """
    world = world or init()
    if len(data) == 1 and isinstance(data[0], tf.data.Dataset):
        n_mine = _share(count_elements(data[0]), world, "elements")
        # What cannot be shared equally is cut off first: `shard` alone would give the first ranks
        # an element more.
        return keep_order(data[0].take(n_mine * world.size).shard(world.size, world.rank))
    if len(data) == 1 and isinstance(data[0], keras.utils.PyDataset):
        return _EveryNthBatch(data[0], world)
    n_mine = _share(count_rows(data), world, "training examples")
    # rows of 3 ranks:  0 1 2 0 1 2 0 1   the last two rows are cut off
    return tuple(array[world.rank :: world.size][:n_mine] for array in data)


def count_rows(arrays: "tuple[Any, ...]") -> int:
    """Returns the number of rows that all of the arrays have.

    Raises:
        TypeError: if something is no array.
        ValueError: if the arrays differ in length.
    """
    if not arrays or not all(
        hasattr(array, "shape") and not isinstance(array, tf.data.Dataset | keras.utils.PyDataset)
        for array in arrays
    ):
        raise TypeError(
            "give arrays, one tf.data.Dataset, or one keras.utils.PyDataset; got"
            f" {[type(array).__name__ for array in arrays]}"
        )
    lengths = {len(array) for array in arrays}
    if len(lengths) != 1:
        raise ValueError(f"arrays to shard must have one length; got {sorted(lengths)}")
    return lengths.pop()


def count_elements(dataset: "tf.data.Dataset") -> int:
    """Returns the number of elements of a dataset; reads it once where TensorFlow does not know.

    Raises:
        ValueError: if the dataset is infinite.
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


def keep_order(dataset: "tf.data.Dataset") -> "tf.data.Dataset":
    """Returns the dataset with a fixed order, which TensorFlow's own sharding leaves alone."""
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options)


class _EveryNthBatch(keras.utils.PyDataset):  # type: ignore[misc]  # keras ships no types
    """Every `world.size`-th batch of a PyDataset, beginning with this rank's."""

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
        """Number of batches that this rank gets."""
        return self._n_batches

    def __getitem__(self, index: int) -> Any:
        #     batch of all ranks    0 1 2 | 3 4 5 | ...
        #     rank                  0 1 2 | 0 1 2 | ...
        #     index on it           0     | 1     | ...
        return self._whole[index * self._size + self._rank]

    def on_epoch_begin(self) -> None:
        """Tells the whole dataset that an epoch begins."""
        self._whole.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Tells the whole dataset that an epoch ends."""
        self._whole.on_epoch_end()


def _share(count: int, world: World, what: str) -> int:
    if count < world.size:
        raise ValueError(
            f"{count} {what} cannot be shared by {world.size} ranks; start at most {count} ranks"
        )
    return count // world.size
