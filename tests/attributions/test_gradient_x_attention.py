"""Gradient times attention against NumPy, with gradients by hand."""

from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.attributions.gradient_x_attention import gradient_x_attention
from hvd_xai.compute.attribute import Compute
from tests import models_under_test as models

# Float32 softmax and products of small matrices.
ROUNDING = 1e-5


def explain(
    model: keras.Model, inputs: np.ndarray, targets: np.ndarray, **options: Any
) -> np.ndarray:
    return Compute(model, partial(gradient_x_attention, **options))(
        inputs, targets, np.arange(len(inputs))
    ).attributions


def with_class_token() -> keras.Model:
    """Returns a model of one layer of attention, of which the first token alone is read."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((4, 3))
    hidden = keras.layers.MultiHeadAttention(2, 3, name="attention")(inputs, inputs)
    return keras.Model(inputs, keras.layers.Dense(2, use_bias=False, name="head")(hidden[:, 0]))


def test_one_layer_by_hand() -> None:
    # F = Σ_h Σ_t A_h[0, t] (v_ht · W_h w), so the gradient at A_h[0, t] is v_ht · W_h w, and at the
    # other rows 0.
    model, x = (
        with_class_token(),
        np.random.default_rng(3).normal(size=(5, 4, 3)).astype(np.float32),
    )
    targets = np.arange(5) % 2
    attention = model.get_layer("attention")
    _, scores = attention(x, x, return_attention_scores=True)
    *_, wv, bv, wo, _ = attention.get_weights()
    value = np.einsum("ntd,dhk->nhtk", x, wv) + bv[:, None]
    gradient = np.einsum(
        "nhtk,hkd,dn->nht", value, wo, model.get_layer("head").get_weights()[0][:, targets]
    )
    want = np.maximum(gradient * scores[:, :, 0], 0).mean(axis=1)
    np.testing.assert_allclose(explain(model, x, targets, token=0), want, atol=ROUNDING)
    np.testing.assert_allclose(explain(model, x, targets), want / 4, atol=ROUNDING)


def test_layers_chain_as_in_the_paper() -> None:
    inputs, targets, _ = models.examples(4, family=models.TOKENS)
    model = models.subclassed(models.TOKENS)
    embedding, *attending = model.backbone
    mask = (inputs != 0)[:, None]
    with tf.GradientTape() as tape:
        x, scores = embedding(inputs), []
        for layer in attending:
            change, attended = layer.attention(
                x, x, attention_mask=mask, return_attention_scores=True
            )
            scores.append(attended)
            x = x + change
        is_there = tf.cast(inputs != 0, tf.float32)[:, :, None]
        outputs = model.head[1](
            tf.reduce_sum(x * is_there, axis=1) / tf.reduce_sum(is_there, axis=1)
        )
        total = tf.reduce_sum(tf.gather(outputs, targets, batch_dims=1))
    first, second = (
        np.maximum(g * a, 0).mean(axis=1)
        for g, a in zip(tape.gradient(total, scores), scores, strict=True)
    )
    relevance = first + second + second @ first  # (I + second)(I + first) - I
    want = (relevance * is_there).numpy().sum(axis=1) / is_there.numpy().sum(axis=1)
    got = explain(model, inputs, targets)
    np.testing.assert_allclose(got, want, atol=ROUNDING)
    assert np.all(got[inputs == 0] == 0)
    assert got.max() > 100 * ROUNDING


def test_differs_by_class() -> None:
    model, x = (
        with_class_token(),
        np.random.default_rng(3).normal(size=(1, 4, 3)).astype(np.float32),
    )
    one, other = (explain(model, x, np.array([target])) for target in (0, 1))
    assert np.abs(one - other).max() > 1e-3


def test_mixed_precision_gives_float32_near_full_precision() -> None:
    def build(dtype: str) -> keras.Model:
        keras.utils.set_random_seed(7)
        inputs = keras.Input((4, 3))
        hidden = keras.layers.MultiHeadAttention(2, 3, dtype=dtype)(inputs, inputs)
        return keras.Model(
            inputs, keras.layers.Dense(1, dtype=dtype)(keras.layers.Flatten()(hidden))
        )

    x = np.random.default_rng(7).normal(size=(5, 4, 3)).astype(np.float32)
    full, mixed = (
        explain(build(dtype), x, np.zeros(5, np.int64)) for dtype in ("float32", "mixed_bfloat16")
    )
    assert mixed.dtype == np.float32
    # bfloat16 has 8 bits: 0.4 % an operation.
    assert np.linalg.norm(mixed - full) / np.linalg.norm(full) < 0.05


def test_attention_that_the_score_does_not_depend_on_is_refused() -> None:
    inputs = keras.Input((4, 3))
    unused = keras.layers.MultiHeadAttention(1, 2, name="unused")(inputs, inputs)
    ignored = keras.layers.Lambda(lambda x: tf.stop_gradient(x[0]) + x[1], output_shape=(4, 3))
    model = keras.Model(
        inputs, keras.layers.Dense(1)(keras.layers.Flatten()(ignored([unused, inputs])))
    )
    with pytest.raises(
        ValueError, match="needs a score that depends on all attention; not on that of 'unused'"
    ):
        explain(model, np.ones((1, 4, 3), np.float32), np.zeros(1, np.int64))


def test_a_model_without_attention_is_refused_with_what_it_has() -> None:
    with pytest.raises(
        ValueError, match=r"`gradient_x_attention` needs layers of .* model 'functional' calls none"
    ):
        Compute(models.functional(), gradient_x_attention).check(*models.examples(0))
