"""Interception reaches every layer, changes no output, and leaves no trace."""

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai import scores
from hvd_xai.primitives import layers
from tests import models_under_test as models


def patched(model: keras.Model) -> list[str]:
    return [layer.name for layer in model._flatten_layers() if "call" in vars(layer)]


@pytest.mark.parametrize("build", models.SAME_FUNCTION, ids=lambda build: build.__name__)
def test_collects_every_call_in_order_and_changes_no_output(
    build: Callable[[], keras.Model],
) -> None:
    model = build()
    inputs = tf.constant(models.examples(2)[0])
    want = model(inputs, training=False)
    with layers.tap(model) as calls:
        got = model(inputs, training=False)
    np.testing.assert_array_equal(got, want)
    leaves = [call.layer.name for call in calls if call.layer.name not in {"backbone", "head"}]
    assert leaves == ["conv", "pool", "last_conv", "flatten", "probabilities"]
    np.testing.assert_array_equal(calls[-1].output, want)
    assert patched(model) == []


def test_paths_name_the_models_around_a_layer() -> None:
    model = models.functional_in_subclassed()
    with layers.tap(model) as calls:
        model(models.examples(1)[0], training=False)
    assert [call.path.split("/", 1)[1] for call in calls][:4] == [
        "backbone/conv",
        "backbone/pool",
        "backbone/last_conv",
        "backbone",
    ]
    assert [call.is_new for call in calls][:4] == [True, True, True, False]


def test_nothing_stays_patched_after_an_error() -> None:
    model = models.functional()

    def run_and_fail() -> None:
        with layers.tap(model):
            assert patched(model)
            model(np.zeros((1, 3, 3, 1, 1)))

    with pytest.raises(ValueError, match="expected shape"):
        run_and_fail()
    assert patched(model) == []


