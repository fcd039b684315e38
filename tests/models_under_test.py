"""Builds small Keras models of every shape: the same few layers, put together in all ways of Keras.

Each builder seeds the initial weights, so that two calls give the same model. Inputs are images,
`[n, 8, 8, 1]`, or of another family, and outputs three probabilities.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hvd_xai.protocols import Channels

INPUT_SHAPE = (8, 8, 1)
N_CLASSES = 3
N_TOKENS, N_WORDS, N_UNITS = 6, 9, 4
SEVERAL = {
    "image": ((3, 3, 1), "float32"),
    "tokens": ((N_TOKENS,), "int32"),
    "table": ((3,), "float32"),
}


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
        pair: makes a layer for inputs and one whose inputs are as its outputs, both of which can be
            called again; takes what their names end in.
        draw: draws inputs `[n, ...]`.
    """

    name: str
    input_shape: tuple[int, ...]
    dtype: str
    backbone: Callable[[], list[keras.Layer]]
    with_state: Callable[[], list[keras.Layer]]
    head: Callable[[], list[keras.Layer]]
    pair: Callable[[str], tuple[keras.Layer, keras.Layer]]
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


def _pair_of_convolutions(suffix: str) -> tuple[keras.Layer, keras.Layer]:
    first, second = (
        keras.layers.Conv2D(4, 3, padding="same", activation="relu", name=f"{name}{suffix}")
        for name in ("first", "second")
    )
    return first, second


def _flat_head() -> list[keras.Layer]:
    return [keras.layers.Flatten(name="flatten"), _probabilities()]


