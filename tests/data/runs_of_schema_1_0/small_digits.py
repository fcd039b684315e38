"""A convolution over scikit-learn's handwritten digits, as small as it can be: the recipe of the
run `trained`.
"""

import keras
from sklearn.datasets import load_digits

from hvd_xai import Data, Probe

N_HELD_OUT = 24


def build() -> keras.Model:
    """Builds and compiles the network."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(3, 3, activation="relu", name="conv"),
            keras.layers.Flatten(),
            keras.layers.Dense(10, name="logits"),
        ],
        name="small_digits",
    )
    model.compile(
        optimizer=keras.optimizers.SGD(0.1),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def load() -> Data:
    """Loads a few digits, scaled to 0..1."""
    digits = load_digits()
    images, labels = (
        (digits.images[..., None] / 16).astype("float32"),
        digits.target.astype("int32"),
    )
    probe, train = slice(0, N_HELD_OUT), slice(2 * N_HELD_OUT, 2 * N_HELD_OUT + 128)
    return Data(
        train=(images[train], labels[train]),
        validation=(images[N_HELD_OUT : 2 * N_HELD_OUT], labels[N_HELD_OUT : 2 * N_HELD_OUT]),
        probe=Probe(images[probe], labels[probe], class_names=tuple("0123456789")),
        batch_size=32,
    )
