"""What all ranks would be told alike is said once."""

import warnings

import keras
import numpy as np
import tensorflow as tf

from hvd_xai.keras.start import warn_once
from hvd_xai.ranks.world import World


def test_that_a_dataset_is_not_shuffled_is_said_by_the_root_alone(world: World) -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    dataset = tf.data.Dataset.from_tensors((np.ones((4, 2)), np.ones((4, 1))))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        warn_once(world)  # `init` did, and pytest took it back
        model.fit(dataset, verbose=0)
    of_shuffling = [one for one in said if "shuffle=True" in str(one.message)]
    assert len(of_shuffling) == (1 if world.is_root else 0)
