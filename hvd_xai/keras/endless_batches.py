"""Streams training batches without end: each epoch in a new order, the same on all ranks."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from hvd_xai.keras.equal_steps import agree_steps
from hvd_xai.keras.sharding import count_elements, count_rows, keep_order
from hvd_xai.keras.start import init
from hvd_xai.ranks.world import World

Remainder: TypeAlias = Literal["drop", "pad"]
Stream: TypeAlias = "tf.data.Dataset | keras.utils.PyDataset"


def batches(
    *data: "np.ndarray | tf.data.Dataset | keras.utils.PyDataset",
    world: World | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    initial_epoch: int = 0,
    remainder: Remainder = "drop",
    buffer: int | None = None,
) -> tuple[Stream, int]:
    """Returns this rank's endless stream of training batches, and the number of steps in an epoch.

    Pass both to Keras: `fit(stream, steps_per_epoch=n_steps)`.

    Epoch e is a permutation of all rows that is drawn from `(seed, e)`, the same on every rank, and
    each rank takes its share of it. So the ranks together see every row once in each epoch, and a
    training that is resumed at epoch e sees the rows that it would have seen. All ranks take the
    same number of steps and the stream never ends, so that no rank begins an epoch before the
    others.

    Some rows are left over when the batches of all ranks are full. With `remainder="drop"` they are
    dropped, different rows in each epoch. With "pad" the last batches are filled up with rows of
    weight 0, and their other rows weigh more, so that the step equals that of one process with a
    smaller last batch, and every row counts once in each epoch. The loss and `weighted_metrics`
    then treat the last batch as a full one; `metrics` and batch normalisation count the padding
    too.

    Args:
        data: arrays `[n, ...]`, the inputs and the targets, the same on every rank; or one
            `tf.data.Dataset` of single examples, which must give the same examples in the same
            order on every rank; or one `keras.utils.PyDataset`, whose batches are dealt out whole.
        world: ranks that share the data; the world of `init()` if None.
        batch_size: number of rows in one rank's batch; None for a PyDataset.
        seed: seed of the permutations, the same on every rank.
        initial_epoch: epoch that the stream begins with, 0 or more.
        remainder: "drop" or "pad", as above.
        buffer: number of elements that a `tf.data.Dataset` is shuffled among; by default all, which
            holds them in memory.

    Returns:
        A stream of batches `(inputs, targets)`, or `(inputs, targets, sample_weight)` with "pad",
        and the number of steps in an epoch.

    Raises:
        ValueError: if there are too few rows for one batch on each rank, or `batch_size` is missing
            or not wanted.
        TypeError: if the data are of no such type, or are not `(inputs, targets)` with "pad".

    Example:
        >>> import numpy as np
        >>> import hvd_xai.keras as hvd
        >>> world = hvd.init()
        >>> x, y = np.zeros((8 * world.size, 3)), np.zeros(8 * world.size)
        >>> stream, n_steps = hvd.batches(x, y, world=world, batch_size=4)
        >>> n_steps, next(iter(stream))[0].shape.as_list()
        (2, [4, 3])
    """
    world = world or init()
    wants_size = not (len(data) == 1 and isinstance(data[0], keras.utils.PyDataset))
    if wants_size != (batch_size is not None) or (batch_size is not None and batch_size < 1):
        raise ValueError(
            "batches needs batch_size, 1 or more, unless a PyDataset makes the batches; got"
            f" {batch_size}"
        )
    if not wants_size:
        return _from_py_dataset(data[0], world, seed, initial_epoch, remainder)
    if len(data) == 1 and isinstance(data[0], tf.data.Dataset):
        steps = _Steps(count_elements(data[0]), batch_size or 0, world, remainder)
        return _from_dataset(data[0], steps, seed, initial_epoch, buffer)
    steps = _Steps(count_rows(data), batch_size or 0, world, remainder)
    return _from_arrays(data, steps, seed, initial_epoch)


def join_batches(
    dataset: "tf.data.Dataset", *, world: World | None = None
) -> "tuple[tf.data.Dataset, int]":
    """Returns an endless stream of this rank's own batches, where ranks have unequal numbers.

    Collective: every rank must call this. A rank that has used up its batches goes on with batches
    of weight 0, while the batches of the others weigh more, so that each step equals that of one
    process with the batches that are left. No rank waits for the others, and every batch counts
    once in an epoch.

    Args:
        dataset: this rank's batches `(inputs, targets)` or `(inputs, targets, sample_weight)`, at
            least one; it may shuffle at each iteration.
        world: ranks that train together; the world of `init()` if None.

    Returns:
        A dataset of `(inputs, targets, sample_weight)`, and the number of steps in an epoch, which
        is the largest number of batches that a rank has.

    Raises:
        PeerError: on all ranks, if the dataset of some rank has no batch or never ends.

    Example:
        >>> import tensorflow as tf
        >>> import hvd_xai.keras as hvd
        >>> mine = tf.data.Dataset.from_tensor_slices((tf.zeros((5, 3)), tf.zeros(5))).batch(2)
        >>> stream, n_steps = hvd.join_batches(mine, world=hvd.init())
        >>> n_steps, len(next(iter(stream)))
        (3, 3)
    """
    world = world or init()
    n_mine = 0
    with world.together("counting this rank's batches"):
        n_mine = count_elements(dataset)
        if n_mine == 0:
            raise ValueError("this rank has no batch; give each rank at least one")
    counts = world.allgather("counting all ranks' batches", n_mine)
    n_steps = agree_steps(world, n_mine, uneven="max") or n_mine
    # The optimizer averages over all ranks: weights of size / present make that the average over
    # the ranks that still have a batch at this step.
    #     step      0    1    2
    #     rank 0    1    1    2      3 batches
    #     rank 1    1    1    0      2 batches
    present = np.array([sum(count > step for count in counts) for step in range(n_steps)])
    factors = np.where(np.arange(n_steps) < n_mine, world.size / present, 0)
    factors = factors.astype(_weight_dtype())
    rounds = tf.data.Dataset.zip(
        (
            # A rank that has no batch left repeats its first one, whose weights are then 0.
            dataset.concatenate(dataset.take(1).repeat()).take(n_steps),
            tf.data.Dataset.from_tensor_slices(factors),
        )
    )
    return keep_order(rounds.map(_weighted).repeat().prefetch(2)), n_steps


class _Steps:
    """How rows are dealt out: step by step, and within a step rank by rank.

    Three ranks with batches of two rows, 8 rows in all, "pad":

        row     0 1 2 3 4 5 | 6 7 . . . .
        rank    0 1 2 0 1 2 | 0 1 2 0 1 2
        step    0           | 1            the four rows of padding weigh 0, rows 6 and 7 weigh 3

    Args:
        n_rows: number of rows of all ranks.
        batch_size: number of rows in one rank's batch.
        world: ranks that share the rows.
        remainder: "drop" or "pad".

    Attributes:
        together: number of rows in one step of all ranks.
        n_steps: number of steps in an epoch.
    """

    def __init__(self, n_rows: int, batch_size: int, world: World, remainder: Remainder) -> None:
        if remainder not in ("drop", "pad"):
            raise ValueError(f"remainder must be 'drop' or 'pad'; got {remainder!r}")
        self.pads = remainder == "pad"
        # Where the rows do not fill one step, smaller batches still give every rank its share.
        if not self.pads and n_rows >= world.size:
            batch_size = min(batch_size, n_rows // world.size)
        self.n_rows, self.rank, self.size = n_rows, world.rank, world.size
        self.together = batch_size * world.size
        self.batch_size = batch_size
        self.n_steps = -(-n_rows // self.together) if self.pads else n_rows // self.together
        if self.n_steps == 0:
            raise ValueError(
                f"{n_rows} training examples cannot be shared by {world.size} ranks; start at most"
                f" {n_rows} ranks"
            )

    def deal(self, n_real: "tf.Tensor") -> "tuple[tf.Tensor, tf.Tensor]":
        """Returns the rows of a step that this rank takes, and their weights.

        Args:
            n_real: number of rows that all ranks have together in this step.
        """
        mine = tf.range(self.rank, self.together, self.size, dtype=tf.int64)
        weight = tf.cast(self.together, _weight_dtype()) / tf.cast(n_real, _weight_dtype())
        # Padding repeats rows from the step's beginning.
        return mine % n_real, tf.where(mine < n_real, weight, tf.zeros_like(weight))


def _weight_dtype() -> str:
    """Returns the dtype of the rows' weights, which must not be coarser than what trains."""
    return "float64" if keras.config.floatx() == "float64" else "float32"


