"""Small Keras models of every shape, for tests: the same few layers, put together in all the ways Keras knows.

Each builder seeds the initial weights, so that two calls give the same model. Inputs are images, `[n, 8, 8, 1]`, or of another family, and
outputs three probabilities.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

INPUT_SHAPE = (8, 8, 1)
N_CLASSES = 3
N_TOKENS, N_WORDS, N_UNITS = 6, 9, 4


@dataclass(frozen=True)
class Family:
    """A kind of data, and layers for it, of which models of every shape are built.

    Attributes:
        name: for people.
        input_shape: of one example.
        dtype: of the inputs.
        backbone: makes the layers below the head.
        with_state: makes the same, with layers between them whose state explaining could disturb.
        head: makes the last layers.
        draw: draws inputs `[n, ...]`.
    """

    name: str
    input_shape: tuple[int, ...]
    dtype: str
    backbone: Callable[[], list[keras.Layer]]
    with_state: Callable[[], list[keras.Layer]]
    head: Callable[[], list[keras.Layer]]
    draw: Callable[[np.random.Generator, int], np.ndarray]

    def input(self) -> Any:
        return keras.Input(self.input_shape, dtype=self.dtype)

    def zeros(self) -> np.ndarray:
        return np.zeros((1, *self.input_shape), self.dtype)


def _convolutions() -> list[keras.Layer]:
    return [
        keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
        keras.layers.MaxPooling2D(name="pool"),
        keras.layers.Conv2D(6, 2, activation="relu", name="last_conv"),
    ]


def _convolutions_with_state() -> list[keras.Layer]:
    first, pool, last = _convolutions()
    norm, dropout, penalty = _state()
    return [first, norm, pool, dropout, last, penalty]


def _flat_head() -> list[keras.Layer]:
    return [keras.layers.Flatten(name="flatten"), _probabilities()]


class SelfAttention(keras.layers.Layer):  # type: ignore[misc]  # keras ships no types
    """Attention of a sequence to itself, around which the sequence passes; padding is masked, and the mask handed on."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.supports_masking = True
        self.attention = keras.layers.MultiHeadAttention(2, 3, name="attention")
        # Not when the model is built: weights are drawn in the order in which layers are made, the same in every shape of model.
        self.attention.build((None, N_TOKENS, N_UNITS), (None, N_TOKENS, N_UNITS))

    def call(self, inputs: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
        return inputs + self.attention(inputs, inputs, attention_mask=None if mask is None else mask[:, None, :])


def _encoder() -> list[keras.Layer]:
    # Vectors of some length: with Keras's own, attention is all but even.
    vectors = keras.initializers.RandomNormal(stddev=1.0)
    embedding = keras.layers.Embedding(N_WORDS, N_UNITS, mask_zero=True, embeddings_initializer=vectors, name="embedding")
    return [embedding, SelfAttention(name="first"), SelfAttention(name="second")]


def _encoder_with_state() -> list[keras.Layer]:
    embedding, first, second = _encoder()
    norm, dropout, penalty = _state()
    return [embedding, norm, first, dropout, second, penalty]


def _mean_head() -> list[keras.Layer]:
    return [keras.layers.GlobalAveragePooling1D(name="mean"), _probabilities()]


def _probabilities() -> keras.Layer:
    return keras.layers.Dense(N_CLASSES, activation="softmax", name="probabilities")


def _state() -> list[keras.Layer]:
    # The last adds a loss whenever the model runs.
    return [
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.Dropout(0.5, name="dropout"),
        keras.layers.ActivityRegularization(l2=1e-3, name="penalty"),
    ]


def _draw_tokens(generator: np.random.Generator, n: int) -> np.ndarray:
    tokens = generator.integers(1, N_WORDS, (n, N_TOKENS)).astype(np.int32)
    lengths = generator.integers(2, N_TOKENS + 1, (n, 1))
    return np.where(np.arange(N_TOKENS) < lengths, tokens, 0)


IMAGES = Family(
    "images",
    INPUT_SHAPE,
    "float32",
    _convolutions,
    _convolutions_with_state,
    _flat_head,
    lambda generator, n: generator.uniform(0, 1, (n, *INPUT_SHAPE)).astype(np.float32),
)
TOKENS = Family("tokens", (N_TOKENS,), "int32", _encoder, _encoder_with_state, _mean_head, _draw_tokens)

FAMILIES = (IMAGES, TOKENS)
"""What methods are tried on, in turn: images, then texts of up to 6 words, padded with 0, whose models attend."""


def functional(family: Family = IMAGES) -> keras.Model:
    keras.utils.set_random_seed(11)
    inputs = outputs = family.input()
    for layer in [*family.backbone(), *family.head()]:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs, name="functional")