class SelfAttention(keras.layers.Layer):  # type: ignore[misc]  # keras ships no types
    """Attention of a sequence to itself, with a residual connection.

    Padding is masked, and the mask is handed on.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.supports_masking = True
        self.attention = keras.layers.MultiHeadAttention(2, 3, name="attention")
        # Not when the model is built: weights are drawn in the order in which layers are made, the
        # same in every shape of model.
        self.attention.build((None, N_TOKENS, N_UNITS), (None, N_TOKENS, N_UNITS))

    def call(self, inputs: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
        return inputs + self.attention(
            inputs, inputs, attention_mask=None if mask is None else mask[:, None, :]
        )


def _embedding(name: str) -> keras.Layer:
    # Vectors of some length: with Keras's own, attention is all but even.
    vectors = keras.initializers.RandomNormal(stddev=1.0)
    return keras.layers.Embedding(
        N_WORDS, N_UNITS, mask_zero=True, embeddings_initializer=vectors, name=name
    )


def _encoder() -> list[keras.Layer]:
    return [_embedding("embedding"), SelfAttention(name="first"), SelfAttention(name="second")]


def _encoder_with_state() -> list[keras.Layer]:
    embedding, first, second = _encoder()
    norm, dropout, penalty = _state()
    return [embedding, norm, first, dropout, second, penalty]


def _embedding_and_attention(suffix: str) -> tuple[keras.Layer, keras.Layer]:
    return _embedding(f"first{suffix}"), SelfAttention(name=f"second{suffix}")


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
    _pair_of_convolutions,
    lambda generator, n: generator.uniform(0, 1, (n, *INPUT_SHAPE)).astype(np.float32),
)
TOKENS = Family(
    "tokens",
    (N_TOKENS,),
    "int32",
    _encoder,
    _encoder_with_state,
    _mean_head,
    _embedding_and_attention,
    _draw_tokens,
)

FAMILIES = (IMAGES, TOKENS)
"""What methods are tried on, in turn: images, then texts of up to 6 words, padded with 0, whose
models attend."""


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


class InFunction(Subclassed):
    """A model whose `call` is a tf.function."""

    @tf.function  # type: ignore[untyped-decorator]  # TensorFlow ships no types
    def call(self, inputs: object) -> object:
        return super().call(inputs)


def subclassed_in_function(family: Family = IMAGES) -> keras.Model:
    keras.utils.set_random_seed(11)
    model = InFunction(family)
    model(family.zeros())
    return model


def _functional_backbone(family: Family) -> keras.Model:
    inputs = outputs = family.input()
    for layer in family.backbone():
        outputs = layer(outputs)
    return keras.Model(inputs, outputs, name="backbone")


def functional_in_sequential(family: Family = IMAGES) -> keras.Model:
    keras.utils.set_random_seed(11)
    return keras.Sequential(
        [family.input(), _functional_backbone(family), *family.head()],
        name="functional_in_sequential",
    )


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
    """Returns a model whose state explaining could disturb.

    It has batch normalisation with uneven statistics, dropout, and a loss of its own.
    """
    keras.utils.set_random_seed(11)
    model = keras.Sequential(
        [family.input(), *family.with_state(), *family.head()], name="with_state"
    )
    norm = model.get_layer("norm")
    generator = np.random.default_rng(5)
    norm.set_weights(
        [generator.uniform(0.5, 1.5, w.shape).astype(np.float32) for w in norm.get_weights()]
    )
    return model


def with_layers_called_twice(family: Family = IMAGES) -> keras.Model:
    """Returns a model that calls its layers `first` and `second` twice.

    One is called on the inputs and on them reversed, the other on what the first returns.
    """
    keras.utils.set_random_seed(11)
    pair = family.pair("")
    return _of_pairs(family, pair, pair)


def with_layers_copied(family: Family = IMAGES) -> keras.Model:
    """Returns the function of `with_layers_called_twice`, with a layer for each call.

    The layers are `first_0`, `first_1`, `second_0` and `second_1`.
    """
    original = with_layers_called_twice(family)
    model = _of_pairs(family, family.pair("_0"), family.pair("_1"))
    for layer in filter(lambda layer: layer.weights, model.layers):
        layer.set_weights(original.get_layer(layer.name.split("_")[0]).get_weights())
    return model


def _of_pairs(
    family: Family, pair: tuple[keras.Layer, keras.Layer], other: tuple[keras.Layer, keras.Layer]
) -> keras.Model:
    inputs = family.input()
    outputs = keras.layers.Add(name="sum")(
        [pair[0](inputs), other[0](keras.ops.flip(inputs, axis=1))]
    )
    outputs = other[1](pair[1](outputs))
    for layer in family.head():
        outputs = layer(outputs)
    return keras.Model(inputs, outputs, name="of_pairs")


def of_several() -> keras.Model:
    """Returns a model of an image, a text and numbers, which are given by name.

    It knows the even words only: of others it makes a NaN.
    """
    keras.utils.set_random_seed(11)
    inputs = {
        name: keras.Input(shape, dtype=dtype, name=name) for name, (shape, dtype) in SEVERAL.items()
    }
    return _knowing_even_words(keras.Model(inputs, _of_several(**inputs), name="of_several"))


def of_one_row() -> keras.Model:
    """Returns the function of `of_several` for one row of floats, in which its inputs lie one after
    the other.

    Paths leave its words alone, too.
    """
    keras.utils.set_random_seed(11)
    sizes = [math.prod(shape) for shape, _ in SEVERAL.values()]
    row = keras.Input((sum(sizes),))
    parts = keras.ops.split(row, np.cumsum(sizes)[:-1].tolist(), axis=1)
    image, tokens, table = (
        keras.layers.Reshape(shape)(part)
        for part, (shape, _) in zip(parts, SEVERAL.values(), strict=True)
    )
    tokens = keras.ops.cast(keras.ops.round(keras.ops.stop_gradient(tokens)), "int32")
    model = _knowing_even_words(
        keras.Model(row, _of_several(image, tokens, table), name="of_one_row")
    )
    model.is_whole = np.repeat([dtype == "int32" for _, dtype in SEVERAL.values()], sizes)
    return model


def _knowing_even_words(model: keras.Model) -> keras.Model:
    vectors = model.get_layer("embedding").get_weights()[0]
    model.get_layer("embedding").set_weights(
        [np.where(np.arange(N_WORDS)[:, None] % 2, np.nan, vectors)]
    )
    return model


def _of_several(image: Any, tokens: Any, table: Any) -> Any:
    seen = keras.layers.Conv2D(2, 2, activation="relu", name="conv")(image)
    read = SelfAttention(name="attention")(_embedding("embedding")(tokens))
    # The mean over padding, too: of nothing but padding there is no other.
    parts = [keras.layers.Flatten(name="seen")(seen), keras.ops.mean(read, axis=1), table]
    return _probabilities()(keras.layers.Concatenate(name="joined")(parts))


def several_examples(n: int, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Returns inputs by name, targets and sample ids, the same for each seed."""
    generator = np.random.default_rng(seed)
    inputs = {
        "image": generator.uniform(0, 1, (n, 3, 3, 1)).astype(np.float32),
        "tokens": _draw_tokens(generator, n) // 2 * 2,
        "table": generator.uniform(0, 1, (n, 3)).astype(np.float32),
    }
    return inputs, np.arange(n, dtype=np.int64) % N_CLASSES, np.arange(n, dtype=np.int64)


