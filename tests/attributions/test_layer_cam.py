"""LayerCAM by hand."""

import keras
import numpy as np

from hvd_xai.attributions.layer_cam import layer_cam
from hvd_xai.compute.attribute import Compute


def test_a_convolution_by_hand() -> None:
    # Two channels, x and 2x - 1, on a strip of three places; the head weighs each place of each
    # channel by itself.
    inputs = keras.Input((1, 3, 1))
    conv, head = keras.layers.Conv2D(2, 1), keras.layers.Dense(1)
    model = keras.Model(inputs, head(keras.layers.Flatten()(conv(inputs))))
    conv.set_weights([np.array([[[[1.0, 2.0]]]], np.float32), np.array([0.0, -1.0], np.float32)])
    head.set_weights(
        [
            np.array([[1.0], [1.0], [-1.0], [2.0], [3.0], [-4.0]], np.float32),
            np.array([7.0], np.float32),
        ]
    )
    x = np.array([[[[3.0], [0.25], [-2.0]]]], np.float32)
    # Activations (3, 5), (1/4, -1/2), (-2, -5); gradients (1, 1), (-1, 2), (3, -4), of which the
    # negative ones are cut: 1 * 3 + 1 * 5 = 8, then 2 * -1/2 = -1 and 3 * -2 = -6, which are cut as
    # well.
    maps = Compute(model, layer_cam)(x, np.zeros(1, np.int64), np.arange(1)).attributions
    np.testing.assert_array_equal(maps, [[[8.0, 0.0, 0.0]]])
