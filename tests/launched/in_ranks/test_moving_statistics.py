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
