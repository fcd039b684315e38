"""Schedules and warm-up follow their closed forms, and velocities follow the learning rate."""

import keras
import numpy as np
import pytest

import hvd_xai.keras as hvd
from hvd_xai.ranks.world import World
from tests.launched.fitting import first_callbacks, make_model, same_everywhere, zeros


def test_warmup_and_schedules_follow_their_closed_forms(world: World) -> None:
    """The sequence of Horovod's own test: five epochs of warm-up, two decays, and a function of the
    epoch."""
    full = 0.1 * world.size
    schedule = hvd.callbacks.LearningRateScheduleCallback
    rates = [
        hvd.callbacks.LearningRateWarmupCallback(initial_lr=full, warmup_epochs=5),
        schedule(initial_lr=full, multiplier=1e-1, start_epoch=5, end_epoch=10),
        schedule(full, 1e-2, 10, 15),
        schedule(full, lambda epoch: epoch, 15, 20, True, True, None),
    ]
    x, y = zeros(5)
    history = (
        make_model(keras.optimizers.Adam())
        .fit(x, y, batch_size=1, epochs=20, verbose=0, callbacks=[*first_callbacks(), *rates])
        .history
    )
    k = world.size
    expected = [
        *[full * ((epoch + 1) * (k - 1) / 5 + 1) / k for epoch in range(5)],
        *[full * 0.1 ** (epoch - 5) for epoch in range(5, 10)],
        *[full * 0.01 ** (epoch - 10) for epoch in range(10, 15)],
        *[full * epoch for epoch in range(15, 20)],
    ]
    assert history["lr"] == pytest.approx(expected, rel=1e-5)
    same_everywhere(world, history["loss"])


def test_learning_rate_rises_batch_by_batch_to_that_of_all_ranks(world: World) -> None:
    seen: list[float] = []
    full = float(world.size)
    model = make_model(keras.optimizers.SGD(full))
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda *_, **__: seen.append(float(model.optimizer.learning_rate))
    )
    warmup = hvd.callbacks.LearningRateWarmupCallback(full, warmup_epochs=1.5)
    model.fit(*zeros(), batch_size=1, epochs=3, verbose=0, callbacks=[warmup, watch])
    k = world.size
    assert seen == pytest.approx(
        [full / k * (min((step + 1) / 4, 1.5) * (k - 1) / 1.5 + 1) for step in range(12)]
    )


@pytest.mark.parametrize("loss_scale", [False, True])
def test_velocity_is_what_the_new_learning_rate_would_have_built_up(
    world: World, loss_scale: bool
) -> None:
    """Under a gradient of 1, with momentum m, step t leaves the velocity -lr (1 - m^t)/(1 - m),
    whatever lr was before."""
    optimizer = keras.optimizers.SGD(1.0, momentum=0.9)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    whole = (
        keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=1.0)
        if loss_scale
        else optimizer
    )
    model.compile(hvd.DistributedOptimizer(whole), loss=lambda y, predicted: predicted + 0 * y)
    smooth = hvd.callbacks.LearningRateScheduleCallback(
        2.0, lambda epoch: 1 + epoch, staircase=False
    )
    model.fit(
        np.ones((4, 1)), np.ones((4, 1)), batch_size=1, epochs=2, verbose=0, callbacks=[smooth]
    )
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    rate = 2.0 * (1 + 1.75)
    assert float(inner.momentums[0].numpy()[0, 0]) == pytest.approx(
        -rate * (1 - 0.9**8) / (1 - 0.9), rel=1e-5
    )


def test_a_schedule_in_the_optimizer_is_not_overridden(world: World) -> None:
    model = make_model(
        keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5))
    )
    with pytest.raises(TypeError, match="was given a schedule"):
        model.fit(*zeros(), verbose=0, callbacks=[hvd.callbacks.LearningRateWarmupCallback(1.0)])
