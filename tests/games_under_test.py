"""Holds functions of a few features as models, with their Shapley values from all coalitions."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hvd_xai.compute.attribute import Compute, Computed
from hvd_xai.protocols import Attribution

Function = Callable[[tf.Tensor], tf.Tensor]


def model_of(function: Function, *shape: int) -> keras.Model:
    """Returns a model `[n, *shape] -> [n, 1]` that is the given function `[n, *shape] -> [n]`."""
    inputs = keras.Input(shape)
    return keras.Model(
        inputs, keras.layers.Lambda(lambda x: function(x)[:, None], output_shape=(1,))(inputs)
    )


def explain(
    method: Attribution,
    model: keras.Model,
    inputs: np.ndarray,
    ids: np.ndarray | None = None,
    **options: Any,
) -> Computed:
    """Returns attributions of the inputs for the model's only output; sample ids count from 0."""
    n = len(inputs)
    if inputs.ndim > 2:
        # A function tells nobody where it takes channels to be.
        options = {"channels": "last", **options}
    return Compute(model, partial(method, **options))(
        inputs, np.zeros(n, np.int64), np.arange(n) if ids is None else ids
    )


def twos(inputs: tf.Tensor) -> tf.Tensor:
    """Returns a baseline that is not 0."""
    return tf.fill(tf.shape(inputs), 2.0)


def mixed_game(x: tf.Tensor) -> tf.Tensor:
    """Computes a function of 10 features that act alone, in pairs, in threes and all together.

    Features 5 and 6 are symmetric, and feature 9 does nothing.
    """
    alone = 0.5 * x[:, 0] - 2.0 * x[:, 1] ** 2
    together = (
        x[:, 2] * x[:, 3] * x[:, 4]
        + tf.tanh(x[:, 0] + x[:, 7] - x[:, 8])
        + 3.0 * x[:, 5] * x[:, 6] * x[:, 7]
    )
    return alone + together + tf.maximum(x[:, 1], x[:, 2])


def mixed_inputs() -> np.ndarray:
    """Returns inputs `[3, 10]` of the mixed game, equal in the symmetric features."""
    inputs = np.random.default_rng(4).normal(size=(3, 10)).astype(np.float32)
    inputs[:, 6] = inputs[:, 5]
    return inputs


def shapley_values(function: Function, inputs: np.ndarray, baseline: float = 0.0) -> np.ndarray:
    """Computes Shapley values `[n, m]` by their definition, from the scores of all `2^m`
    coalitions."""
    m = inputs.shape[1]
    coalitions = np.arange(2**m)
    present = (coalitions[:, None] >> np.arange(m)) & 1
    of_size = np.array(
        [math.factorial(s) * math.factorial(m - s - 1) / math.factorial(m) for s in range(m)]
    )
    values = np.empty(inputs.shape)
    for i, x in enumerate(inputs):
        scores = np.asarray(
            function(tf.constant(np.where(present, x, baseline), tf.float32)), np.float64
        )
        for j in range(m):
            without = coalitions[present[:, j] == 0]
            values[i, j] = np.sum(
                of_size[present[without].sum(axis=1)]
                * (scores[without | (1 << j)] - scores[without])
            )
    return values
