"""When one rank stops, all ranks stop, at one batch."""

import keras
import numpy as np
import pytest

from hvd_xai.keras.callbacks.stop_vote import VOTE_EVERY
from hvd_xai.ranks.world import World
from tests.launched.fitting import fit_scripted, loss_on, same_everywhere


def test_nan_on_one_rank_stops_all_at_one_batch(world: World) -> None:
    n_batches = []
    count = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, **_: n_batches.append(batch)
    )
    bad = 5 if world.rank == world.size - 1 else 10**6
    stops = keras.callbacks.TerminateOnNaN()
    history = fit_scripted(
        world,
        lambda batch: np.nan if batch == bad else 1.0,
        [stops, count],
        epochs=2,
        n_steps=3 * VOTE_EVERY,
    )
    assert same_everywhere(world, [len(n_batches), len(history.epoch)]) == [VOTE_EVERY, 1]


def test_a_stop_by_one_rank_at_an_epochs_end_is_one_of_all(world: World) -> None:
    class Stop(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            self.model.stop_training = epoch == 1 and world.rank == world.size - 1

    assert same_everywhere(world, len(fit_scripted(world, loss_on(world), [Stop()]).epoch)) == 2


def test_a_learning_rate_that_one_rank_changes_is_an_error_on_all(world: World) -> None:
    if world.size == 1:
        return
    changes = [keras.callbacks.LearningRateScheduler(lambda _: 0.5)] if world.is_root else []
    with pytest.raises(ValueError, match=r"rank 0 with 0.5, rank 1 with 1\. "):
        fit_scripted(world, loss_on(world), changes)
