"""Where models have the channels of their inputs."""

import inspect
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.protocols import Channels
from hvd_xai.tracing.channels import (
    channel_axis,
    check_channels,
    find_channels,
    place_axes,
    settle_channels,
)

FIRST = {"data_format": "channels_first"}
of = keras.layers


def chain(shape: tuple[int, ...], *layers: keras.Layer) -> keras.Model:
    return keras.Sequential([keras.Input(shape), *layers, of.Flatten(), of.Dense(2)])


class Moved(keras.Model):  # type: ignore[misc]  # keras ships no types
    """Moves axes in its own `call`, which is a tf.function."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = of.Conv2D(2, 3)

    @tf.function  # type: ignore[untyped-decorator]  # TensorFlow ships no types
    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        return tf.reduce_mean(self.conv(tf.transpose(inputs, [0, 2, 3, 1])), [1, 2])


def moved() -> keras.Model:
    model = Moved()
    model(np.zeros((1, 3, 8, 8), np.float32))
    return model


def nested() -> keras.Model:
    return chain((3, 8, 8), of.Rescaling(2.0), chain((3, 8, 8), of.Conv2D(2, 3, **FIRST)))


def in_ops() -> keras.Model:
    inputs = keras.Input((3, 8, 8))
    x = of.Conv2D(2, 3)(keras.ops.transpose(inputs, (0, 2, 3, 1)))
    return keras.Model(inputs, of.Dense(2)(of.Flatten()(x)))


MODELS: list[tuple[str, Callable[[], keras.Model], tuple[int, ...], Channels | None]] = [
    ("a convolution", lambda: chain((8, 8, 3), of.Conv2D(2, 3)), (8, 8, 3), "last"),
    ("a format", lambda: chain((3, 8, 8), of.Conv2D(2, 3, **FIRST)), (3, 8, 8), "first"),
    ("a series", lambda: chain((3, 8), of.Conv1D(2, 3, **FIRST)), (3, 8), "first"),
    ("a volume", lambda: chain((2, 4, 5, 6), of.MaxPool3D(**FIRST)), (2, 4, 5, 6), "first"),
    # What a layer says of its format goes before a default that was left as it is.
    (
        "a normalisation before",
        lambda: chain((3, 8, 8), of.BatchNormalization(), of.Conv2D(2, 3, **FIRST)),
        (3, 8, 8),
        "first",
    ),
    ("no convolution", lambda: chain((3, 8, 8), of.BatchNormalization(axis=1)), (3, 8, 8), "first"),
    ("nested", nested, (3, 8, 8), "first"),
    (
        "permuted",
        lambda: chain((3, 8, 8), of.Permute((2, 3, 1)), of.Conv2D(2, 3)),
        (3, 8, 8),
        "first",
    ),
    ("transposed in ops", in_ops, (3, 8, 8), "first"),
    ("transposed in a tf.function", moved, (3, 8, 8), "first"),
    (
        "given channels",
        lambda: chain((8, 8), of.Reshape((8, 8, 1)), of.Conv2D(2, 3)),
        (8, 8),
        "none",
    ),
    (
        "given channels by a slice",
        lambda: chain((8, 8), of.Lambda(lambda x: x[..., None]), of.Conv2D(2, 3)),
        (8, 8),
        "none",
    ),
    ("recurrent", lambda: chain((8, 3), of.Bidirectional(of.GRU(2))), (8, 3), "last"),
    (
        "of dense layers",
        lambda: chain((8, 3), of.LayerNormalization(), of.Dense(4)),
        (8, 3),
        "last",
    ),
    (
        "of frames",
        lambda: chain((4, 8, 8, 3), of.TimeDistributed(of.Conv2D(2, 3))),
        (4, 8, 8, 3),
        "last",
    ),
    ("flat, of colours", lambda: chain((8, 8, 3)), (8, 8, 3), "last"),
    ("flat, without colours", lambda: chain((8, 8)), (8, 8), None),
    (
        "of frames, channels in the middle",
        lambda: chain((4, 3, 8, 8), of.ConvLSTM2D(2, 3, **FIRST)),
        (4, 3, 8, 8),
        None,
    ),
    ("a table", lambda: chain((8,)), (8,), "none"),
]


@pytest.mark.parametrize(
    ("build", "shape", "want"), [one[1:] for one in MODELS], ids=[one[0] for one in MODELS]
)
def test_a_model_tells_where_channels_are(
    build: Callable[[], keras.Model], shape: tuple[int, ...], want: Channels | None
) -> None:
    assert find_channels(build(), shape) == want


def test_a_model_that_does_not_tell_is_asked_for_channels() -> None:
    model = chain((8, 8))
    with pytest.raises(
        ValueError,
        match=r"`rise` needs .* inputs \(None, 8, 8\) .* does not tell.*Pass channels='last'",
    ):
        settle_channels(model, (8, 8), None, asker="rise")
    assert settle_channels(model, (8, 8), "none", asker="rise") == "none"
    with pytest.raises(ValueError, match="channels is 'last', 'first' or 'none'; got 'middle'"):
        inspect.unwrap(check_channels)("middle")


def test_what_the_caller_says_goes_before_the_model() -> None:
    model = chain((8, 8, 3), of.Conv2D(2, 3))
    assert settle_channels(model, (8, 8, 3), "first", asker="rise") == "first"


def test_axes_are_those_of_a_tensor_of_examples() -> None:
    check_channels("none")
    assert [channel_axis(where, 4) for where in ("last", "first", "none")] == [3, 1, None]
    assert place_axes("last", 4) == [1, 2]
    assert place_axes("first", 4) == [2, 3]
    assert place_axes("none", 3) == [1, 2]
