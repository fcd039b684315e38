"""DeepLIFT against values by hand, and its completeness through every operation that has a rule."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.attributions.deep_lift import deep_lift
from hvd_xai.compute.attribute import Compute, Computed
from tests import models_under_test as models

# Sums of some hundred float32 terms of size 1.
ROUNDING = 1e-5

Function = Callable[[Any], Any]


def model_of(function: Function, n_features: int) -> keras.Model:
    """Returns a model `[n, n_features] -> [n, 1]` that is the given function."""
    inputs = keras.Input((n_features,))
    return keras.Model(inputs, keras.layers.Lambda(function, output_shape=(1,))(inputs))


def explain(model: keras.Model, inputs: Any, **options: Any) -> Computed:
    values = np.asarray(inputs, np.float32)
    return Compute(model, partial(deep_lift, **options))(
        values, np.zeros(len(values), np.int64), np.arange(len(values))
    )


def assert_complete(
    model: keras.Model, computed: Computed, inputs: np.ndarray, start: np.ndarray
) -> None:
    scores = np.asarray(model(np.concatenate([inputs, start])))[:, 0].astype(np.float32)
    gain = scores[: len(inputs)] - scores[len(inputs) :]
    summed = computed.attributions.reshape(len(inputs), -1).sum(axis=1)
    scale = max(
        1.0, float(np.abs(computed.attributions).reshape(len(inputs), -1).sum(axis=1).max())
    )
    assert np.abs(summed - gain).max() <= ROUNDING * scale
    assert (
        np.abs(computed.per_sample["convergence_delta"] - (summed - gain)).max() <= ROUNDING * scale
    )
    assert np.abs(summed).max() > 10 * ROUNDING  # there was something to share


def constant(inputs: tf.Tensor, values: tuple[float, ...]) -> tf.Tensor:
    return tf.broadcast_to(tf.constant(values), tf.shape(inputs))


def first_half(inputs: tf.Tensor) -> tf.Tensor:
    return inputs[:, :1]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def gelu(x: float) -> float:
    return x * (1 + math.erf(x / math.sqrt(2))) / 2


SOFTMAX = (sigmoid(-1) - sigmoid(1)) / -2
LOG_SOFTMAX = (math.log(sigmoid(-1)) - math.log(sigmoid(1))) / -2
GELU = (gelu(-1) - gelu(1)) / -2


@pytest.mark.parametrize(
    ("function", "start", "want"),
    [
        (lambda x: x @ tf.constant([[2.0], [-3.0]]), (0.5, 1.0), (3, -6)),
        # The sum is 5, and was -2: 5 for a step of 7.
        (lambda x: tf.nn.relu(x[:, :1] + x[:, 1:]), (-1.0, -1.0), (3 * 5 / 7, 4 * 5 / 7)),
        # The other factor half way is 1, and 1.5.
        (lambda x: x[:, :1] * x[:, 1:], (1.0, -1.0), (1, 6)),
        # 1/b half way is 2/3; 1.5 times the step of 1/b, which is -2/3.
        (lambda x: x[:, :1] / x[:, 1:], (1.0, 1.0), (2 / 3, -1)),
        # 1/b is taken for 0 at 0: half way it is 1/6, and 1 times the step of 1/b, which is 1/3.
        (lambda x: tf.math.divide_no_nan(x[:, :1], x[:, 1:]), (0.0, 0.0), (1 / 3, 1 / 3)),
        # The maximum is 3, and was 1: the second input takes all of it.
        (lambda x: tf.maximum(x[:, :1], x[:, 1:]), (1.0, 0.0), (0, 2)),
        (lambda x: tf.reduce_max(x, axis=1, keepdims=True), (4.0, 0.0), (-1, 0)),
        (lambda x: tf.reduce_min(x, axis=1, keepdims=True), (4.0, 5.0), (-2, 0)),
        # Softmax of two is the sigmoid of their difference, here -1, there 1.
        (lambda x: tf.nn.softmax(x)[:, :1], (1.0, 0.0), (SOFTMAX, -3 * SOFTMAX)),
        (lambda x: tf.nn.log_softmax(x)[:, :1], (1.0, 0.0), (LOG_SOFTMAX, -3 * LOG_SOFTMAX)),
        (
            lambda x: keras.ops.gelu(x[:, :1] - x[:, 1:], approximate=False),
            (2.0, 1.0),
            (0, -2 * GELU),
        ),
    ],
    ids=[
        "linear",
        "relu",
        "product",
        "quotient",
        "quotient or 0",
        "maximum",
        "max",
        "min",
        "softmax",
        "log_softmax",
        "gelu",
    ],
)
def test_values_by_hand(
    function: Function, start: tuple[float, float], want: tuple[float, float]
) -> None:
    inputs = np.array([[2.0, 3.0]], np.float32)
    model = model_of(function, 2)
    computed = explain(model, inputs, baseline=partial(constant, values=start))
    np.testing.assert_allclose(computed.attributions, [want], rtol=ROUNDING, atol=ROUNDING)
    assert_complete(model, computed, inputs, np.array([start], np.float32))


def test_is_gradient_times_input_on_a_net_of_rectifiers_without_biases() -> None:
    # The rectifiers are 0 at the baseline, so that each multiplier is 1 where it is on and 0 where
    # it is off: the gradient.
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, activation="relu", use_bias=False),
            keras.layers.AveragePooling2D(2),
            keras.layers.Conv2D(5, 2, use_bias=False),
            keras.layers.LeakyReLU(0.3),
            keras.layers.Flatten(),
            keras.layers.Dense(1, use_bias=False),
        ]
    )
    inputs = np.random.default_rng(3).normal(size=(7, 8, 8, 1)).astype(np.float32)
    with tf.GradientTape() as tape:
        points = tf.constant(inputs)
        tape.watch(points)
        score = tf.reduce_sum(model(points))
    np.testing.assert_allclose(
        explain(model, inputs).attributions, inputs * tape.gradient(score, points), atol=1e-6
    )


def test_inputs_at_the_baseline_have_the_gradients_multipliers_and_get_zero() -> None:
    model = model_of(lambda x: tf.tanh(x[:, :1]) + tf.nn.softmax(x)[:, :1] * tf.exp(x[:, 1:]), 2)
    computed = explain(model, [[0.0, 0.0], [0.0, 1.0]])
    np.testing.assert_array_equal(computed.attributions[0], [0.0, 0.0])
    assert computed.attributions[1, 0] == 0
    assert np.isfinite(computed.attributions).all()


def test_softmax_with_a_mask_of_minus_infinity() -> None:
    model = model_of(lambda x: tf.nn.softmax(tf.add(x, [0.0, 0.0, -math.inf]))[:, :1], 3)
    inputs = np.array([[2.0, 3.0, 1.0]], np.float32)
    want = (sigmoid(-1) - sigmoid(0)) / -1 * np.array([[2.0, -3.0, 0.0]])
    np.testing.assert_allclose(explain(model, inputs).attributions, want, atol=ROUNDING)


def test_a_tiny_step_gives_the_gradient() -> None:
    # 1e-6 of 0.7 is some roundings: a quotient of such differences would be off by tenths.
    def function(x: tf.Tensor) -> tf.Tensor:
        return tf.nn.sigmoid(x[:, :1]) * tf.nn.gelu(x[:, 1:])

    begin, step = np.array([[0.7, -0.4]], np.float32), np.array([[1e-6, 2e-6]], np.float32)
    with tf.GradientTape() as tape:
        points = tf.constant(begin)
        tape.watch(points)
        score = function(points)
    computed = explain(
        model_of(function, 2), begin + step, baseline=partial(constant, values=(0.7, -0.4))
    )
    np.testing.assert_allclose(
        computed.attributions / (begin + step - begin), tape.gradient(score, points), rtol=1e-4
    )


def series(*layers: keras.layers.Layer) -> keras.Model:
    """Returns a model of series `[n, 6, 4]`, with the given layers between two dense ones."""
    keras.utils.set_random_seed(5)
    bias = keras.initializers.RandomNormal(stddev=0.5)
    return keras.Sequential(
        [
            keras.Input((6, 4)),
            keras.layers.Dense(4, bias_initializer=bias),
            *layers,
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )


def of_two(join: Callable[[Any, Any], Any]) -> keras.Model:
    """Returns a model of series in which two tensors are joined."""
    keras.utils.set_random_seed(5)
    inputs = keras.Input((6, 4))
    bias = keras.initializers.RandomNormal(stddev=0.5)
    one, other = (
        keras.layers.Dense(4, bias_initializer=bias)(inputs),
        keras.layers.Dense(4, bias_initializer=bias)(inputs),
    )
    return keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Flatten()(join(one, other))))


def all_activations() -> keras.Model:
    """Returns all activations side by side, so that they cost one model."""
    names = (
        "relu leaky_relu relu6 celu elu selu softplus softsign squareplus silu gelu tanh"
        " tanh_shrink sigmoid hard_sigmoid hard_silu mish"
    )
    return of_two(
        lambda one, other: keras.layers.Concatenate()(
            [keras.layers.Activation(name)(one + other) for name in names.split()]
        )
    )


def all_layers() -> list[keras.layers.Layer]:
    return [
        keras.layers.LayerNormalization(epsilon=0.1),
        keras.layers.Conv1D(4, 2, padding="same", activation="gelu"),
        keras.layers.BatchNormalization(),
        keras.layers.MaxPooling1D(2, 1, padding="same"),
        keras.layers.GroupNormalization(2, epsilon=0.1),
        keras.layers.Dropout(0.5),
        keras.layers.Conv1DTranspose(4, 2, activation="silu"),
        keras.layers.UpSampling1D(2),
        keras.layers.AveragePooling1D(2),
        keras.layers.Softmax(axis=1),
        keras.layers.Bidirectional(keras.layers.LSTM(3, unroll=True, return_sequences=True)),
        keras.layers.GlobalMaxPooling1D(),
    ]


COMPLETE: dict[str, Callable[[], keras.Model]] = {
    "activations": all_activations,
    "layers": lambda: series(*all_layers()),
    "softmax": lambda: series(
        keras.layers.Activation("log_softmax"), keras.layers.Activation("softmax")
    ),
    "attention": lambda: of_two(
        lambda one, other: keras.layers.MultiHeadAttention(2, 3)(one, other, use_causal_mask=True)
    ),
    "gate": lambda: of_two(lambda one, other: one * keras.ops.sigmoid(other)),
    "products": lambda: of_two(
        lambda one, other: keras.layers.Dot(axes=2)([one, keras.layers.Maximum()([one, other])])
    ),
}


@pytest.mark.parametrize("kind", COMPLETE)
def test_attributions_sum_to_the_gain(kind: str) -> None:
    inputs = np.random.default_rng(6).normal(size=(5, 6, 4)).astype(np.float32)
    model = COMPLETE[kind]()
    assert_complete(model, explain(model, inputs), inputs, 0 * inputs)


@pytest.mark.parametrize(
    "build", [*models.SAME_FUNCTION, models.with_state], ids=lambda build: build.__name__
)
def test_is_complete_in_every_shape_of_model(build: Callable[[], keras.Model]) -> None:
    inputs = models.examples(5)[0]
    model = build()
    assert_complete(model, explain(model, inputs), inputs, 0 * inputs)


@pytest.mark.parametrize("score", ["logit", "probability", "log_odds"])
def test_is_complete_for_every_score_of_a_class(score: str) -> None:
    computed = explain(models.functional(), models.examples(5)[0], score=score)
    total = np.abs(computed.attributions).reshape(5, -1).sum(axis=1)
    assert np.all(np.abs(computed.per_sample["convergence_delta"]) <= ROUNDING * total)
    assert np.all(total > 0)


def test_mixed_precision_is_complete_to_its_own_rounding() -> None:
    keras.utils.set_random_seed(7)
    layer = partial(keras.layers.Dense, dtype="mixed_bfloat16")
    model = keras.Sequential([keras.Input((6,)), layer(8, "gelu"), layer(8, "relu"), layer(1)])
    inputs = np.random.default_rng(7).normal(size=(9, 6)).astype(np.float32)
    computed = explain(model, inputs)
    assert computed.attributions.dtype == np.float32
    # bfloat16 has 8 bits, and there are five operations of it.
    assert (
        np.abs(computed.per_sample["convergence_delta"]).max()
        < 0.02 * np.abs(computed.attributions).sum(axis=1).max()
    )


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            lambda: keras.layers.LSTM(2, name="memory"),
            r"no rule for operation 'TensorListStack' at '.*/memory', of variant",
        ),
        (
            lambda: keras.layers.Activation("soft_shrink", name="shrink"),
            r"no rule for operation 'SelectV2' at '.*/shrink', of bool",
        ),
        (
            lambda: keras.layers.Lambda(lambda x: tf.math.cumprod(x, axis=1), name="product"),
            r"no rule for operation 'Cumprod' at '.*/product'",
        ),
        (
            lambda: keras.layers.Lambda(lambda x: x**x, name="power"),
            r"no rule for operation 'Pow' at '.*/power', of float32 .*, float32",
        ),
        (
            lambda: keras.layers.Lambda(lambda x: tf.cast(x > 0, tf.float32), name="step"),
            r"no rule for operation 'Cast' at '.*/step', of bool",
        ),
    ],
)
def test_an_operation_without_a_rule_is_named_with_its_layer(
    layer: Callable[[], keras.layers.Layer], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Compute(series(layer()), deep_lift).check(
            np.zeros((0, 6, 4), np.float32), np.zeros(0, np.int64)
        )


def test_a_score_that_does_not_depend_on_the_inputs_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a score that depends smoothly on the inputs"):
        explain(model_of(lambda x: tf.stop_gradient(x[:, :1]), 2), [[1.0, 2.0]])


def test_a_baseline_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a baseline has the shape of the inputs, \(128, 2\)"):
        explain(model_of(lambda x: x[:, :1], 2), [[1.0, 2.0]], baseline=first_half)
