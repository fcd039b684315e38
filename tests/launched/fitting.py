"""Holds what tests of the Keras callbacks train: small models, and losses written beforehand."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

import hvd_xai.keras as hvd
from hvd_xai.ranks.world import World

Callbacks = list[keras.callbacks.Callback]


WORSE_FROM = 3  # the epoch at which the last rank's scripted loss rises


def make_model(optimizer: keras.optimizers.Optimizer | None = None) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    model.compile(hvd.DistributedOptimizer(optimizer or keras.optimizers.SGD(0.1)), "mse")
    return model


def first_callbacks() -> Callbacks:
    return [
        hvd.callbacks.BroadcastGlobalVariablesCallback(0),
        hvd.callbacks.MetricAverageCallback(),
    ]


def zeros(n: int = 4) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((n, 5), "float32"), np.zeros((n, 3), "float32")


def fit_scripted(
    world: World,
    loss_of: Callable[[int], float],
    callbacks: Callbacks,
    epochs: int = 8,
    n_steps: int = 1,
) -> keras.callbacks.History:
    """Trains with the losses that `loss_of` gives for this rank's batches; weights do not move."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(hvd.DistributedOptimizer(keras.optimizers.SGD(1.0)), "mae")

    def stream() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for batch in range(10**6):
            yield np.zeros((2, 1), "float32"), np.full((2, 1), loss_of(batch), "float32")

    history: keras.callbacks.History = model.fit(
        stream(),
        steps_per_epoch=n_steps,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[*first_callbacks(), *callbacks],
    )
    return history


def loss_on(world: World) -> Callable[[int], float]:
    """Returns a loss that falls for ever on all ranks but the last.

    Its mean over the ranks rises at one epoch, and falls again.
    """
    worse = 100.0 if world.rank == world.size - 1 else 0.0
    return lambda epoch: 50.0 - epoch + (worse if epoch >= WORSE_FROM else 0.0)


def same_everywhere(world: World, value: Any) -> Any:
    """Returns the one value that all ranks have."""
    values = world.allgather("testing", value)
    assert len(set(map(str, values))) == 1, values
    return value