def _from_arrays(
    arrays: tuple[Any, ...], steps: _Steps, seed: int, initial_epoch: int
) -> "tuple[tf.data.Dataset, int]":
    if steps.pads and len(arrays) != 2:
        raise TypeError(f"padding weighs rows: give inputs and targets; got {len(arrays)} arrays")
    held = [tf.constant(array) for array in arrays]
    starts = tf.data.Dataset.range(0, steps.n_steps * steps.together, steps.together)

    def epoch_rows(epoch: "tf.Tensor") -> "tf.data.Dataset":
        order = tf.random.experimental.stateless_shuffle(
            tf.range(steps.n_rows, dtype=tf.int64), seed=tf.stack([np.int64(seed), epoch])
        )
        return starts.map(lambda start: order[start : start + steps.together])

    def batch_from(rows: "tf.Tensor") -> "tuple[tf.Tensor, ...]":
        mine, weights = steps.deal(tf.size(rows, out_type=tf.int64))
        taken = tf.ensure_shape(tf.gather(rows, mine), [steps.batch_size])
        gathered = tuple(tf.gather(array, taken) for array in held)
        return (*gathered, weights) if steps.pads else gathered

    return _endless(epoch_rows, initial_epoch, batch_from), steps.n_steps


def _from_dataset(
    dataset: "tf.data.Dataset", steps: _Steps, seed: int, initial_epoch: int, buffer: int | None
) -> "tuple[tf.data.Dataset, int]":
    spec = dataset.element_spec
    if steps.pads and not (isinstance(spec, tuple) and len(spec) in (2, 3)):
        raise TypeError(
            f"padding weighs rows: the dataset must give (inputs, targets); it gives {spec}"
        )

    def epoch_rows(epoch: "tf.Tensor") -> "tf.data.Dataset":
        # TensorFlow mixes its global seed into every shuffle, and scripts set that to another value
        # on each rank. A seed of the graph comes before it; 0 stands for no seed.
        tf.compat.v1.get_default_graph().seed = seed % (2**31 - 2) + 1
        shuffled = dataset.shuffle(
            buffer or steps.n_rows, seed=epoch, reshuffle_each_iteration=False
        )
        return shuffled.batch(steps.together, drop_remainder=not steps.pads).take(steps.n_steps)

    def batch_from(*rows: Any) -> Any:
        together = rows if len(rows) > 1 else rows[0]
        mine, weights = steps.deal(tf.shape(tf.nest.flatten(together)[0], out_type=tf.int64)[0])
        taken = tf.nest.map_structure(
            lambda tensor: tf.gather(tensor, tf.ensure_shape(mine, [steps.batch_size])), together
        )
        return _weighted(taken, weights) if steps.pads else taken

    return _endless(epoch_rows, initial_epoch, batch_from), steps.n_steps


