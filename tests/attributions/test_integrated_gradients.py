"""Closed forms and axioms of integrated gradients."""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from hvd_xai import baselines
from hvd_xai.attributions.integrated_gradients import integrated_gradients
from hvd_xai.compute.attribute import Compute, Computed

# Float32 sums of 50 gradients of size 10: a few roundings of 1e-7 each.
ROUNDING = 1e-6

Function = Callable[[Any], Any]


def model_of(function: Function, n_features: int) -> keras.Model:
    """Returns a model `[n, n_features] -> [n, 1]` that is the given function."""
    inputs = keras.Input((n_features,))
    return keras.Model(inputs, keras.layers.Lambda(function, output_shape=(1,))(inputs))


def explain(
    model: keras.Model,
    inputs: list[list[float]] | np.ndarray,
    targets: np.ndarray | None = None,
    **options: Any,
) -> Computed:
    values = np.asarray(inputs, np.float32)
    n = len(values)
    targets = np.zeros(n, np.int64) if targets is None else targets
    return Compute(model, partial(integrated_gradients, **options))(values, targets, np.arange(n))


def total(x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(x, axis=1, keepdims=True)


def first_half(inputs: tf.Tensor) -> tf.Tensor:
    return inputs[:, :1]


def relative_error(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.abs(got - want).max() / np.abs(want).max())


@pytest.mark.parametrize("rule", ["midpoint", "gauss_legendre"])
@pytest.mark.parametrize(
    ("function", "closed"),
    [
        (lambda x: total(x * [[2.0, -3.0, 0.5]]), lambda x: x * [2.0, -3.0, 0.5]),
        (lambda x: total(x**2), lambda x: x**2),
        (
            lambda x: x[:, :1] * x[:, 1:2],
            lambda x: np.stack([x[:, 0] * x[:, 1] / 2] * 2 + [0 * x[:, 0]], axis=1),
        ),
        (lambda x: tf.nn.relu(total(x)), lambda x: x * (x.sum(axis=1, keepdims=True) > 0)),
    ],
    ids=["linear", "square", "product", "relu_of_sum"],
)
def test_closed_forms(function: Function, closed: Function, rule: str) -> None:
    inputs = np.array([[2.0, 3.0, -1.0], [0.5, -4.0, 5.0]], np.float32)
    computed = explain(model_of(function, 3), inputs, rule=rule)
    assert relative_error(computed.attributions, closed(inputs)) < ROUNDING
    assert np.abs(computed.per_sample["convergence_delta"]).max() < 10 * ROUNDING


def test_gauss_legendre_is_exact_for_a_cubic_with_two_nodes() -> None:
    inputs = np.array([[2.0, -3.0]], np.float32)
    computed = explain(model_of(lambda x: total(x**3), 2), inputs, rule="gauss_legendre", n_steps=2)
    assert relative_error(computed.attributions, inputs**3) < ROUNDING


def test_bias_free_relu_net_is_exact_with_three_nodes() -> None:
    # Homogeneous of degree 1, so gradients are the same all along the path; a rule that looks at
    # the baseline itself loses that node.
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(16, "relu", use_bias=False),
            keras.layers.Dense(1, use_bias=False),
        ],
        name="bias_free",
    )
    inputs = np.random.default_rng(3).normal(size=(5, 6)).astype(np.float32)
    with tf.GradientTape() as tape:
        points = tf.constant(inputs)
        tape.watch(points)
        score = tf.reduce_sum(model(points))
    attributions = explain(model, inputs, n_steps=3).attributions
    assert relative_error(attributions, inputs * tape.gradient(score, points)) < ROUNDING
    assert (
        relative_error(attributions.sum(axis=1), model.predict(inputs, verbose=0)[:, 0]) < ROUNDING
    )


def test_sensitivity_where_the_gradient_is_flat() -> None:
    # Sundararajan et al., section 2.1: the gradient at 2 is 0, yet f(2) - f(0) = 1. The kink leaves
    # an error of one node in 50.
    computed = explain(model_of(lambda x: 1 - tf.nn.relu(1 - x), 1), [[2.0]], n_steps=50)
    assert abs(computed.attributions[0, 0] - 1) < ROUNDING


