"""Ranks that hold different models are told which variable differs."""

import keras
import numpy as np
import pytest

import hvd_xai.keras as hvd
from hvd_xai.ranks.world import World
from tests.launched.fitting import first_callbacks


def test_different_models_are_refused_and_the_variable_is_named(world: World) -> None:
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3 + world.rank, name="wide")])
    model.compile(hvd.DistributedOptimizer(keras.optimizers.SGD(0.1)), "mse")
    x, y = np.zeros((4, 5), "float32"), np.zeros((4, 3 + world.rank), "float32")
    if world.size == 1:
        return
    with pytest.raises(
        ValueError, match=r"wide/kernel' .5, 3. float32 where rank 1 has .*wide/kernel' .5, 4."
    ):
        model.fit(x, y, batch_size=4, verbose=0, callbacks=first_callbacks())
