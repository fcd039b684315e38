"""Holds what everybody explains: three small models, and a few examples of each from a file.

It needs no library but NumPy until a model is built.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np
from contenders import small_cnn

LAYER = "conv2"
N_STEPS = 50
N_STEPS_UNTIL_EQUAL = 1000  # of rules that differ, on a smooth model
PATCH, N_CELLS = 4, 7
NOISE = 0.2
N_REPETITIONS = 8  # of what is random, so that its standard error is known
N_NOISY, N_MASKS, N_ORDERS, N_COALITIONS, N_PAIRS = 50, 400, 5, 1000, 200  # draws of one repetition
N_FEATURES, N_CLASSES, N_TOKENS, VOCABULARY = 6, 3, 12, 20
GREY = 127.5  # of tf-explain's patches
MAX_SIGMA = 1.0  # so that no blurred digit reaches the edge of its frame
# what is compared of its explainers
TF_EXPLAIN = (
    "VanillaGradients",
    "GradientsInputs",
    "GradCAM",
    "OcclusionSensitivity",
)

Check: TypeAlias = Callable[[], np.ndarray]


def mlp() -> Any:
    """Builds a smooth model of a table, on which all quadrature rules converge fast."""
    import keras

    layers = [
        keras.layers.Dense(16, activation="tanh", name="first"),
        keras.layers.Dense(16, activation="softplus"),
        keras.layers.Dense(N_CLASSES),
    ]
    return keras.Sequential([keras.Input((N_FEATURES,)), *layers])


def reader() -> Any:
    """Builds a model of tokens."""
    import keras

    layers = [keras.layers.Embedding(VOCABULARY, 8), keras.layers.Flatten()]
    layers += [keras.layers.Dense(16, activation="relu"), keras.layers.Dense(N_CLASSES)]
    return keras.Sequential([keras.Input((N_TOKENS,), dtype="int32"), *layers])


BUILDERS = {"cnn": small_cnn, "mlp": mlp, "reader": reader}


@dataclass(frozen=True)
class Examples:
    """Some examples, and the class that is explained of each."""

    inputs: np.ndarray
    targets: np.ndarray

    def __iter__(self) -> Any:
        """Iterates over examples and targets."""
        return ((x, int(target)) for x, target in zip(self.inputs, self.targets, strict=True))

    def one_hot(self, n_classes: int) -> np.ndarray:
        """Returns the targets as rows."""
        return np.eye(n_classes, dtype=np.float32)[self.targets]

    def repeated(self, n_times: int) -> "Examples":
        """Returns all examples, and all of them again, so many times."""
        return Examples(
            np.concatenate([self.inputs] * n_times), np.concatenate([self.targets] * n_times)
        )


class Probe:
    """Models, examples and what was drawn for everybody.

    Args:
        file: was written by cross_check.py.
    """

    def __init__(self, file: Path) -> None:
        self._held = np.load(file)

    def __getitem__(self, name: str) -> np.ndarray:
        """Returns an array by name."""
        return self._held[name]

    def weights(self, model: str) -> list[np.ndarray]:
        """Returns the weights of a model, in the order of Keras."""
        names = [name for name in self._held.files if name.startswith(f"{model} weight ")]
        return [
            self._held[name]
            for name in sorted(names, key=lambda name: int(name.rpartition(" ")[2]))
        ]

    def model(self, name: str) -> Any:
        """Builds a Keras model."""
        model = BUILDERS[name]()
        model.set_weights(self.weights(name))
        return model

    def examples(self, name: str) -> Examples:
        """Returns examples by name."""
        return Examples(self[name], self[f"{name} targets"])

    @cached_property
    def cells(self) -> np.ndarray:
        """Returns the number of the feature that each place of an image is in."""
        along = np.arange(N_CELLS * PATCH) // PATCH
        return along[:, None] * N_CELLS + along


def repeated(run: Check) -> Check:
    """Returns a check that runs another one again and again, and stacks what it returns."""
    return lambda: np.stack([run() for _ in range(N_REPETITIONS)])


def shares(maps: np.ndarray) -> np.ndarray:
    """Divides maps by their sums."""
    return maps / maps.sum(axis=(1, 2), keepdims=True)
