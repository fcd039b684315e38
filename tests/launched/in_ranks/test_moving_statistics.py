"""Statistics that layers gather from data are averaged over the ranks."""

import keras
import numpy as np

from hvd_xai.keras.callbacks import average_statistics
from hvd_xai.ranks.world import World


def test_moving_statistics_are_averaged(world: World) -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization()])
    model.layers[0].moving_mean.assign([float(world.rank), 1.0])
    average_statistics(model)
    np.testing.assert_allclose(model.layers[0].moving_mean.numpy(), [(world.size - 1) / 2, 1.0])


def test_double_precision_stays_and_frozen_weights_keep_every_bit(world: World) -> None:
    frozen = keras.layers.Dense(2, trainable=False, dtype="float64")
    layers = [frozen, keras.layers.BatchNormalization(dtype="float64")]
    model = keras.Sequential([keras.Input((2,), dtype="float64"), *layers])
    third = np.full((2, 2), 1 / 3)  # more digits than float32 holds
    frozen.kernel.assign(third)
    layers[1].moving_mean.assign(third[0] * (world.rank + 1))
    average_statistics(model)
    np.testing.assert_array_equal(frozen.kernel.numpy(), third)
    np.testing.assert_allclose(
        layers[1].moving_mean.numpy(), third[0] * (world.size + 1) / 2, rtol=1e-15
    )