class InPieces(keras.Model):  # type: ignore[misc]  # keras ships no types
    """A model whose pieces are tf.functions, with a branch that depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.dense = (
            keras.layers.Conv2D(2, 2, name="conv"),
            keras.layers.Dense(2, name="dense"),
        )
        self.dense.call = tf.function(self.dense.call)

    @tf.function  # type: ignore[untyped-decorator]  # TensorFlow ships no types
    def seen(self, inputs: tf.Tensor) -> tf.Tensor:
        outputs = self.conv(inputs)
        if tf.reduce_sum(inputs) > 1:
            outputs = 2 * outputs
        return tf.reshape(outputs, (-1, 8))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.dense(self.seen(inputs))


@pytest.mark.parametrize("is_traced", [True, False])
def test_layers_within_tf_functions_are_reached_and_nothing_is_traced_into_these(
    is_traced: bool,
) -> None:
    model = InPieces()
    model(np.zeros((1, 3, 3, 1), np.float32))
    inputs = tf.random.stateless_uniform((2, 3, 3, 1), (0, 0))
    convolved = model.conv(inputs)
    want = model.dense(tf.reshape(2 * convolved, (-1, 8)))
    if is_traced:
        model(inputs)

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]  # TensorFlow ships no types
    def run(inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        with layers.tap(model) as calls:
            outputs = model(inputs)
        call = layers.single(calls, "conv", "test")
        with layers.put(call, tf.zeros_like):
            of_zeros = scores.evaluate(model, inputs, tf.zeros(2, tf.int32), "output")
        return call.output, outputs, of_zeros

    for got, expected in zip(run(inputs), (convolved, want, np.zeros(2)), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6)
    np.testing.assert_allclose(model(inputs), want, rtol=1e-6)
    assert patched(model) == ["dense"], "its own"
    assert "seen" not in vars(model)


def test_an_interception_of_the_users_own_is_put_back() -> None:
    model = models.functional()
    layer = model.get_layer("conv")
    own = layer.call
    vars(layer)["call"] = own
    with layers.tap(model):
        assert vars(layer)["call"] is not own
    assert vars(layer)["call"] is own


def test_interceptions_nest() -> None:
    model = models.functional()
    with layers.tap(model) as outer, layers.tap(model) as inner:
        model(models.examples(1)[0], training=False)
    assert [call.path for call in outer] == [call.path for call in inner]
    assert patched(model) == []


def test_outputs_of_an_inner_loop_are_out_of_reach_and_said_to_be() -> None:
    cell = keras.layers.LSTMCell(3, name="cell")
    model = keras.Sequential(
        [
            keras.Input((5, 2)),
            keras.layers.RNN(cell, return_sequences=True, name="rnn"),
            keras.layers.Flatten(),
        ]
    )

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]  # TensorFlow ships no types
    def run(inputs: tf.Tensor) -> tf.Tensor:
        with layers.tap(model) as calls:
            outputs = model(inputs, training=False)
        assert layers.spatial(calls, None, "test").layer.name == "rnn"
        with pytest.raises(
            ValueError, match="layer 'cell' gives several tensors, or one of an inner loop"
        ):
            layers.spatial(calls, "cell", "test")
        return outputs

    run(tf.zeros((1, 5, 2)))


def test_masks_pass_through_watched_layers() -> None:
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            keras.Sequential(
                [
                    keras.Input((4,), dtype="int32"),
                    keras.layers.Embedding(5, 3, mask_zero=True, name="embedding"),
                ]
            ),
            keras.layers.GlobalAveragePooling1D(),
        ]
    )
    tokens = tf.constant([[1, 2, 0, 0]])
    want = model(tokens)
    with tf.GradientTape() as tape, layers.tap(model, tape.watch):
        got = model(tokens)
    np.testing.assert_array_equal(got, want)


def test_what_is_put_in_place_of_an_output_has_its_dtype_and_mask() -> None:
    embedding = keras.layers.Embedding(5, 1, mask_zero=True, dtype="mixed_bfloat16")
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            embedding,
            keras.layers.GlobalAveragePooling1D(dtype="float32"),
        ]
    )
    tokens, dtypes = tf.constant([[1, 2, 0, 0]]), []

    def stand_in(output: tf.Tensor) -> tf.Tensor:
        dtypes.append(output.dtype)
        return tf.constant([[[1.0], [3.0], [50.0], [50.0]]])

    with layers.tap(model) as calls:
        model(tokens)
    with layers.put(calls[0], stand_in):
        np.testing.assert_array_equal(model(tokens), [[2.0]])
    assert dtypes == [tf.bfloat16]
    assert patched(model) == []


def test_long_lists_of_layers_are_cut() -> None:
    inputs = outputs = keras.Input((4, 4, 1))
    for _ in range(30):
        outputs = keras.layers.ReLU()(outputs)
    model = keras.Model(inputs, outputs)
    with layers.tap(model) as calls:
        model(np.zeros((1, 4, 4, 1), np.float32))
    with pytest.raises(ValueError, match=r"one of \(18 more\), "):
        layers.spatial(calls, "nowhere", "test")


def shared_by_two_models() -> keras.Model:
    """A convolution in two nested models, the second of which is called twice."""
    shared = keras.layers.Conv2D(1, 3, padding="same", name="shared")
    one, other = (
        keras.Sequential([keras.Input((6, 6, 1)), shared], name=name) for name in ("one", "other")
    )
    inputs = keras.Input((6, 6, 1))
    return keras.Model(inputs, other(other(one(inputs))), name="all")


def test_calls_of_a_shared_layer_are_numbered_through_and_named_by_path_or_number() -> None:
    model = shared_by_two_models()
    with layers.tap(model) as calls:
        model(np.ones((1, 6, 6, 1), np.float32))
    of_shared = [call for call in calls if call.layer.name == "shared"]
    assert [call.name for call in of_shared] == [
        "all/one/shared[0]",
        "all/other/shared[1]",
        "all/other/shared[2]",
    ]
    for name, number in [
        ("shared[0]", 0),
        ("one/shared", 0),
        ("other/shared[2]", 2),
        ("all/other/shared[1]", 1),
    ]:
        assert layers.spatial(calls, name, "test") is of_shared[number]
        assert layers.single(calls, name, "test") is of_shared[number]


@pytest.mark.parametrize(
    ("layer", "offered"),
    [
        (None, r"'shared\[0\]' .*, 'shared\[1\]' .*, 'shared\[2\]' .*"),
        ("shared", r"'shared\[0\]' .*, 'shared\[1\]' .*, 'shared\[2\]' .*"),
        ("other/shared", r"'shared\[1\]' .*, 'shared\[2\]' .*"),
    ],
)
def test_a_layer_called_several_times_is_refused_with_its_calls(
    layer: str | None, offered: str
) -> None:
    model = shared_by_two_models()
    with layers.tap(model) as calls:
        model(np.ones((1, 6, 6, 1), np.float32))
    with pytest.raises(
        ValueError, match=rf"calls layer 'shared' \d times. Pass layer= one of {offered}\.$"
    ):
        layers.spatial(calls, layer, "test")


def test_what_is_put_in_place_of_one_call_leaves_the_others() -> None:
    model = shared_by_two_models()
    of_the_middle = np.zeros((3, 3, 1, 1))
    of_the_middle[1, 1] = 1
    model.set_weights([of_the_middle, np.ones(1)])  # each call adds 1
    inputs = tf.zeros((1, 6, 6, 1))
    with layers.tap(model) as calls:
        model(inputs)
    for number, want in enumerate([12.0, 11.0, 10.0]):
        (call,) = (call for call in calls if call.layer.name == "shared" and call.number == number)
        with layers.put(call, lambda output: 0 * output + 10):
            np.testing.assert_array_equal(model(inputs), np.full((1, 6, 6, 1), want))
    assert patched(model) == []