def _endless(
    epoch_rows: "Callable[[tf.Tensor], tf.data.Dataset]",
    initial_epoch: int,
    batch_from: Callable[..., Any],
) -> "tf.data.Dataset":
    epochs = tf.data.Dataset.range(initial_epoch, np.iinfo(np.int64).max)
    return keep_order(epochs.flat_map(epoch_rows).map(batch_from).prefetch(2))


def _weighted(batch: Any, factor: "tf.Tensor") -> "tuple[Any, Any, tf.Tensor]":
    """Scales the weights of a batch by one factor, or by one factor for each row."""
    inputs, targets = batch[:2]
    rows = tf.shape(tf.nest.flatten(inputs)[0])[:1]
    weights = tf.broadcast_to(factor, rows)
    return (
        inputs,
        targets,
        weights * tf.cast(batch[2], weights.dtype) if len(batch) > 2 else weights,
    )


def _from_py_dataset(
    whole: "keras.utils.PyDataset",
    world: World,
    seed: int,
    initial_epoch: int,
    remainder: Remainder,
) -> "tuple[keras.utils.PyDataset, int]":
    if whole.num_batches is None:
        raise ValueError(
            "the PyDataset never ends, so it has no epochs to share; give it a num_batches"
        )
    steps = _Steps(whole.num_batches, 1, world, remainder)
    return _Dealt(whole, steps, seed, initial_epoch), steps.n_steps


class _Dealt(keras.utils.PyDataset):  # type: ignore[misc]  # keras ships no types
    """This rank's batches of a PyDataset: its share of each epoch's permutation, without end."""

    def __init__(
        self, whole: "keras.utils.PyDataset", steps: _Steps, seed: int, initial_epoch: int
    ) -> None:
        super().__init__(
            workers=whole.workers,
            use_multiprocessing=whole.use_multiprocessing,
            max_queue_size=whole.max_queue_size,
        )
        self._whole, self._steps, self._seed, self._initial_epoch = (
            whole,
            steps,
            seed,
            initial_epoch,
        )

    @property
    def num_batches(self) -> None:
        """None, so that Keras asks for batch after batch through all epochs."""
        return None

    def __getitem__(self, index: int) -> Any:
        steps = self._steps
        # Keras counts on through all epochs.
        epoch, step = divmod(index, steps.n_steps)
        order = np.random.default_rng((self._seed, self._initial_epoch + epoch)).permutation(
            steps.n_rows
        )
        together = order[step * steps.size : (step + 1) * steps.size]
        batch = self._whole[int(together[steps.rank % len(together)])]
        if not steps.pads:
            return batch
        if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
            raise TypeError(
                "padding weighs rows: the PyDataset must give (inputs, targets); it gives"
                f" {type(batch).__name__}"
            )
        factor = steps.size / len(together) if steps.rank < len(together) else 0.0
        weights = np.full(len(batch[1]), factor, _weight_dtype())
        return (batch[0], batch[1], weights * np.asarray(batch[2]) if len(batch) > 2 else weights)

    def on_epoch_begin(self) -> None:
        """Tells the whole dataset that an epoch begins."""
        self._whole.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Tells the whole dataset that an epoch ends."""
        self._whole.on_epoch_end()
