"""Integrated gradients at a layer: those of the inputs at the first layer, those of tokens at an
embedding."""

from functools import partial
from typing import Any

import keras
import numpy as np
import pytest

from hvd_xai.attributions.integrated_gradients import integrated_gradients
from hvd_xai.attributions.layer_integrated_gradients import layer_integrated_gradients
from hvd_xai.compute.attribute import Compute, Computed
from tests import models_under_test as models

# Float32 sums of 50 gradients of size 1.
ROUNDING = 1e-6


def explain(
    model: keras.Model, inputs: np.ndarray, targets: np.ndarray | None = None, **options: Any
) -> Computed:
    targets = np.zeros(len(inputs), np.int64) if targets is None else targets
    return Compute(model, partial(layer_integrated_gradients, **options))(
        inputs, targets, np.arange(len(inputs))
    )


def bag_of_words() -> keras.Model:
    """Returns a model of the squared sum of the tokens' vectors `(token, 2 token)` times `(1, 10)`.

    Token 0 is padding.
    """
    tokens = keras.Input((4,), dtype="int32")
    vectors = keras.layers.Embedding(5, 2, mask_zero=True, name="embedding")(tokens)
    mean = keras.layers.GlobalAveragePooling1D(name="mean")(vectors)
    model = keras.Model(
        tokens, keras.layers.Dense(1, use_bias=False)(keras.layers.Lambda(lambda x: x**2)(mean))
    )
    words = np.arange(5, dtype=np.float32)
    model.set_weights([np.stack([words, 2 * words], axis=1), np.array([[1.0], [10.0]], np.float32)])
    return model


def test_at_the_first_layer_it_is_integrated_gradients() -> None:
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((5, 3)),
            keras.layers.Rescaling(1.0, name="inputs"),
            keras.layers.LSTM(4),
            keras.layers.Dense(2, "softmax"),
        ]
    )
    inputs, targets = (
        np.random.default_rng(1).normal(size=(6, 5, 3)).astype(np.float32),
        np.arange(6) % 2,
    )
    want = Compute(model, partial(integrated_gradients, n_steps=20))(inputs, targets, np.arange(6))
    got = explain(model, inputs, targets, layer="inputs", is_summed=False, n_steps=20)
    np.testing.assert_allclose(got.attributions, want.attributions, atol=ROUNDING)
    np.testing.assert_allclose(
        got.per_sample["convergence_delta"], want.per_sample["convergence_delta"], atol=ROUNDING
    )


def test_tokens_by_hand_and_padding_gets_nothing() -> None:
    # The mean of the words 1 and 3 is (2, 4), so there are 4 and 160 to share, as 1 to 3.
    inputs = np.array([[1, 3, 0, 0]], np.int32)
    whole = explain(bag_of_words(), inputs, is_summed=False)
    np.testing.assert_allclose(
        whole.attributions[0], [[1, 40], [3, 120], [0, 0], [0, 0]], rtol=10 * ROUNDING
    )
    np.testing.assert_allclose(
        explain(bag_of_words(), inputs).attributions, [[41, 123, 0, 0]], rtol=10 * ROUNDING
    )
    assert abs(whole.per_sample["convergence_delta"][0]) < 1e-4


@pytest.mark.parametrize(("is_summed", "want"), [(True, "inputs"), (False, "units")])
def test_attributes_to_the_tokens_where_their_components_are_summed(
    is_summed: bool, want: str
) -> None:
    compute = Compute(
        bag_of_words(), partial(layer_integrated_gradients, is_summed=is_summed, n_steps=1)
    )
    compute.check(np.array([[1, 3, 0, 0]], np.int32), np.array([0]))
    assert compute.attributed_to == want


def test_a_token_can_be_the_baseline() -> None:
    # From the word 1 everywhere: only the second word moves, the mean from (1, 2) to (2, 4).
    got = explain(bag_of_words(), np.array([[1, 3, 0, 0]], np.int32), baseline=1)
    np.testing.assert_allclose(got.attributions, [[0, 3 + 120, 0, 0]], rtol=10 * ROUNDING)
    assert abs(got.per_sample["convergence_delta"][0]) < 1e-4


def test_is_complete_at_a_layer_inside_a_nested_model() -> None:
    inputs, targets, _ = models.examples(5, family=models.TOKENS)
    model = models.functional_in_subclassed(models.TOKENS)
    got = explain(model, inputs, targets, layer="backbone/first", n_steps=30, rule="gauss_legendre")
    assert got.attributions.shape == inputs.shape
    assert np.abs(got.per_sample["convergence_delta"]).max() < ROUNDING
    assert np.all(got.attributions[inputs == 0] == 0)


def test_micro_batches_smaller_than_the_path_change_nothing() -> None:
    inputs = np.array([[1, 3, 0, 0], [2, 2, 4, 1]], np.int32)
    want, got = (
        explain(bag_of_words(), inputs, micro_batch=size).attributions for size in (256, 7)
    )
    np.testing.assert_allclose(got, want, rtol=10 * ROUNDING)


def test_a_model_without_an_embedding_needs_a_layer() -> None:
    inputs, targets, ids = models.examples(0)
    with pytest.raises(
        ValueError,
        match=r"looks for the model's one keras.layers.Embedding, and finds none. Pass layer=",
    ):
        Compute(models.functional(), layer_integrated_gradients).check(inputs, targets, ids)


def test_two_embeddings_are_named() -> None:
    tokens = keras.Input((4,), dtype="int32")
    vectors = [keras.layers.Embedding(5, 2, name=name)(tokens) for name in ("words", "kinds")]
    model = keras.Model(
        tokens,
        keras.layers.Dense(1)(keras.layers.Flatten()(keras.layers.Add()(vectors))),
        name="two",
    )
    with pytest.raises(
        ValueError, match=r"finds 2: 'two/words', 'two/kinds'. Pass layer= the name of a layer"
    ):
        Compute(model, layer_integrated_gradients).check(
            np.zeros((0, 4), np.int32), np.zeros(0, np.int64)
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_steps": 0}, "needs n_steps >= 1; got 0"),
        (
            {"layer": "nowhere"},
            (
                r"finds no layer 'nowhere' among those the model calls. Pass layer= one of"
                r" 'embedding' \(None, 4, 2\), 'mean'"
            ),
        ),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Compute(bag_of_words(), partial(layer_integrated_gradients, **options)).check(
            np.zeros((0, 4), np.int32), np.zeros(0, np.int64)
        )


@pytest.mark.parametrize("baseline", ["zero", 0])
def test_of_a_layer_called_twice_one_call_is_explained(baseline: str | int) -> None:
    tokens = keras.Input((4,), dtype="int32")
    shared = keras.layers.Embedding(5, 2, embeddings_initializer="normal", name="shared")
    outputs = keras.layers.Flatten()(
        keras.layers.Subtract()([shared(tokens), 3 * shared(4 - tokens)])
    )
    model = keras.Model(tokens, keras.layers.Dense(1, kernel_initializer="ones")(outputs))
    inputs = np.array([[1, 3, 4, 0]], np.int32)
    vectors = np.asarray(shared.embeddings).sum(axis=1)
    # The token that stands for nothing is 0 to one call, 4 - 0 to the other.
    for number, (factor, seen, nothing) in enumerate([(1, inputs, 0), (-3, 4 - inputs, 4)]):
        want = factor * (vectors[seen] - (vectors[nothing] if baseline == 0 else 0))
        got = explain(model, inputs, layer=f"shared[{number}]", baseline=baseline)
        np.testing.assert_allclose(got.attributions, want, atol=1e-6)