def test_unused_features_get_exactly_zero() -> None:
    computed = explain(model_of(lambda x: tf.exp(x[:, 1:2]), 3), [[1.0, 2.0, 3.0]])
    assert computed.attributions[0, 0] == computed.attributions[0, 2] == 0
    assert computed.attributions[0, 1] > 0


def test_equal_functions_get_equal_attributions() -> None:
    one = model_of(total, 3)
    other = model_of(lambda x: total(tf.nn.relu(x) - tf.nn.relu(-x)), 3)
    inputs = [[1.0, -2.0, 3.0]]
    assert (
        relative_error(explain(one, inputs).attributions, explain(other, inputs).attributions)
        < ROUNDING
    )


def test_attributions_are_linear_in_the_score() -> None:
    def f(x: tf.Tensor) -> tf.Tensor:
        return total(x**3)

    def g(x: tf.Tensor) -> tf.Tensor:
        return tf.exp(x[:, :1])

    inputs = np.array([[1.0, -0.5]], np.float32)
    both = explain(model_of(lambda x: 2 * f(x) - 3 * g(x), 2), inputs).attributions
    apart = (
        2 * explain(model_of(f, 2), inputs).attributions
        - 3 * explain(model_of(g, 2), inputs).attributions
    )
    assert relative_error(both, apart) < ROUNDING


def test_several_references_are_averaged_over() -> None:
    # of a square, x² - x'² between reference and input: the mean over references is exact
    data = np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)
    inputs = np.array([[1.0, -2.0], [0.5, 3.0], [0.0, 0.1]], np.float32)
    model = model_of(lambda x: total(x**2), 2)
    for baseline, references in (
        (partial(baselines.samples, data=data), data),
        ("black_and_white", np.array([[0.0, 0], [1, 1]])),
    ):
        computed = explain(model, inputs, baseline=baseline)
        assert (
            relative_error(computed.attributions, inputs**2 - (references**2).mean(axis=0))
            < ROUNDING
        )
        assert np.abs(computed.per_sample["convergence_delta"]).max() < 10 * ROUNDING


def test_noise_as_a_baseline_follows_the_sample_id() -> None:
    compute = Compute(
        model_of(lambda x: total(x**2), 2),
        partial(integrated_gradients, baseline=partial(baselines.uniform, n_references=3)),
    )
    inputs, targets = np.ones((4, 2), np.float32), np.zeros(4, np.int64)
    one = compute(inputs, targets, np.array([5, 6, 7, 8])).attributions
    other = compute(inputs, targets, np.array([8, 7, 6, 5])).attributions
    np.testing.assert_array_equal(one, other[::-1])
    assert len(np.unique(one)) == one.size


def test_symmetric_features_get_equal_attributions() -> None:
    computed = explain(model_of(lambda x: tf.tanh(x[:, :1] * x[:, 1:]), 2), [[1.5, 1.5]])
    assert computed.attributions[0, 0] == computed.attributions[0, 1]


def test_path_starts_at_the_baseline() -> None:
    def ones(inputs: tf.Tensor) -> tf.Tensor:
        return tf.ones_like(inputs)

    inputs = np.array([[2.0, 3.0]], np.float32)
    computed = explain(model_of(lambda x: total(x**2), 2), inputs, baseline=ones)
    assert relative_error(computed.attributions, inputs**2 - 1) < ROUNDING


def test_convergence_delta_is_the_sum_minus_the_gain() -> None:
    inputs = np.array([[2.0, 1.0], [0.0, 4.0]], np.float32)
    computed = explain(model_of(lambda x: total(x**3), 2), inputs, n_steps=2)
    gain = (inputs**3).sum(axis=1)
    assert np.allclose(
        computed.per_sample["convergence_delta"],
        computed.attributions.sum(axis=1) - gain,
        atol=1e-5,
    )
    # The midpoint rule with 2 nodes takes 15/16 of a cube.
    assert np.allclose(computed.per_sample["convergence_delta"], -gain / 16, rtol=1e-5)


