"""Attention rollout against NumPy, from weights alone."""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.attributions.attention_rollout import attention_rollout
from hvd_xai.compute.attribute import Compute
from tests import models_under_test as models

# Float32 softmax and products of 6 by 6 matrices.
ROUNDING = 1e-5


def explain(model: keras.Model, inputs: np.ndarray, **options: Any) -> np.ndarray:
    return Compute(model, partial(attention_rollout, **options))(
        inputs, np.zeros(len(inputs), np.int64), np.arange(len(inputs))
    ).attributions


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    values: np.ndarray = powers / powers.sum(axis=-1, keepdims=True)
    return values


def attend(
    layer: keras.layers.MultiHeadAttention, x: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns output and scores of a layer of self-attention, computed from its weights."""
    wq, bq, wk, bk, wv, bv, wo, bo = layer.get_weights()
    query, key, value = (
        np.einsum("ntd,dhk->nhtk", x, w) + b[:, None] for w, b in ((wq, bq), (wk, bk), (wv, bv))
    )
    scores = softmax(
        np.einsum("nhqk,nhtk->nhqt", query, key) / np.sqrt(wq.shape[-1]) + np.where(mask, 0, -1e9)
    )
    return np.einsum("nhqt,nhtk,hkd->nqd", scores, value, wo) + bo, scores


def by_hand(model: keras.Model, tokens: np.ndarray) -> np.ndarray:
    """Returns the rollout `[n, t, t]` of the two layers of attention of the models under test."""
    layers = {layer.name: layer for layer in model._flatten_layers()}
    x = layers["embedding"].get_weights()[0][tokens]
    flow = np.eye(tokens.shape[1])
    for name in ("first", "second"):
        change, scores = attend(layers[name].attention, x, (tokens != 0)[:, None, None])
        x = x + change
        flow = (scores.mean(axis=1) + np.eye(tokens.shape[1])) / 2 @ flow
    return flow


@pytest.mark.parametrize("build", models.SAME_FUNCTION, ids=lambda build: build.__name__)
def test_equals_numpy_in_every_shape_of_model(build: Callable[..., keras.Model]) -> None:
    inputs = models.examples(5, family=models.TOKENS)[0]
    model = build(models.TOKENS)
    flow, is_there = by_hand(model, inputs), (inputs != 0)[:, :, None]
    want = (flow * is_there).sum(axis=1) / is_there.sum(axis=1)
    got = explain(model, inputs)
    np.testing.assert_allclose(got, want, atol=ROUNDING)
    np.testing.assert_allclose(got.sum(axis=1), 1, atol=ROUNDING)
    assert np.all(got[inputs == 0] == 0)
    # attention is uneven, so that there is something to find
    assert np.abs(got - got.mean(axis=0)).max() > 0.01


def test_one_token_can_be_read_from() -> None:
    inputs = models.examples(5, family=models.TOKENS)[0]
    model = models.functional(models.TOKENS)
    for token in (0, -5):
        np.testing.assert_allclose(
            explain(model, inputs, token=token), by_hand(model, inputs)[:, token], atol=ROUNDING
        )


def causal(**options: Any) -> keras.Model:
    keras.utils.set_random_seed(4)
    inputs = keras.Input((4, 3))
    hidden = keras.layers.MultiHeadAttention(2, 3, name="attention", **options)(
        inputs, inputs, use_causal_mask=True
    )
    return keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Flatten()(hidden)))


def test_a_causal_mask_stands_and_fused_layers_are_opened() -> None:
    # Alone under a causal mask, Keras calls a fused kernel, which has no scores; one with dropout
    # computes them anyway.
    x = np.random.default_rng(4).normal(size=(3, 4, 3)).astype(np.float32)
    fused, open_ = causal(), causal(dropout=0.3)
    open_.set_weights(fused.get_weights())
    _, scores = attend(fused.get_layer("attention"), x, np.tril(np.ones((4, 4), bool)))
    want = (scores.mean(axis=1)[:, 1] + np.eye(4)[1]) / 2
    before = vars(fused.get_layer("attention")).copy()
    for model in (fused, open_):
        got = explain(model, x, token=1)
        np.testing.assert_allclose(got, want, atol=ROUNDING)
        assert np.all(got[:, 2:] == 0)
    assert vars(fused.get_layer("attention")) == before


def test_shares_sum_to_1_where_only_the_first_layer_knows_of_padding() -> None:
    tokens = keras.Input((4,), dtype="int32")
    embedded = keras.layers.Embedding(5, 3, mask_zero=True)(tokens)
    # the sum has no mask
    hidden = embedded + keras.layers.MultiHeadAttention(2, 3)(embedded, embedded)
    hidden = hidden + keras.layers.MultiHeadAttention(2, 3)(hidden, hidden)
    model = keras.Model(
        tokens, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling1D()(hidden))
    )
    shares = explain(model, np.array([[1, 2, 3, 4], [1, 2, 0, 0]], np.int32))
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=ROUNDING)
    assert np.all(shares[1, 2:] > 0)  # the second layer does attend to it


def test_grouped_queries() -> None:
    inputs = keras.Input((4, 3))
    hidden = keras.layers.GroupQueryAttention(3, 4, 2)(inputs, inputs)
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Flatten()(hidden)))
    # Equal tokens are attended to equally: 1/8 each, and 1/2 more for the token itself.
    np.testing.assert_allclose(
        explain(model, np.ones((2, 4, 3), np.float32), token=2),
        [[1 / 8, 1 / 8, 5 / 8, 1 / 8]] * 2,
        atol=ROUNDING,
    )


def test_a_model_without_attention_is_refused_with_what_it_has() -> None:
    inputs, targets, ids = models.examples(0)
    with pytest.raises(
        ValueError,
        match=(
            r"model 'functional' calls none .*; it has InputLayer, Conv2D, MaxPooling2D, Flatten,"
            r" Dense"
        ),
    ):
        Compute(models.functional(), attention_rollout).check(inputs, targets, ids)


def test_attention_to_another_sequence_does_not_chain() -> None:
    inputs = keras.Input((4, 3))
    hidden = keras.layers.MultiHeadAttention(2, 3, name="cross")(
        inputs, keras.layers.MaxPooling1D(2)(inputs)
    )
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Flatten()(hidden)))
    with pytest.raises(
        ValueError,
        match=(
            r"layer 'cross' gives \(64, 2, 4, 2\) for 64 examples. .* give 'cross' \(None, 2,"
            r" 4, 2\)"
        ),
    ):
        explain(model, np.ones((1, 4, 3), np.float32))


def test_attention_in_a_loop_is_out_of_reach_and_said_to_be() -> None:
    class Hidden(keras.layers.Layer):  # type: ignore[misc]  # keras ships no types
        def __init__(self) -> None:
            super().__init__()
            self.attention = keras.layers.MultiHeadAttention(1, 2, name="inner")

        def build(self, shape: tuple[int, ...]) -> None:
            self.attention.build(shape, shape)

        def call(self, x: tf.Tensor) -> tf.Tensor:
            return tf.map_fn(lambda one: self.attention(one[None], one[None])[0], x)

    model = keras.Sequential(
        [keras.Input((4, 3)), Hidden(), keras.layers.Flatten(), keras.layers.Dense(1)]
    )
    with pytest.raises(
        ValueError, match="cannot reach the attention of layer 'inner', which is called in a loop"
    ):
        explain(model, np.ones((1, 4, 3), np.float32))


def test_a_token_that_is_not_there_is_refused() -> None:
    with pytest.raises(
        ValueError, match="needs token= a place in 0 to 5, or None for the mean over all; got 6"
    ):
        explain(
            models.functional(models.TOKENS), models.examples(1, family=models.TOKENS)[0], token=6
        )