def sequential(family: Family = IMAGES) -> keras.Model:
    keras.utils.set_random_seed(11)
    return keras.Sequential([family.input(), *family.backbone(), *family.head()], name="sequential")


def sequential_without_input(family: Family = IMAGES) -> keras.Model:
    keras.utils.set_random_seed(11)
    model = keras.Sequential([*family.backbone(), *family.head()], name="sequential_without_input")
    model(family.zeros())
    return model


class Subclassed(keras.Model):  # type: ignore[misc]  # keras ships no types
    """A model whose `call` is plain Python, with its layers in lists; it takes no `training`."""

    def __init__(self, family: Family = IMAGES) -> None:
        super().__init__(name="subclassed")
        self.backbone = family.backbone()
        self.head = family.head()

    def call(self, inputs: object) -> object:
        outputs = inputs
        for layer in [*self.backbone, *self.head]:
            outputs = layer(outputs)
        return outputs


def subclassed(family: Family = IMAGES) -> keras.Model:
    keras.utils.set_random_seed(11)
    model = Subclassed(family)
    model(family.zeros())
    return model


def _functional_backbone(family: Family) -> keras.Model:
    inputs = outputs = family.input()
    for layer in family.backbone():
        outputs = layer(outputs)
    return keras.Model(inputs, outputs, name="backbone")


def functional_in_sequential(family: Family = IMAGES) -> keras.Model:
    keras.utils.set_random_seed(11)
    return keras.Sequential([family.input(), _functional_backbone(family), *family.head()], name="functional_in_sequential")


def sequential_in_functional(family: Family = IMAGES) -> keras.Model:
    keras.utils.set_random_seed(11)
    inputs = family.input()
    outputs = keras.Sequential(family.backbone(), name="backbone")(inputs)
    for layer in family.head():
        outputs = layer(outputs)
    return keras.Model(inputs, outputs, name="sequential_in_functional")


class _AroundBackbone(keras.Model):  # type: ignore[misc]  # keras ships no types
    def __init__(self, family: Family) -> None:
        super().__init__(name="functional_in_subclassed")
        self.backbone = _functional_backbone(family)
        self.head = keras.Sequential(family.head(), name="head")
        self.head.supports_masking = True  # as its layers do, which a Sequential does not see

    def call(self, inputs: object, training: bool | None = None) -> object:
        return self.head(self.backbone(inputs, training=training), training=training)


def functional_in_subclassed(family: Family = IMAGES) -> keras.Model:
    keras.utils.set_random_seed(11)
    model = _AroundBackbone(family)
    model(family.zeros())
    return model


def with_state(family: Family = IMAGES) -> keras.Model:
    """Batch normalisation with uneven statistics, dropout, and a loss of its own: what explaining could disturb."""
    keras.utils.set_random_seed(11)
    model = keras.Sequential([family.input(), *family.with_state(), *family.head()], name="with_state")
    norm = model.get_layer("norm")
    generator = np.random.default_rng(5)
    norm.set_weights([generator.uniform(0.5, 1.5, w.shape).astype(np.float32) for w in norm.get_weights()])
    return model


SAME_FUNCTION: tuple[Callable[..., keras.Model], ...] = (
    functional,
    sequential,
    sequential_without_input,
    subclassed,
    functional_in_sequential,
    sequential_in_functional,
    functional_in_subclassed,
)
"""Builders of one and the same function, in seven shapes."""


def examples(n: int, seed: int = 0, family: Family = IMAGES) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns inputs `[n, ...]`, targets and sample ids, the same for each seed."""
    inputs = family.draw(np.random.default_rng(seed), n)
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
