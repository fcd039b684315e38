"""Holds functions whose attributions have closed forms, and a network that has learnt something.

All functions are in one model, which is traced once.
"""

from functools import cache, partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

from hvd_xai.compute.attribute import Compute, Computed
from hvd_xai.protocols import Attribution

FUNCTIONS = ("linear", "square", "cube", "product", "relu", "max")
WEIGHTS = np.array([2.0, -3.0, 0.5], np.float32)
POINTS = np.array([[2.0, 3.0, -1.0], [0.5, -4.0, 5.0]], np.float32)


def _functions(x: tf.Tensor) -> tf.Tensor:
    total = tf.reduce_sum(x, axis=1)
    return tf.stack(
        [
            tf.reduce_sum(x * WEIGHTS, axis=1),
            tf.reduce_sum(x**2, axis=1),
            tf.reduce_sum(x**3, axis=1),
            x[:, 0] * x[:, 1],
            tf.nn.relu(total),
            tf.maximum(x[:, 0], x[:, 1]),
        ],
        axis=1,
    )


@cache
def functions() -> keras.Model:
    """Returns a model `[n, 3] -> [n, 6]` with one output for each of `FUNCTIONS`."""
    inputs = keras.Input((3,))
    return keras.Model(inputs, keras.layers.Lambda(_functions, output_shape=(6,))(inputs))


def explain(
    model: keras.Model,
    method: Attribution,
    inputs: np.ndarray,
    targets: np.ndarray | None = None,
    /,
    **options: Any,
) -> Computed:
    """Explains target 0, unless targets are given; the sample ids are the numbers of the rows."""
    targets = np.zeros(len(inputs), np.int64) if targets is None else targets
    return Compute(model, partial(method, **options))(inputs, targets, np.arange(len(inputs)))


def explain_functions(method: Attribution, /, **options: Any) -> dict[str, Computed]:
    """Explains each of the functions at `POINTS`."""
    n_points, n_functions = len(POINTS), len(FUNCTIONS)
    computed = explain(
        functions(),
        method,
        np.tile(POINTS, (n_functions, 1)),
        np.repeat(np.arange(n_functions), n_points),
        **options,
    )
    parts = [slice(n_points * index, n_points * (index + 1)) for index in range(n_functions)]
    return {
        name: Computed(
            computed.attributions[part],
            {key: values[part] for key, values in computed.per_sample.items()},
        )
        for name, part in zip(FUNCTIONS, parts, strict=True)
    }


def relative_error(got: np.ndarray, want: np.ndarray) -> float:
    assert got.shape == want.shape
    return float(np.abs(got - want).max() / np.abs(want).max())


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns images `[1797, 8, 8, 1]` from 0 to 1, and the digits that they show."""
    loaded = load_digits()
    return (loaded.images[..., None] / 16).astype(np.float32), loaded.target


@cache
def trained() -> keras.Model:
    """Returns a small network that reads digits, trained on all but the first 256."""
    inputs, targets = digits()
    keras.utils.set_random_seed(7)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(32, 2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    model.fit(inputs[256:], targets[256:], epochs=6, verbose=0)
    return model


def gap(computed: Computed) -> float:
    """Returns the mean distance of attributions to the sum they should have, as a share of that
    sum."""
    delta = computed.per_sample["convergence_delta"]
    summed = computed.attributions.reshape(len(delta), -1).sum(axis=1)
    return float(np.abs(delta).mean() / np.abs(summed - delta).mean())
