"""Callbacks that commit the state of an elastic job, and count its batches and epochs."""

from typing import Any

import keras

from hvd_xai.keras.callbacks.stop_vote import end_epoch
from hvd_xai.keras.elastic.state import KerasState

# Floats, and whatever else a model logs.
Logs = dict[str, Any] | None


class CommitStateCallback(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
    """Commits the state after batches and at the end of each epoch.

    Collective: every rank must pass it to `fit`, as its last callback: what comes after it in an
    epoch is not done again.

    Args:
        state: state to commit.
        batches_per_commit: number of batches from one commit to the next. A commit copies all
            variables, and asks the root whether hosts came or went, which is a round trip: commit
            every batch only where batches are long.

    Raises:
        ValueError: if `batches_per_commit` is less than 1.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> import hvd_xai.keras as hvd
        >>> world = hvd.init()
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(hvd.DistributedOptimizer(keras.optimizers.SGD(0.1)), "mse")
        >>> state = hvd.elastic.KerasState(model, epoch=0, batch=0)
        >>> callbacks = [hvd.elastic.CommitStateCallback(state)]
        >>> history = model.fit(np.ones((8, 2)), np.ones(8), callbacks=callbacks, verbose=0)
    """

    def __init__(self, state: KerasState, batches_per_commit: int = 1) -> None:
        super().__init__()
        if batches_per_commit < 1:
            raise ValueError(f"batches_per_commit must be 1 or more; got {batches_per_commit}")
        self.state = state
        self.batches_per_commit = batches_per_commit
        self.batches_remaining = batches_per_commit

    def on_train_begin(self, logs: Logs = None) -> None:
        """Begins to count anew, so that ranks that have just met commit together."""
        self.batches_remaining = self.batches_per_commit

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Commits every `batches_per_commit` batches. Collective: every rank must call this."""
        self.batches_remaining -= 1
        if self.batches_remaining == 0:
            self.commit()
            self.batches_remaining = self.batches_per_commit

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Commits. Collective: every rank must call this."""
        self.commit()

    def commit(self) -> None:
        """Commits the state. Collective: every rank must call this."""
        self.state.commit()


class UpdateBatchStateCallback(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
    """Keeps `state.batch`, the number of batches of the epoch that are done.

    An epoch that a reset broke off ends after the batches that were left of it, at least one. Put
    the callback before callbacks that stop training: it ends such an epoch by the flag that they
    set.

    It counts what was done; Horovod's callback keeps the index of the last batch instead, one less,
    and trains on that batch again. Where the number of ranks has changed since, the same number of
    batches is left out, not the same number of rows.

    Args:
        state: state with an attribute `batch`.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> import hvd_xai.keras as hvd
        >>> world = hvd.init()
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(hvd.DistributedOptimizer(keras.optimizers.SGD(0.1)), "mse")
        >>> state = hvd.elastic.KerasState(model, epoch=0, batch=0)
        >>> callbacks = [hvd.elastic.UpdateBatchStateCallback(state)]
        >>> history = model.fit(np.ones((8, 2)), np.ones(8), callbacks=callbacks, verbose=0)
        >>> state.batch  # the next epoch begins at its first batch
        0
    """

    def __init__(self, state: KerasState) -> None:
        super().__init__()
        self.state = state
        self._before = 0
        self._ends = False

    def on_train_begin(self, logs: Logs = None) -> None:
        """Notes how many batches of the first epoch were done before."""
        self._before = self.state.batch

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Counts the batch, and ends an epoch that was begun before a reset."""
        self.state.batch = self._before + batch + 1
        n_steps = self.params.get("steps")
        if (
            self._before > 0
            and n_steps
            and self.state.batch >= n_steps
            and not self.model.stop_training
        ):
            # All ranks are here at the same batch: they have the state in common.
            self._ends = True
            end_epoch(self.model)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Lets the next epoch begin at its first batch."""
        if self._ends:
            self._ends = self.model.stop_training = False
        self._before = self.state.batch = 0


class UpdateEpochStateCallback(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
    """Keeps `state.epoch`, the number of epochs that are done since the job began.

    The first epoch of a `fit` is the epoch that the state has, whether `fit` was given
    `initial_epoch=state.epoch` or, as in Horovod's examples, `epochs=n_epochs - state.epoch`.

    Args:
        state: state with an attribute `epoch`.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> import hvd_xai.keras as hvd
        >>> world = hvd.init()
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(hvd.DistributedOptimizer(keras.optimizers.SGD(0.1)), "mse")
        >>> state = hvd.elastic.KerasState(model, epoch=0, batch=0)
        >>> callbacks = [hvd.elastic.UpdateEpochStateCallback(state)]
        >>> history = model.fit(np.ones((8, 2)), np.ones(8), callbacks=callbacks, verbose=0)
        >>> state.epoch
        1
    """

    def __init__(self, state: KerasState) -> None:
        super().__init__()
        self.state = state
        self._offset: int | None = None

    def on_train_begin(self, logs: Logs = None) -> None:
        """Forgets the offset of a `fit` before."""
        self._offset = None

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Notes at the first epoch how far Keras's count is behind the job's."""
        if self._offset is None:
            self._offset = self.state.epoch - epoch

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Counts the epoch."""
        self.state.epoch = (self._offset or 0) + epoch + 1