@pytest.fixture(scope="module")
def digits() -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """Returns a small trained network, and digits that it was not trained on."""
    digits = load_digits()
    inputs, targets = (digits.images[..., None] / 16).astype(np.float32), digits.target
    keras.utils.set_random_seed(7)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.MaxPooling2D(2),
            keras.layers.Conv2D(32, 2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    model.fit(inputs[256:], targets[256:], epochs=6, verbose=0)
    return model, inputs[:256], targets[:256]


def test_completeness_on_a_trained_network_is_below_one_percent(
    digits: tuple[keras.Model, np.ndarray, np.ndarray],
) -> None:
    model, inputs, targets = digits
    computed = explain(model, inputs, targets, n_steps=50)
    probability = model.predict(inputs, verbose=0)[np.arange(256), targets]
    # the model has learnt something, so there is something to explain
    assert np.mean(probability) > 0.8
    gain = probability - model.predict(0 * inputs, verbose=0)[np.arange(256), targets]
    delta = computed.per_sample["convergence_delta"]
    assert np.allclose(delta, computed.attributions.sum(axis=(1, 2, 3)) - gain, atol=1e-5)
    assert np.abs(delta).mean() / np.abs(gain).mean() < 0.01


def test_a_tolerance_of_one_percent_takes_a_third_of_fifty_gradients(
    digits: tuple[keras.Model, np.ndarray, np.ndarray],
) -> None:
    model, inputs, targets = digits
    computed = explain(model, inputs, targets, tolerance=0.01, score="logit")
    n_nodes, converged = computed.per_sample["n_nodes"], computed.per_sample["converged"]
    assert n_nodes.dtype == np.int32
    assert converged.dtype == bool
    assert np.all(n_nodes % 2 == 1)  # a panel of 1, 3, 9 or 27 is odd, and so are 9 of them
    assert np.all((n_nodes == 3) | ((n_nodes >= 9) & (n_nodes <= 243)))
    assert converged.mean() > 0.95
    assert n_nodes.mean() <= 50 / 3
    fine = explain(model, inputs, targets, n_steps=1000, score="logit")
    gain = fine.attributions.sum(axis=(1, 2, 3)) - fine.per_sample["convergence_delta"]
    floor = (
        1e-3  # of logits of about 10, 1e-5 of them at both ends, and the rounding of `gain` here
    )
    assert np.all(
        np.abs(computed.per_sample["convergence_delta"][converged])
        <= 0.01 * np.abs(gain[converged]) + floor
    )
    errors = np.linalg.norm((computed.attributions - fine.attributions).reshape(256, -1), axis=1)
    assert (errors / np.linalg.norm(fine.attributions.reshape(256, -1), axis=1)).mean() < 0.05


def test_refined_examples_do_not_depend_on_their_batch(
    digits: tuple[keras.Model, np.ndarray, np.ndarray],
) -> None:
    model, inputs, targets = digits
    method = partial(integrated_gradients, tolerance=0.003)
    ids = np.arange(90)
    compute = Compute(model, method)
    everything = compute(inputs[:90], targets[:90], ids)
    assert len(np.unique(everything.per_sample["n_nodes"])) > 2  # some finish early, some late
    scale = np.abs(everything.attributions).max()
    for part in (slice(0, 0), slice(3, 4), slice(20, 27), slice(5, 69)):
        got = compute(inputs[part], targets[part], ids[part])
        np.testing.assert_array_equal(
            got.per_sample["n_nodes"], everything.per_sample["n_nodes"][part]
        )
        np.testing.assert_allclose(
            got.attributions, everything.attributions[part], rtol=0, atol=ROUNDING * scale
        )
    assert compute.n_traces == 1
    for micro_batch in (1, 8, 400):
        got = Compute(model, method, micro_batch=micro_batch)(inputs[:9], targets[:9], ids[:9])
        np.testing.assert_array_equal(
            got.per_sample["n_nodes"], everything.per_sample["n_nodes"][:9]
        )
        np.testing.assert_allclose(
            got.attributions, everything.attributions[:9], rtol=0, atol=2 * ROUNDING * scale
        )


def test_refinement_spends_what_a_function_needs() -> None:
    # a line is exact at once; a kink is refined in its own ninth alone, until the tolerance or the
    # last level is reached: 9 + 2 + 6 + 18
    data = np.array([[0.0, 0.0], [0.5, 0.25]], np.float32)
    line = explain(model_of(total, 2), [[1.0, 2.0]], tolerance=1e-4)
    kink = explain(model_of(lambda x: tf.nn.relu(total(x) - 1.37), 2), [[1.0, 2.0]], tolerance=0.01)
    never = explain(
        model_of(lambda x: tf.nn.relu(total(x) - 1.37), 2), [[1.0, 2.0]], tolerance=1e-9
    )
    two = explain(
        model_of(total, 2),
        [[1.0, 2.0]],
        tolerance=1e-4,
        baseline=partial(baselines.samples, data=data),
    )
    assert line.per_sample["n_nodes"] == 3
    assert kink.per_sample["n_nodes"] in (11, 17)
    assert abs(kink.per_sample["convergence_delta"][0]) <= 0.01 * 1.63
    assert never.per_sample["n_nodes"] == 35
    assert line.per_sample["converged"]
    assert kink.per_sample["converged"]
    assert not never.per_sample["converged"]
    assert two.per_sample["n_nodes"] == 6
    assert relative_error(two.attributions, np.array([[1.0, 2.0]]) - data.mean(axis=0)) < ROUNDING


def test_a_score_that_looks_at_the_example_can_be_refined(
    digits: tuple[keras.Model, np.ndarray, np.ndarray],
) -> None:
    model, inputs, targets = digits
    likeliest = model.predict(inputs[:5], verbose=0).argmax(axis=1)
    got = explain(model, inputs[:5], targets[:5], tolerance=0.01, score="predicted")
    want = explain(model, inputs[:5], likeliest, tolerance=0.01)
    np.testing.assert_allclose(got.attributions, want.attributions, atol=ROUNDING)


def test_mixed_precision_explains_what_full_precision_does() -> None:
    def build(dtype: str) -> keras.Model:
        keras.utils.set_random_seed(7)
        return keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Conv2D(8, 3, activation="relu", dtype=dtype),
                keras.layers.Flatten(),
                keras.layers.Dense(3, activation="softmax", dtype=dtype),
            ]
        )

    inputs = np.random.default_rng(1).uniform(size=(6, 8, 8, 1)).astype(np.float32)
    targets = np.arange(6) % 3
    full, mixed = (
        explain(build("float32"), inputs, targets),
        explain(build("mixed_bfloat16"), inputs, targets),
    )
    assert mixed.attributions.dtype == np.float32
    assert np.all(np.isfinite(mixed.attributions))
    # bfloat16 has 8 bits; errors of 1 in 256 a layer do not cancel within an image, but average out
    # along the path.
    assert (
        np.linalg.norm(mixed.attributions - full.attributions) / np.linalg.norm(full.attributions)
        < 0.05
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_steps": 0}, "needs n_steps >= 1; got 0"),
        ({"rule": "simpson"}, "unknown quadrature rule 'simpson'"),
        ({"tolerance": 0.0}, "refines the midpoint rule to a tolerance > 0; got 0.0"),
        (
            {"tolerance": 0.1, "rule": "gauss_legendre"},
            "refines the midpoint rule to a tolerance > 0; got 0.1, with rule 'gauss_legendre'",
        ),
        ({"baseline": "black"}, "unknown baseline 'black'; pass baseline= one of 'zero'"),
        ({"score": "logit?"}, "unknown score 'logit\\?'; pass score= one of 'output'"),
        ({"micro_batch": 0}, "at least 1; got 0"),
        ({"baseline": first_half}, r"a baseline has the shape of the inputs, \(\d+, 3\)"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(
    options: dict[str, Any], message: str
) -> None:
    def check() -> None:
        compute = Compute(model_of(total, 3), partial(integrated_gradients, **options))
        compute.check(np.zeros((0, 3), np.float32), np.zeros(0, np.int64))

    with pytest.raises(ValueError, match=message):
        check()


def test_a_score_without_gradient_is_refused() -> None:
    model = model_of(lambda x: tf.cast(tf.cast(total(x), tf.int32), tf.float32), 2)
    with pytest.raises(ValueError, match="has no gradient there"):
        explain(model, [[1.0, 2.0]])


def test_works_without_compute() -> None:
    inputs = tf.constant([[1.0, 2.0]])
    attributed = integrated_gradients(
        model_of(total, 2), inputs, tf.constant([0]), ids=tf.constant([0], tf.int64)
    )
    assert np.allclose(attributed.attributions, inputs)
