"""Models of several inputs, explained as models of packed rows."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai import Probe, World, open_explanations
from hvd_xai.attributions.expected_gradients import expected_gradients
from hvd_xai.attributions.grad_cam import grad_cam
from hvd_xai.attributions.guided_integrated_gradients import guided_integrated_gradients
from hvd_xai.attributions.integrated_gradients import integrated_gradients
from hvd_xai.attributions.permutation_shap import permutation_shap
from hvd_xai.attributions.smoothgrad import smoothgrad
from hvd_xai.compute.attribute import Compute
from hvd_xai.explain.once import explain
from hvd_xai.explain.recompute import recompute
from hvd_xai.primitives import coalitions
from hvd_xai.scores import output
from hvd_xai.tracing.packed_model import PackedModel, accept_packed
from tests import models_under_test as models

N = 5
GENERATOR = np.random.default_rng(3)
INPUTS = {
    "image": GENERATOR.normal(size=(N, 6, 6, 1)).astype("float32"),
    "tokens": GENERATOR.integers(1, 9, (N, 4)).astype("int32"),
    "table": GENERATOR.normal(size=(N, 3)).astype("float32"),
}
TARGETS = np.arange(N) % 3


KIND = partial(output, head="kind")


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """Returns a model of an image, a text and a table, with two heads."""
    keras.utils.set_random_seed(7)
    image, table = keras.Input((6, 6, 1), name="image"), keras.Input((3,), name="table")
    tokens = keras.Input((4,), dtype="int32", name="tokens")
    seen = keras.layers.Flatten()(keras.layers.Conv2D(2, 3, activation="relu", name="conv")(image))
    read = keras.layers.Flatten()(
        keras.layers.Embedding(9, 2, embeddings_initializer="normal")(tokens)
    )
    joined = keras.layers.Concatenate()([seen, read, table])
    outputs = {
        "kind": keras.layers.Dense(3, name="kind")(joined),
        "size": keras.layers.Dense(1, name="size")(joined),
    }
    return keras.Model({"image": image, "tokens": tokens, "table": table}, outputs)


def rows_of(probe: Probe, model: keras.Model, method: Callable[..., Any]) -> dict[str, np.ndarray]:
    assert probe.packing is not None
    compute = Compute(accept_packed(model, probe.packing), method)
    return probe.packing.taken_apart(
        compute(probe.inputs, probe.targets, probe.sample_ids).attributions
    )


def test_a_model_runs_on_rows_as_on_its_inputs(model: keras.Model) -> None:
    probe = Probe.of_several(INPUTS, TARGETS)
    assert probe.packing is not None
    want = model(INPUTS, training=False)
    got = PackedModel(model, probe.packing)(probe.inputs, training=False)
    for head in ("kind", "size"):
        np.testing.assert_array_equal(got[head], want[head])
    assert accept_packed(model, None) is model


def test_a_list_of_inputs_goes_in_as_a_list() -> None:
    first, second = keras.Input((2,)), keras.Input((1,))
    pair = keras.Model(
        [first, second],
        keras.layers.Subtract()([keras.layers.Dense(1, kernel_initializer="ones")(first), second]),
    )
    inputs = [np.array([[1.0, 2.0]], np.float32), np.array([[5.0]], np.float32)]
    apart = rows_of(Probe.of_several(inputs, np.array([0])), pair, integrated_gradients)
    # a linear model: weight times input
    np.testing.assert_allclose(apart["0"], [[1, 2]], rtol=1e-6)
    np.testing.assert_allclose(apart["1"], [[-5]], rtol=1e-6)


@pytest.mark.parametrize(
    "method",
    [integrated_gradients, guided_integrated_gradients, expected_gradients],
    ids=lambda one: one.__name__,
)
def test_paths_move_no_token_and_sum_to_what_the_rest_gains(
    model: keras.Model, method: Callable[..., Any]
) -> None:
    probe = Probe.of_several(INPUTS, TARGETS)
    apart = rows_of(probe, model, partial(method, n_steps=200, score=KIND))
    assert not apart["tokens"].any()
    without = {
        **INPUTS,
        "image": np.zeros_like(INPUTS["image"]),
        "table": np.zeros_like(INPUTS["table"]),
    }
    gain = (np.asarray(model(INPUTS)["kind"]) - np.asarray(model(without)["kind"]))[
        np.arange(N), TARGETS
    ]
    total = apart["image"].sum(axis=(1, 2, 3)) + apart["table"].sum(axis=1)
    np.testing.assert_allclose(total, gain, atol=2e-2 * np.abs(gain).max())


def copies(
    model: keras.Model, inputs: tf.Tensor, targets: tf.Tensor, /, *, ids: tf.Tensor
) -> tf.Tensor:
    return inputs


def test_noise_moves_no_token_and_has_the_range_of_the_rest(model: keras.Model) -> None:
    means = []
    for tokens in (INPUTS["tokens"], 1000 * INPUTS["tokens"]):
        apart = rows_of(
            Probe.of_several({**INPUTS, "tokens": tokens}, TARGETS),
            model,
            partial(smoothgrad, method=copies),
        )
        np.testing.assert_array_equal(apart["tokens"], tokens)
        assert np.all(apart["table"] != INPUTS["table"])
        means.append(apart["table"])
    np.testing.assert_array_equal(means[0], means[1])


def test_tokens_are_there_or_not_where_others_are_half_there(model: keras.Model) -> None:
    probe = Probe.of_several(INPUTS, TARGETS)
    assert probe.packing is not None
    present = tf.random.stateless_uniform([1, 50, probe.packing.n_features], [3, 4])
    settled = probe.packing.taken_apart(
        coalitions.settled(accept_packed(model, probe.packing), present)[0].numpy()
    )
    assert np.unique(settled["tokens"]).tolist() == [0, 1]
    for name, values in probe.packing.taken_apart(present[0].numpy()).items():
        np.testing.assert_array_equal(
            settled[name], np.round(values) if name == "tokens" else values
        )


def test_what_replaces_values_explains_tokens_too(model: keras.Model) -> None:
    probe = Probe.of_several(INPUTS, TARGETS)
    apart = rows_of(probe, model, partial(permutation_shap, n_permutations=4, score=KIND))
    assert apart["tokens"].any()
    absent = {name: np.zeros_like(values) for name, values in INPUTS.items()}
    gain = (np.asarray(model(INPUTS)["kind"]) - np.asarray(model(absent)["kind"]))[
        np.arange(N), TARGETS
    ]
    total = sum(values.reshape(N, -1).sum(axis=1) for values in apart.values())
    np.testing.assert_allclose(total, gain, rtol=1e-4, atol=1e-5)


def test_layers_inside_are_reached(model: keras.Model) -> None:
    probe = Probe.of_several(INPUTS, TARGETS)
    compute = Compute(
        accept_packed(model, probe.packing), partial(grad_cam, layer="conv", score=KIND)
    )
    assert compute(probe.inputs, probe.targets, probe.sample_ids).attributions.shape == (N, 4, 4)


def test_the_model_is_left_as_it_was_and_stored_explanations_are_taken_apart(
    model: keras.Model, tmp_path: Path
) -> None:
    probe = Probe.of_several(INPUTS, TARGETS, np.arange(N)[::-1].copy())
    before = models.state_of(model)
    methods = [partial(integrated_gradients, n_steps=8, score=KIND)]
    explain(model, probe, methods, world=World.alone(), run=tmp_path)
    models.assert_same_state(models.state_of(model), before)
    run = open_explanations(tmp_path)
    stored, explanation = run.probe(), run.explanation(0, "integrated_gradients")
    assert stored is not None
    assert stored.packing == probe.packing
    assert stored.packing is not None
    inputs = stored.packing.taken_apart(stored.inputs(slice(None)))
    np.testing.assert_array_equal(inputs["tokens"], INPUTS["tokens"][::-1])
    apart = stored.packing.taken_apart(explanation.attributions(0, N))
    assert apart["image"].shape == (N, 6, 6, 1)
    assert not apart["tokens"].any()
    compared = recompute(
        model, explanation, stored, [0, 3], method=partial(integrated_gradients, score=KIND)
    )
    assert all(comparison.matches for comparison in compared)
