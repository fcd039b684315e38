"""Grad-CAM against closed forms, against graph surgery, and in every shape of model."""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.attributions.grad_cam import grad_cam
from hvd_xai.compute.attribute import Compute
from tests import models_under_test as models

# The same float32 kernels in another order: a few roundings of 1e-7.
ROUNDING = 1e-6


def explain(
    model: keras.Model, inputs: np.ndarray, targets: np.ndarray, **options: Any
) -> np.ndarray:
    return Compute(model, partial(grad_cam, **options))(
        inputs, targets, np.arange(len(inputs))
    ).attributions


def assert_close(got: np.ndarray, want: np.ndarray) -> None:
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= ROUNDING * np.abs(want).max()


def by_surgery(
    model: keras.Model, layer: str, inputs: np.ndarray, targets: np.ndarray
) -> np.ndarray:
    """Computes Grad-CAM by graph surgery: a second model of the same graph with one more output.

    This is the usual way, and works for functional models only.
    """
    both = keras.Model(model.inputs[0], [model.get_layer(layer).output, model.output])
    with tf.GradientTape() as tape:
        activations, outputs = both(inputs, training=False)
        score = tf.reduce_sum(tf.gather(outputs, targets, batch_dims=1))
    alpha = tf.reduce_mean(tape.gradient(score, activations), axis=(1, 2), keepdims=True)
    maps: np.ndarray = tf.nn.relu(tf.reduce_sum(alpha * activations, axis=-1)).numpy()
    return maps


def test_with_average_pooling_it_is_the_class_activation_map() -> None:
    # Selvaraju et al., section 3.1: for global average pooling and one dense layer, Grad-CAM is CAM
    # up to 1/Z.
    keras.utils.set_random_seed(2)
    inputs = keras.Input((9, 7, 2))
    features = keras.layers.Conv2D(5, 3, activation="relu", name="conv")(inputs)
    model = keras.Model(
        inputs, keras.layers.Dense(4, name="head")(keras.layers.GlobalAveragePooling2D()(features))
    )
    x = np.random.default_rng(2).normal(size=(6, 9, 7, 2)).astype(np.float32)
    targets = np.arange(6) % 4
    kernel, bias = model.get_layer("conv").get_weights()
    patches = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))  # n h w c 3 3
    activations = np.maximum(np.einsum("nhwcij,ijck->nhwk", patches, kernel) + bias, 0)
    head = model.get_layer("head").get_weights()[0]
    want = np.maximum(np.einsum("nhwk,kn->nhw", activations, head[:, targets]), 0) / (7 * 5)
    assert_close(explain(model, x, targets), want)


@pytest.mark.parametrize("layer", ["conv", "pool", "last_conv"])
def test_equals_graph_surgery_on_a_functional_model(layer: str) -> None:
    model = models.functional()
    inputs, targets, _ = models.examples(10)
    assert_close(
        explain(model, inputs, targets, layer=layer), by_surgery(model, layer, inputs, targets)
    )


@pytest.mark.parametrize("build", models.SAME_FUNCTION, ids=lambda build: build.__name__)
@pytest.mark.parametrize("layer", ["conv", "last_conv", None])
def test_reaches_layers_in_every_shape_of_model(
    build: Callable[[], keras.Model], layer: str | None
) -> None:
    inputs, targets, _ = models.examples(4)
    want = by_surgery(models.functional(), layer or "last_conv", inputs, targets)
    assert_close(explain(build(), inputs, targets, layer=layer), want)


def test_a_nested_model_is_a_layer_too() -> None:
    inputs, targets, _ = models.examples(4)
    model = models.functional_in_sequential()
    np.testing.assert_array_equal(
        explain(model, inputs, targets, layer="backbone"), explain(model, inputs, targets)
    )


def test_a_path_tells_layers_of_one_name_apart() -> None:
    def branch(name: str) -> keras.Model:
        inputs = keras.Input(models.INPUT_SHAPE)
        return keras.Model(
            inputs, keras.layers.Conv2D(3, 3, activation="relu", name="conv")(inputs), name=name
        )

    keras.utils.set_random_seed(4)
    inputs = keras.Input(models.INPUT_SHAPE)
    left, right = branch("left"), branch("right")
    pooled = [keras.layers.GlobalAveragePooling2D()(side(inputs)) for side in (left, right)]
    model = keras.Model(
        inputs, keras.layers.Dense(3)(keras.layers.Concatenate()(pooled)), name="both"
    )
    x, targets, _ = models.examples(4)
    with pytest.raises(
        ValueError,
        match=(
            r"finds 2 layers named 'conv'. Pass layer= the path of one of them: 'both/.*/conv',"
            r" 'both/"
        ),
    ):
        explain(model, x, targets, layer="conv")
    got = [explain(model, x, targets, layer=name) for name in ("left/conv", "both/right/conv")]
    assert np.abs(got[0] - got[1]).max() > 0
    np.testing.assert_array_equal(got[0], explain(model, x, targets, layer="left"))


