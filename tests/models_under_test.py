"""Small Keras models of every shape, for tests: the same few layers, put together in all the ways Keras knows.

Each builder seeds the initial weights, so that two calls give the same model. Inputs are `[n, 8, 8, 1]`, outputs three probabilities.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

INPUT_SHAPE = (8, 8, 1)
N_CLASSES = 3


def _backbone_layers() -> list[keras.Layer]:
    return [
        keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
        keras.layers.MaxPooling2D(name="pool"),
        keras.layers.Conv2D(6, 2, activation="relu", name="last_conv"),
    ]


def _head_layers() -> list[keras.Layer]:
    return [keras.layers.Flatten(name="flatten"), keras.layers.Dense(N_CLASSES, activation="softmax", name="probabilities")]


def functional() -> keras.Model:
    keras.utils.set_random_seed(11)
    inputs = outputs = keras.Input(INPUT_SHAPE)
    for layer in [*_backbone_layers(), *_head_layers()]:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs, name="functional")


def sequential() -> keras.Model:
    keras.utils.set_random_seed(11)
    return keras.Sequential([keras.Input(INPUT_SHAPE), *_backbone_layers(), *_head_layers()], name="sequential")


def sequential_without_input() -> keras.Model:
    keras.utils.set_random_seed(11)
    model = keras.Sequential([*_backbone_layers(), *_head_layers()], name="sequential_without_input")
    model(np.zeros((1, *INPUT_SHAPE), np.float32))
    return model


class Subclassed(keras.Model):  # type: ignore[misc]  # keras ships no types
    """A model whose `call` is plain Python, with its layers in lists; it takes no `training`."""

    def __init__(self) -> None:
        super().__init__(name="subclassed")
        self.backbone = _backbone_layers()
        self.head = _head_layers()

    def call(self, inputs: object) -> object:
        outputs = inputs
        for layer in [*self.backbone, *self.head]:
            outputs = layer(outputs)
        return outputs


def subclassed() -> keras.Model:
    keras.utils.set_random_seed(11)
    model = Subclassed()
    model(np.zeros((1, *INPUT_SHAPE), np.float32))
    return model


def _functional_backbone() -> keras.Model:
    inputs = outputs = keras.Input(INPUT_SHAPE)
    for layer in _backbone_layers():
        outputs = layer(outputs)
    return keras.Model(inputs, outputs, name="backbone")


def functional_in_sequential() -> keras.Model:
    keras.utils.set_random_seed(11)
    return keras.Sequential([keras.Input(INPUT_SHAPE), _functional_backbone(), *_head_layers()], name="functional_in_sequential")


def sequential_in_functional() -> keras.Model:
    keras.utils.set_random_seed(11)
    inputs = keras.Input(INPUT_SHAPE)
    outputs = keras.Sequential(_backbone_layers(), name="backbone")(inputs)
    for layer in _head_layers():
        outputs = layer(outputs)
    return keras.Model(inputs, outputs, name="sequential_in_functional")


class _AroundBackbone(keras.Model):  # type: ignore[misc]  # keras ships no types
    def __init__(self) -> None:
        super().__init__(name="functional_in_subclassed")
        self.backbone = _functional_backbone()
        self.head = keras.Sequential(_head_layers(), name="head")

    def call(self, inputs: object, training: bool | None = None) -> object:
        return self.head(self.backbone(inputs, training=training), training=training)


def functional_in_subclassed() -> keras.Model:
    keras.utils.set_random_seed(11)
    model = _AroundBackbone()
    model(np.zeros((1, *INPUT_SHAPE), np.float32))
    return model


def with_state() -> keras.Model:
    """Batch normalisation with uneven statistics, dropout, and a loss of its own: what explaining could disturb."""
    keras.utils.set_random_seed(11)
    first, pool, last = _backbone_layers()
    model = keras.Sequential(
        [
            keras.Input(INPUT_SHAPE),
            first,
            keras.layers.BatchNormalization(name="norm"),
            pool,
            keras.layers.Dropout(0.5, name="dropout"),
            last,
            keras.layers.ActivityRegularization(l2=1e-3, name="penalty"),  # adds a loss whenever the model runs
            *_head_layers(),
        ],
        name="with_state",
    )
    norm = model.get_layer("norm")
    generator = np.random.default_rng(5)
    norm.set_weights([generator.uniform(0.5, 1.5, w.shape).astype(np.float32) for w in norm.get_weights()])
    return model


SAME_FUNCTION: tuple[Callable[[], keras.Model], ...] = (
    functional,
    sequential,
    sequential_without_input,
    subclassed,
    functional_in_sequential,
    sequential_in_functional,
    functional_in_subclassed,
)
"""Builders of one and the same function, in seven shapes."""


def examples(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns inputs `[n, 8, 8, 1]`, targets and sample ids, the same for each seed."""
    generator = np.random.default_rng(seed)
    inputs = generator.uniform(0, 1, (n, *INPUT_SHAPE)).astype(np.float32)
    return inputs, np.arange(n, dtype=np.int64) % N_CLASSES, np.arange(n, dtype=np.int64)


def state_of(model: keras.Model) -> dict[str, Any]:
    """Returns what explaining must leave alone: values of all variables, what stands on the layers themselves, and the config."""
    layers = model._flatten_layers()
    return {
        "variables": [keras.ops.convert_to_numpy(variable) for variable in model.variables],  # weights, moving statistics and seeds
        "attributes": [sorted(vars(layer)) for layer in layers],  # an interception left behind would be one more
        "layers": [layer.name for layer in layers],
        "config": None if isinstance(model, Subclassed | _AroundBackbone) else model.get_config(),
    }


def assert_same_state(got: dict[str, Any], want: dict[str, Any]) -> None:
    """Compares what `state_of` returned, of one model twice or of two built alike; names that Keras numbers are not compared."""
    for one, other in zip(got["variables"], want["variables"], strict=True):
        np.testing.assert_array_equal(one, other)
    assert got["attributes"] == want["attributes"]
    assert len(got["layers"]) == len(want["layers"])
    if got["layers"] == want["layers"]:
        assert got["config"] == want["config"]
