"""Runs a model and returns a layer's activations and their gradient, channels last."""

import keras
import tensorflow as tf
from jaxtyping import Float32, Shaped

from hvd_xai import scores
from hvd_xai.primitives import layers
from hvd_xai.primitives.layers import Call
from hvd_xai.protocols import Score


def activations(
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    layer: str | None,
    *,
    asker: str,
    targets: Shaped[tf.Tensor, "n"] | None = None,
    score: str | Score | None = None,
) -> Float32[tf.Tensor, "n *places channels"]:
    """Runs the model in inference mode and returns what a layer returns.

    Args:
        model: any built Keras model of one input.
        inputs: examples `[n, ...]`.
        layer: name of a layer, or as much of its path as identifies it; by default the last layer
            with a spatial output.
        asker: name of the method that asks, for the error.
        targets: what the score selects for each example, `[n]`.
        score: scalar that the layer must lead to; None for a method that explains none.

    Returns:
        Activations with their channels on the last axis, wherever the layer has them.

    Raises:
        ValueError: if the model has no such layer, several match, the layer has no spatial output,
            or the score does not depend on it.
    """
    with layers.tap(model) as calls:
        if score is None:
            model(inputs, training=False)
            leading = calls
        else:
            values = scores.evaluate(model, inputs, targets, score)
            leading = layers.leading_to(calls, values)
    call = layers.spatial(calls, layer, asker, leading=leading)
    return _channels_last(call.output, channel_axis(calls, call))


def activations_and_gradient(
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    score: str | Score,
    layer: str | None,
    *,
    asker: str,
) -> tuple[Float32[tf.Tensor, "n *places channels"], Float32[tf.Tensor, "n *places channels"]]:
    """Runs the model forward, and back to a layer, in inference mode.

    Returns the layer's activations and the score's gradient with respect to them.

    Args:
        model: any built Keras model of one input.
        inputs: examples `[n, ...]`.
        targets: what the score selects for each example, `[n]`.
        score: scalar to explain: name of a score in `hvd_xai.scores`, or a function of outputs and
            targets.
        layer: name of a layer, or as much of its path as identifies it; by default the last layer
            with a spatial output that leads to the score.
        asker: name of the method that asks, for the error.

    Returns:
        Activations and gradient, channels on the last axis wherever the layer has them.

    Raises:
        ValueError: if the model has no such layer, several match, the layer has no spatial output,
            or the score does not depend on it.
    """
    with (
        tf.GradientTape(watch_accessed_variables=False) as tape,
        layers.tap(model, tape.watch, layer) as calls,
    ):
        total = tf.reduce_sum(scores.evaluate(model, inputs, targets, score))
    call = layers.spatial(calls, layer, asker, leading=layers.leading_to(calls, total))
    gradient = tape.gradient(total, call.output)
    if gradient is None:
        raise ValueError(
            f"`{asker}` needs a layer that the score depends on smoothly; it does not depend so on"
            f" layer {call.path!r}, behind which the model stops gradients"
        )
    channel = channel_axis(calls, call)
    return _channels_last(call.output, channel), _channels_last(gradient, channel)


def places(maps: Float32[tf.Tensor, "n *places channels"]) -> list[int]:
    """Returns the axes that are neither examples nor channels."""
    return list(range(1, maps.shape.rank - 1))


def channel_axis(calls: list[Call], call: Call) -> int:
    """Returns the axis of a layer's channels.

    Activations, normalisations and sums do not say where their channels are: the channels are where
    the last layer before them that does say so has put them. A layer that moves axes ends the
    search.
    """
    last = len(call.shape or ()) - 1
    # From the layer itself back to the last one before it that says where its channels are.
    for before in reversed(calls[: calls.index(call) + 1]):
        data_format = getattr(before.layer, "data_format", None)
        if data_format is not None:
            return 1 if data_format == "channels_first" else last
        if isinstance(before.layer, keras.layers.Permute | keras.layers.Reshape):
            break
    return last


def _channels_last(maps: tf.Tensor, channel: int) -> tf.Tensor:
    maps = tf.cast(maps, tf.float32)
    #     [n, channels, h, w] -> [n, h, w, channels]
    axes = [axis for axis in range(maps.shape.rank) if axis != channel]
    return maps if channel == len(axes) else tf.transpose(maps, [*axes, channel])
