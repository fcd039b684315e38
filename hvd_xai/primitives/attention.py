"""Catches the attention of Keras's multi-head attention layers, wherever they are in a model."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from jaxtyping import Float32

from hvd_xai.tracing.layer_patching import replaced, unwrapped

# The layers, with the attribute that holds their dropout rate.
_KINDS = {keras.layers.MultiHeadAttention: "_dropout", keras.layers.GroupQueryAttention: "dropout"}


class Attention(NamedTuple):
    """The attention of one call of a layer.

    Attributes:
        layer: layer that was called.
        scores: share that each query (axis before the last) takes of each key (last axis); shares
            sum to 1; `[n, heads, t, t]` as a rule.
        mask: true where a query may attend to a key, in a shape that broadcasts once the axis of
            heads is left out; None if every query may attend to every key.
    """

    layer: keras.Layer
    scores: tf.Tensor
    mask: tf.Tensor | None


@contextmanager
def tap(
    model: keras.Model, watch: Callable[[tf.Tensor], None] | None = None
) -> Iterator[list[Attention]]:
    """Collects the attention of the model's layers while the context lasts, in the order of calls.

    Meanwhile the layers compute their scores explicitly, including those that would use a fused
    kernel (flash attention).

    Args:
        model: model to run once within the context, in inference mode.
        watch: function that gets each layer's scores before anything uses them, such as
            `tf.GradientTape.watch`.

    Yields:
        A list that fills while the model runs.
    """
    collected: list[Attention] = []

    def explicit(of: keras.Layer, rate: float) -> float:
        del of
        # a layer that might drop scores computes them; the rate itself is in a layer of its own
        return rate or 1e-9

    def intercepted(
        of: keras.Layer, masked_softmax: Callable[..., tf.Tensor]
    ) -> Callable[..., tf.Tensor]:
        def softmax_and_keep(scores: tf.Tensor, attention_mask: Any = None) -> tf.Tensor:
            kept = tf.identity(masked_softmax(scores, attention_mask))
            if watch is not None:
                watch(kept)
            collected.append(Attention(of, kept, attention_mask))
            return kept

        return softmax_and_keep

    found = {
        kind: [
            layer for layer in model._flatten_layers(include_self=False) if isinstance(layer, kind)
        ]
        for kind in _KINDS
    }
    first, second = ((of, _KINDS[kind]) for kind, of in found.items())
    with (
        unwrapped(model),
        replaced(first[0], first[1], explicit),
        replaced(second[0], second[1], explicit),
        replaced([*first[0], *second[0]], "_masked_softmax", intercepted),
    ):
        yield collected


def check_chain(
    collected: list[Attention], model: keras.Model, n_examples: int, asker: str
) -> None:
    """Raises `ValueError` unless all attention is from one sequence to itself, and there is some.

    Args:
        collected: attention that `tap` collected in one forward pass.
        model: model that ran.
        n_examples: number of examples that it ran on.
        asker: name of the method that asks, for the error.
    """
    if not collected:
        kinds = ", ".join(
            dict.fromkeys(
                type(layer).__name__ for layer in model._flatten_layers(include_self=False)
            )
        )
        raise ValueError(
            f"`{asker}` needs layers of keras.layers.MultiHeadAttention or GroupQueryAttention, and"
            f" model {model.name!r} calls none outside of tf.functions of its own; it has"
            f" {kinds or 'no layers'}"
        )
    graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    length = collected[0].scores.shape[-1]
    for layer, scores, _ in collected:
        if getattr(scores, "graph", None) is not graph:
            raise ValueError(
                f"`{asker}` cannot reach the attention of layer {layer.name!r}, which is called in"
                " a loop"
            )
        shape = tuple(scores.shape)
        if len(shape) != 4 or shape[0] != n_examples or shape[2] != length or shape[3] != length:
            shapes = ", ".join(
                f"{of.name!r} {(None, *of_layer.shape[1:])}" for of, of_layer, _ in collected
            )
            raise ValueError(
                f"`{asker}` follows attention of one sequence to itself from layer to layer, scores"
                f" (n, heads, t, t) with one t and one row an example; layer {layer.name!r} gives"
                f" {shape} for {n_examples} examples. The model's layers give {shapes}."
            )


def read_token(
    flow: Float32[tf.Tensor, "n t t"], collected: list[Attention], token: int | None, asker: str
) -> Float32[tf.Tensor, "n t"]:
    """Returns what each token gives to the token that the model reads its output from.

    Args:
        flow: share that each token (second axis) has of each token (last axis).
        collected: attention that `tap` collected.
        token: place of the token that the output is read from; None for the mean over all tokens
            but padding.
        asker: name of the method that asks, for the error.

    Raises:
        ValueError: if there is no such token.
    """
    length = flow.shape[-1]
    if token is not None:
        if not -length <= token < length:
            raise ValueError(
                f"`{asker}` needs token= a place in 0 to {length - 1}, or None for the mean over"
                f" all; got {token}"
            )
        return flow[:, token]
    mask = next((attention.mask for attention in collected if attention.mask is not None), None)
    if mask is None:
        return tf.reduce_mean(flow, axis=1)
    # A token to which no other may attend is padding.
    pairs = tf.cast(mask, tf.bool)
    pairs = tf.reduce_any(pairs, axis=1) if pairs.shape.rank == 4 else pairs
    is_there = tf.cast(tf.reduce_any(tf.broadcast_to(pairs, tf.shape(flow)), axis=1), tf.float32)
    return tf.math.divide_no_nan(
        tf.einsum("nq,nqt->nt", is_there, flow), tf.reduce_sum(is_there, axis=1, keepdims=True)
    )
