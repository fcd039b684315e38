"""Conductance by hand, and its sum, which is that of integrated gradients node by node."""

from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.attributions.integrated_gradients import integrated_gradients
from hvd_xai.attributions.layer_conductance import layer_conductance
from hvd_xai.compute.attribute import Compute, Computed
from tests import models_under_test as models

# Float32 sums of 50 gradients of size 1.
ROUNDING = 1e-6


def explain(
    model: keras.Model, inputs: np.ndarray, targets: np.ndarray, **options: Any
) -> Computed:
    return Compute(model, partial(layer_conductance, **options))(
        inputs, targets, np.arange(len(inputs))
    )


def test_two_units_by_hand() -> None:
    # h = (x1 + x2, x1 - x2), F = h1 h2. On the way from 0 to (3, 1), h runs straight to (4, 2):
    # each unit gets 4 * 2 / 2.
    inputs = keras.Input((2,))
    hidden = keras.layers.Dense(2, use_bias=False, name="hidden")(inputs)
    model = keras.Model(
        inputs, keras.layers.Lambda(lambda h: h[:, :1] * h[:, 1:], output_shape=(1,))(hidden)
    )
    model.set_weights([np.array([[1.0, 1.0], [1.0, -1.0]], np.float32)])
    got = explain(model, np.array([[3.0, 1.0]], np.float32), np.zeros(1, np.int64), layer="hidden")
    np.testing.assert_allclose(got.attributions, [[4.0, 4.0]], rtol=ROUNDING)
    assert abs(got.per_sample["convergence_delta"][0]) < 10 * ROUNDING


def test_a_unit_that_goes_back_and_forth_counts_all_its_way() -> None:
    # h = x² and F = h³, with x from -1 to 2: h goes from 1 down to 0 and up to 4, and F gains 64 -
    # 1.
    inputs = keras.Input((1,))
    hidden = keras.layers.Lambda(lambda x: x**2, name="square")(inputs)
    model = keras.Model(inputs, keras.layers.Lambda(lambda h: h**3)(hidden))
    options: dict[str, Any] = {"layer": "square", "rule": "gauss_legendre", "n_steps": 5}
    got = explain(
        model, np.array([[2.0]], np.float32), np.zeros(1, np.int64), baseline=minus_one, **options
    )
    np.testing.assert_allclose(got.attributions, [[64.0 - 1.0]], rtol=10 * ROUNDING)


def minus_one(inputs: tf.Tensor) -> tf.Tensor:
    return -tf.ones_like(inputs)


@pytest.mark.parametrize("layer", ["conv", "pool", "backbone/last_conv", "flatten"])
def test_sums_to_what_integrated_gradients_sum_to(layer: str) -> None:
    # Not to quadrature error, but to rounding: at each node it is the chain rule.
    inputs, targets, ids = models.examples(5)
    model = models.functional_in_subclassed()
    want = Compute(model, partial(integrated_gradients, n_steps=5))(inputs, targets, ids)
    got = explain(model, inputs, targets, layer=layer, n_steps=5)
    sums = [computed.attributions.reshape(5, -1).sum(axis=1) for computed in (got, want)]
    np.testing.assert_allclose(sums[0], sums[1], atol=10 * ROUNDING)
    np.testing.assert_allclose(
        got.per_sample["convergence_delta"],
        want.per_sample["convergence_delta"],
        atol=10 * ROUNDING,
    )


def test_passes_through_recurrent_layers_and_attention() -> None:
    keras.utils.set_random_seed(2)
    inputs = keras.Input((5, 3))
    hidden = keras.layers.LSTM(4, return_sequences=True)(inputs)
    hidden = keras.layers.MultiHeadAttention(2, 2, name="attention")(hidden, hidden)
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.GlobalMaxPooling1D()(hidden)))
    x = np.random.default_rng(2).normal(size=(3, 5, 3)).astype(np.float32)
    targets, ids = np.zeros(3, np.int64), np.arange(3)
    got = explain(model, x, targets, layer="attention", n_steps=4)
    want = Compute(model, partial(integrated_gradients, n_steps=4))(x, targets, ids)
    np.testing.assert_allclose(
        got.attributions.sum(axis=(1, 2)), want.attributions.sum(axis=(1, 2)), atol=ROUNDING
    )
    assert np.abs(got.attributions).max() > 1e-3


def test_what_flows_past_the_layer_shows_in_the_delta() -> None:
    inputs = keras.Input((2,))
    side = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones", name="side")(inputs)
    model = keras.Model(inputs, keras.layers.Add()([side, 2 * inputs[:, :1]]))
    got = explain(model, np.array([[3.0, 1.0]], np.float32), np.zeros(1, np.int64), layer="side")
    np.testing.assert_allclose(got.attributions, [[4.0]], rtol=ROUNDING)
    np.testing.assert_allclose(got.per_sample["convergence_delta"], [-6.0], rtol=ROUNDING)


def test_micro_batches_smaller_than_the_path_change_nothing() -> None:
    inputs, targets, _ = models.examples(3)
    want, got = (
        explain(models.functional(), inputs, targets, micro_batch=size).attributions
        for size in (256, 7)
    )
    assert want.shape == (3, 2, 2, 6)
    np.testing.assert_allclose(got, want, atol=ROUNDING)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_steps": 0}, "needs n_steps >= 1; got 0"),
        (
            {"layer": "nowhere"},
            "finds no layer 'nowhere' among those the model calls. Pass layer= one of 'conv'",
        ),
        ({"baseline": "black"}, "unknown baseline 'black'"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Compute(models.functional(), partial(layer_conductance, **options)).check(
            *models.examples(0)
        )


def test_without_a_spatial_layer_one_is_asked_for() -> None:
    model = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(3, name="hidden"),
            keras.layers.Dense(1, name="value"),
        ]
    )
    compute = Compute(model, layer_conductance)
    with pytest.raises(
        ValueError,
        match=r"it has 'hidden' \(None, 3\), 'value' \(None, 1\)\. Pass layer= one of these\.",
    ):
        compute.check(np.zeros((0, 2), np.float32), np.zeros(0, np.int64))


def test_an_operation_without_a_second_gradient_is_refused_and_named() -> None:
    # TensorFlow fails at the one, and would leave out what flows through the other.
    x, targets, _ = models.examples(0)
    for bent in (
        keras.layers.Activation("softsign", name="bent"),
        keras.layers.UpSampling2D(1, interpolation="bilinear", name="bent"),
    ):
        inputs = keras.Input(x.shape[1:])
        hidden = keras.layers.Add(name="sum")([inputs, bent(inputs)])
        model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(hidden)))
        with pytest.raises(
            ValueError, match=r"TensorFlow has none of operation '\w+Grad' at '.*bent'. Take"
        ):
            Compute(model, partial(layer_conductance, layer="sum")).check(x, targets)


def test_an_embedding_of_tokens_is_refused_with_the_method_that_does_it() -> None:
    inputs, targets, ids = models.examples(0, family=models.TOKENS)
    compute = Compute(
        models.functional(models.TOKENS), partial(layer_conductance, layer="embedding")
    )
    with pytest.raises(
        ValueError,
        match=r"layer 'functional/embedding' does not. At the embedding of integer inputs, take",
    ):
        compute.check(inputs, targets, ids)
