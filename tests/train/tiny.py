"""Defines a recipe that trains in a second."""

import keras
import numpy as np

from hvd_xai import Data, Probe
from hvd_xai.lookup.recipes import Recipe


def build(*, units: int = 3) -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(units),
            keras.layers.Dropout(0.1),
            keras.layers.Dense(2),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    return model


def load() -> Data:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(24, 4)).astype("float32"), random.integers(0, 2, 24).astype("int32")
    return Data(train=(x, y), validation=(x, y), probe=Probe(x[:4], y[:4]), batch_size=4)


RECIPE = Recipe("tiny", "tiny.py", {"build": build, "load": load})


class Shown:
    """A `Progress` that remembers what it was told."""

    def __init__(self) -> None:
        self.tasks: list[tuple[str, int]] = []
        self.done = 0
        self.lines: list[str] = []

    def start(self, task: str, total: int) -> None:
        self.tasks.append((task, total))

    def advance(self, steps: int = 1) -> None:
        self.done += steps

    def say(self, line: str) -> None:
        self.lines.append(line)