def segmenting(family: Family = IMAGES) -> keras.Model:
    """Returns a model of three probabilities for each place."""
    keras.utils.set_random_seed(11)
    return keras.Model(*_segmented(family), name="segmenting")


def averaging(region: np.ndarray, family: Family = IMAGES) -> keras.Model:
    """Returns a model that averages what `segmenting` returns over the places of a region."""
    keras.utils.set_random_seed(11)
    inputs, outputs = _segmented(family)
    weights = (region / region.sum()).astype(np.float32)[..., None]
    return keras.Model(
        inputs,
        keras.ops.sum(outputs * weights, axis=tuple(range(1, weights.ndim))),
        name="averaging",
    )


def _segmented(family: Family) -> tuple[Any, Any]:
    inputs = outputs = family.input()
    # Evened out, lest all places be of one class; with biases, so that the classes of places change
    # on the way from a baseline.
    even = keras.layers.LayerNormalization(epsilon=0.1, name="even")
    classes = keras.layers.Dense(
        N_CLASSES,
        activation="softmax",
        bias_initializer=keras.initializers.RandomNormal(stddev=0.3),
    )
    for layer in [*family.backbone(), even, classes]:
        outputs = layer(outputs)
    return inputs, outputs


SAME_FUNCTION: tuple[Callable[..., keras.Model], ...] = (
    functional,
    sequential,
    sequential_without_input,
    subclassed,
    subclassed_in_function,
    functional_in_sequential,
    sequential_in_functional,
    functional_in_subclassed,
)
"""Builders of one and the same function, in eight shapes."""


def examples(
    n: int, seed: int = 0, family: Family = IMAGES
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns inputs `[n, ...]`, targets and sample ids, the same for each seed."""
    inputs = family.draw(np.random.default_rng(seed), n)
    return inputs, np.arange(n, dtype=np.int64) % N_CLASSES, np.arange(n, dtype=np.int64)


def state_of(model: keras.Model) -> dict[str, Any]:
    """Returns what explaining must leave alone: variables, attributes of layers, the config."""
    layers = model._flatten_layers()
    return {
        # weights, moving statistics and seeds
        "variables": [keras.ops.convert_to_numpy(variable) for variable in model.variables],
        # an interception left behind would be one more
        "attributes": [sorted(vars(layer)) for layer in layers],
        "layers": [layer.name for layer in layers],
        "config": None if isinstance(model, Subclassed | _AroundBackbone) else model.get_config(),
    }


def assert_same_state(got: dict[str, Any], want: dict[str, Any]) -> None:
    """Compares what `state_of` returned for one model twice, or for two models built alike.

    Names that Keras numbers are not compared.
    """
    for one, other in zip(got["variables"], want["variables"], strict=True):
        np.testing.assert_array_equal(one, other)
    assert got["attributes"] == want["attributes"]
    assert len(got["layers"]) == len(want["layers"])
    if got["layers"] == want["layers"]:
        assert got["config"] == want["config"]


def of_places(channels: Channels) -> keras.Model:
    """A network of images of 6 x 5 places and 2 channels, the same wherever these are."""
    is_first = channels == "first"
    options = {"data_format": "channels_first" if is_first else "channels_last"}
    keras.utils.set_random_seed(4)
    return keras.Sequential(
        [
            keras.Input((2, 6, 5) if is_first else (6, 5, 2)),
            keras.layers.Conv2D(4, 3, activation="relu", **options),
            keras.layers.MaxPooling2D(2, name="pool", **options),
            keras.layers.GlobalAveragePooling2D(**options),
            keras.layers.Dense(3),
        ]
    )
