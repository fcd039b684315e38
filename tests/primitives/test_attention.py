"""Attention is caught as the layers compute it, and read at the token that the output is from."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.primitives import attention
from tests import models_under_test as models


def test_shares_of_all_layers_are_caught_in_order_and_sum_to_one() -> None:
    model = models.functional(models.TOKENS)
    tokens, _, _ = models.examples(3, family=models.TOKENS)
    with attention.tap(model) as collected:
        model(tokens, training=False)
    assert [one.scores.shape.as_list() for one in collected] == [[3, 2, 6, 6]] * 2
    for one in collected:
        shares = one.scores.numpy()
        # Padding, which comes last, gets nothing, and Keras lets it attend to nothing.
        is_word = tokens != 0
        np.testing.assert_allclose(
            shares.sum(axis=-1)[np.broadcast_to(is_word[:, None], shares.shape[:-1])], 1, rtol=1e-6
        )
        assert np.all(shares[np.broadcast_to(~is_word[:, None, None], shares.shape)] == 0)


def test_a_token_is_read_or_the_mean_over_all_that_are_no_padding() -> None:
    flow = tf.constant(np.arange(9.0).reshape(1, 3, 3), tf.float32)
    layer = keras.layers.MultiHeadAttention(1, 1)
    scores = tf.zeros([1, 1, 3, 3])
    unmasked = [attention.Attention(layer, scores, None)]
    # the last token may not be attended to
    masked = [attention.Attention(layer, scores, tf.constant([[[True, True, False]]]))]
    read = attention.read_token
    assert read(flow, unmasked, 1, "test").numpy().tolist() == [[3, 4, 5]]
    assert read(flow, unmasked, None, "test").numpy().tolist() == [[3, 4, 5]]
    assert read(flow, masked, None, "test").numpy().tolist() == [[1.5, 2.5, 3.5]]
    with pytest.raises(ValueError, match="`test` needs token= a place in 0 to 2"):
        read(flow, unmasked, 3, "test")


def test_a_model_without_attention_is_refused_with_its_layers() -> None:
    with pytest.raises(ValueError, match="it has InputLayer, Conv2D"):
        attention.check_chain([], models.functional(), 1, "test")
