"""Attention rollout."""

import keras
import tensorflow as tf
from jaxtyping import Int64, Shaped

from hvd_xai.primitives import attention
from hvd_xai.primitives.axes import inputs_or_places
from hvd_xai.protocols import Attributed


def attention_rollout(
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    /,
    *,
    ids: Int64[tf.Tensor, "n"],
    token: int | None = None,
) -> Attributed:
    """Traces attention back through all layers, from the token that the output is read from.

    It shows where information can come from, whatever the model predicts: the score plays no part.
    Use `gradient_x_attention` to take the score into account.

        A_l = 1/2 W_l + 1/2 I        Ã_l = A_l Ã_{l-1}        Ã_0 = I

    Here `W_l` is the attention of layer l, averaged over its heads, and I stands for the residual
    connection around the layer.

    Args:
        model: any built Keras model of one input in which `keras.layers.MultiHeadAttention` or
            `GroupQueryAttention` layers attend from one sequence to itself, one after the other; in
            layers and models of any kind.
        inputs: examples `[n, ...]`: tokens, vectors, or whatever the model cuts into tokens.
        targets: what a score would select, `[n]`; not used.
        ids: sample ids, `[n]`; not used, because nothing here is random.
        token: place of the token that the output is read from, 0 for a class token in front; by
            default the mean over all tokens but padding, which fits models that average over the
            sequence.

    Returns:
        Shares `[n, t]` of the tokens as the attention layers see them (a class token included),
        float32, never negative, summing to 1. Padding that the model masks gets 0.

    Raises:
        ValueError: if the model has no such layers, or their shapes do not chain.

    Example:
        >>> computed = Compute(text_model, attention_rollout)(tokens, targets, ids)
        >>> computed.attributions.shape
        (4, 6)
        >>> bool(np.allclose(computed.attributions.sum(axis=1), 1))
        True

    Reference:
        S. Abnar, W. Zuidema: Quantifying Attention Flow in Transformers. ACL 2020.
        https://arxiv.org/abs/2005.00928, equation 1. As in the authors' own program, rows of A are
        brought to a sum of 1, for padding may attend to nothing.
    """
    del targets, ids
    with attention.tap(model) as collected:
        model(inputs, training=False)
    attention.check_chain(collected, model, inputs.shape[0], "attention_rollout")
    identity = tf.eye(collected[0].scores.shape[-1])
    flow = identity[None]
    for attended in collected:
        # A_l = 1/2 W_l + 1/2 I up to a factor, which the sum of each row takes out
        passed = tf.reduce_mean(tf.cast(attended.scores, tf.float32), axis=1) + identity
        # Keras lets padding attend to nothing: it passes on itself alone, also to a later layer
        # that knows of no mask
        flow = passed / tf.reduce_sum(passed, axis=-1, keepdims=True) @ flow
    shares = attention.read_token(flow, collected, token, "attention_rollout")
    return Attributed(shares, attributed_to=inputs_or_places(shares, inputs), signed=False)