@pytest.mark.parametrize(
    ("shape", "layer", "want"),
    [((12, 2), keras.layers.Conv1D, (10,)), ((5, 6, 7, 2), keras.layers.Conv3D, (3, 4, 5))],
    ids=["series", "volume"],
)
def test_series_and_volumes(
    shape: tuple[int, ...], layer: type[keras.layers.Layer], want: tuple[int, ...]
) -> None:
    model = keras.Sequential(
        [
            keras.Input(shape),
            layer(4, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    compute = Compute(model, grad_cam)
    compute.check(np.zeros((0, *shape), np.float32), np.zeros(0, np.int64))
    assert compute.sample_shape == want


def test_channels_first() -> None:
    keras.utils.set_random_seed(4)
    last = keras.layers.Conv2D(4, 3, activation="relu", name="last")
    first = keras.layers.Conv2D(4, 3, activation="relu", data_format="channels_first", name="first")
    models_of = [
        keras.Sequential(
            [
                keras.Input((8, 8, 2)),
                last,
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(3),
            ]
        ),
        keras.Sequential(
            [
                keras.Input((2, 8, 8)),
                first,
                keras.layers.GlobalAveragePooling2D(data_format="channels_first"),
                keras.layers.Dense(3),
            ]
        ),
    ]
    models_of[1].set_weights(models_of[0].get_weights())
    inputs = np.random.default_rng(4).normal(size=(3, 8, 8, 2)).astype(np.float32)
    want, got = (
        explain(models_of[0], inputs, np.arange(3)),
        explain(models_of[1], inputs.transpose(0, 3, 1, 2), np.arange(3)),
    )
    assert_close(got, want)


def test_a_layer_that_passes_on_is_not_taken_for_the_branch_beside_it() -> None:
    # In inference dropout returns its very input, which the other branch uses as well; only
    # dropout's own use counts.
    inputs = keras.Input((4, 4, 1))
    dropped = keras.layers.Dropout(0.5, name="dropout")(inputs)
    sums = [keras.layers.Flatten()(side) for side in (dropped, inputs)]
    parts = [
        keras.layers.Dense(
            1, use_bias=False, kernel_initializer=keras.initializers.Constant(value)
        )(side)
        for value, side in zip((2.0, -5.0), sums, strict=True)
    ]
    model = keras.Model(inputs, keras.layers.Add()(parts))
    x = np.ones((1, 4, 4, 1), np.float32)
    np.testing.assert_allclose(
        explain(model, x, np.zeros(1, np.int64), layer="dropout"),
        np.full((1, 4, 4), 2.0),
        rtol=ROUNDING,
    )


def test_the_default_is_the_layer_that_computes_not_the_one_that_passes_on() -> None:
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Conv2D(2, 3),
            keras.layers.Dropout(0.5),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    x = np.random.default_rng(0).normal(size=(3, 6, 6, 1)).astype(np.float32)
    targets = np.array([0, 1, 0])
    np.testing.assert_array_equal(
        explain(model, x, targets), explain(model, x, targets, layer=model.layers[0].name)
    )


def test_mixed_precision_gives_float32_near_full_precision() -> None:
    def build(dtype: str) -> keras.Model:
        keras.utils.set_random_seed(7)
        conv = keras.layers.Conv2D(8, 3, activation="relu", dtype=dtype)
        return keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                conv,
                keras.layers.Flatten(),
                keras.layers.Dense(3, dtype=dtype),
            ]
        )

    inputs, targets, _ = models.examples(6)
    full, mixed = (
        explain(build("float32"), inputs, targets),
        explain(build("mixed_bfloat16"), inputs, targets),
    )
    assert mixed.dtype == np.float32
    # bfloat16 has 8 bits: 0.4 % an operation.
    assert np.linalg.norm(mixed - full) / np.linalg.norm(full) < 0.05


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            "conv9",
            (
                r"finds no layer 'conv9' among those the model calls. Pass layer= one of"
                r" .*'last_conv' \(None, 2, 2, 6\)\."
            ),
        ),
        (
            "probabilities",
            (
                r"needs a layer with a spatial output, of rank 3 to 5; layer 'probabilities' gives"
                r" \(None, 3\). Pass layer= one of"
            ),
        ),
    ],
)
def test_wrong_layers_are_refused_with_those_that_would_do(layer: str, message: str) -> None:
    inputs, targets, ids = models.examples(0)
    with pytest.raises(ValueError, match=message):
        Compute(models.functional(), partial(grad_cam, layer=layer)).check(inputs, targets, ids)


def test_a_model_without_places_is_refused() -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="dense_one")])
    with pytest.raises(ValueError, match=r"the model has none; it has 'dense_one' \(None, 3\)"):
        Compute(model, grad_cam).check(np.zeros((1, 4), np.float32), np.zeros(1, np.int64))


def test_a_layer_that_the_score_does_not_depend_on_is_refused() -> None:
    inputs = keras.Input((6, 6, 1))
    side = keras.layers.Conv2D(2, 3, name="side")(inputs)
    ignored = keras.layers.Lambda(
        lambda x: tf.stop_gradient(x[0]) * 0 + tf.reduce_mean(x[1], axis=(1, 2)), output_shape=(2,)
    )
    unused = keras.layers.Reshape((32,))(side)
    model = keras.Model(inputs, ignored([keras.layers.Dense(1)(unused), inputs]))
    with pytest.raises(ValueError, match=r"does not depend so on layer '.*/side', behind which"):
        Compute(model, partial(grad_cam, layer="side")).check(
            np.zeros((1, 6, 6, 1), np.float32), np.zeros(1, np.int64)
        )
