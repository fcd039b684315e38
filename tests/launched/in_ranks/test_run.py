"""A training function is called once on ranks that stay, from where its state stands."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import hvd_xai.keras as hvd
from hvd_xai.keras.elastic import (
    CommitStateCallback,
    KerasState,
    UpdateBatchStateCallback,
    UpdateEpochStateCallback,
)
from hvd_xai.ranks.world import World


def _model() -> keras.Model:
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, activation="softmax")])


def test_an_epoch_is_taken_up_where_it_was_committed(world: World) -> None:
    model = _model()
    model.compile(hvd.DistributedOptimizer(keras.optimizers.SGD(0.1)), "mse")
    state = KerasState(model, epoch=1, batch=2)
    commits: list[tuple[int, int]] = []

    class Commit(CommitStateCallback):
        def commit(self) -> None:
            super().commit()
            commits.append((self.state.epoch, self.state.batch))

    x, y = np.ones((20, 2), np.float32), np.ones((20, 2), np.float32)
    callbacks = [
        hvd.callbacks.BroadcastGlobalVariablesCallback(),
        UpdateBatchStateCallback(state),
        UpdateEpochStateCallback(state),
        Commit(state, batches_per_commit=2),
    ]

    @hvd.elastic.run
    def train(state: KerasState) -> int:
        model.fit(
            x, y, batch_size=4, initial_epoch=state.epoch, epochs=3, verbose=0, callbacks=callbacks
        )
        return int(model.optimizer.iterations)

    assert train(state) == 3 + 5  # of epoch 1's five batches two were done
    assert commits == [(1, 4), (2, 0), (2, 1), (2, 3), (2, 5), (3, 0)]
    assert (state.epoch, state.batch) == (3, 0)


def test_epochs_are_counted_as_horovods_examples_do_too(world: World) -> None:
    model = _model()
    model.compile(hvd.DistributedOptimizer(keras.optimizers.SGD(0.1)), "mse")
    state = KerasState(model, epoch=5)
    callbacks = [hvd.callbacks.BroadcastGlobalVariablesCallback(), UpdateEpochStateCallback(state)]
    x = np.ones((4, 2), np.float32)
    model.fit(x, x, epochs=7 - state.epoch, verbose=0, callbacks=callbacks)
    assert state.epoch == 7


def test_errors_of_the_function_are_its_callers(world: World) -> None:
    state = KerasState(_model(), keras.optimizers.SGD())

    @hvd.elastic.run
    def train(state: KerasState, error: Exception) -> None:
        raise error

    for error in (
        RuntimeError("a mistake"),
        tf.errors.UnknownError(None, None, "Horovod has been shut down"),
    ):
        with pytest.raises(type(error)):
            train(state, error)  # the second is of a lost rank, which only an elastic job lets go
