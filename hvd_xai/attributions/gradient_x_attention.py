"""Gradient times attention."""

import keras
import tensorflow as tf
from jaxtyping import Int64, Shaped

from hvd_xai import scores
from hvd_xai.primitives import attention
from hvd_xai.primitives.axes import inputs_or_places
from hvd_xai.protocols import Attributed, Score


def gradient_x_attention(
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    /,
    *,
    ids: Int64[tf.Tensor, "n"],
    token: int | None = None,
    score: str | Score = "output",
) -> Attributed:
    """Traces the attention that raises the score back through all layers to the input tokens.

    Where `attention_rollout` shows all attention, this method weighs attention by its gradient, so
    that classes differ.

        Ā_l = E_h (∇A_l ⊙ A_l)^+        R_l = R_{l-1} + Ā_l R_{l-1}        R_0 = I

    Here `A_l` is the attention of layer l, `∇A_l` the gradient of the score there, and `E_h` the
    mean over heads.

    Args:
        model: any built Keras model of one input in which `keras.layers.MultiHeadAttention` or
            `GroupQueryAttention` layers attend from one sequence to itself, one after the other; in
            layers and models of any kind.
        inputs: examples `[n, ...]`: tokens, vectors, or whatever the model cuts into tokens.
        targets: what the score selects for each example, such as a class id, `[n]`.
        ids: sample ids, `[n]`; not used, because nothing here is random.
        token: place of the token that the output is read from, 0 for a class token in front; by
            default the mean over all tokens but padding, which fits models that average over the
            sequence.
        score: scalar to explain: name of a score in `hvd_xai.scores`, or function of outputs and
            targets.

    Returns:
        Relevances `[n, t]` of the tokens as the attention layers see them (a class token included),
        float32, never negative; 0 is no relevance. Padding that the model masks gets 0.

    Raises:
        ValueError: if the model has no such layers, their shapes do not chain, or the score does
            not depend on one of them.

    Example:
        >>> computed = Compute(text_model, gradient_x_attention)(tokens, targets, ids)
        >>> computed.attributions.shape
        (4, 6)
        >>> bool(np.all(computed.attributions[tokens == 0] == 0))
        True

    Reference:
        H. Chefer, S. Gur, L. Wolf: Generic Attention-model Explainability for Interpreting Bi-Modal
        and Encoder-Decoder Transformers. ICCV 2021. https://arxiv.org/abs/2103.15679, equations 5
        and 6, for self-attention. The row of R that they read holds 1 for the token itself, which
        is taken off here.
    """
    del ids
    with (
        tf.GradientTape(watch_accessed_variables=False) as tape,
        attention.tap(model, tape.watch) as collected,
    ):
        total = tf.reduce_sum(scores.evaluate(model, inputs, targets, score))
    attention.check_chain(collected, model, inputs.shape[0], "gradient_x_attention")
    gradients = tape.gradient(total, [attended.scores for attended in collected])
    identity = tf.eye(collected[0].scores.shape[-1])
    relevance = identity[None]
    for attended, gradient in zip(collected, gradients, strict=True):
        if gradient is None:
            raise ValueError(
                "`gradient_x_attention` needs a score that depends on all attention; not on that"
                f" of {attended.layer.name!r}"
            )
        # Ā_l = E_h (∇A_l ⊙ A_l)^+ and R_l = R_{l-1} + Ā_l R_{l-1}
        product = tf.cast(gradient, tf.float32) * tf.cast(attended.scores, tf.float32)
        relevance += tf.reduce_mean(tf.nn.relu(product), axis=1) @ relevance
    shares = attention.read_token(relevance - identity, collected, token, "gradient_x_attention")
    return Attributed(shares, attributed_to=inputs_or_places(shares, inputs), signed=False)
