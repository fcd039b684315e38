"""Whatever one rank's layers hold, every rank's layers compute with, variable or not."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import hvd_xai.keras as hvd
from hvd_xai.keras.shared_state import share_state, unlisted_variables
from hvd_xai.ranks.world import World
from tests.launched.fitting import same_everywhere

layers = keras.layers

DATA = np.array([[1.0], [3.0]], "float32")  # mean 2, standard deviation 1


def _compiled(*within: Any, dtype: str = "float32") -> keras.Model:
    """Returns a model that ends in an identity, since something has to be trainable."""
    same = layers.Dense(1, kernel_initializer="ones")
    model = keras.Sequential([keras.Input((1,), dtype=dtype), *within, same])
    model.compile(hvd.DistributedOptimizer(keras.optimizers.SGD(0.0)), "mse")
    return model


def _fit(model: keras.Model, x: np.ndarray) -> None:
    y = np.zeros((len(x), *model.output_shape[1:]), "float32")
    first = hvd.callbacks.BroadcastGlobalVariablesCallback()
    model.fit(x, y, batch_size=2, verbose=0, callbacks=[first])


@pytest.mark.parametrize("everywhere", [True, False])
def test_normalization_computes_with_what_the_root_has_adapted(
    world: World, everywhere: bool
) -> None:
    layer = layers.Normalization()
    if everywhere or world.is_root:
        layer.adapt(DATA + 10 * world.rank)
    model = _compiled(layer)
    x = np.array([[4.0]], "float32")
    # traced before, with what this rank has
    model.predict(x, verbose=0)
    model.evaluate(x, np.zeros((1, 1)), verbose=0)
    _fit(model, x)
    # the root's mean is 2, its standard deviation 1
    assert float(model(x)[0, 0]) == 2.0
    assert float(model.predict(x, verbose=0)[0, 0]) == 2.0
    assert model.evaluate(x, np.zeros((1, 1)), verbose=0) == 4.0


def test_vocabularies_are_the_roots(world: World, caplog: pytest.LogCaptureFixture) -> None:
    tokens = [10, 20, 30][world.rank :] + [10, 20, 30][: world.rank]
    # the more often, the smaller the number
    codes = np.repeat(tokens, [3, 2, 1])[:, None]
    numbers = layers.IntegerLookup(max_tokens=4)
    numbers.adapt(codes)
    _fit(_compiled(numbers, layers.Rescaling(1.0), dtype="int64"), codes[:2])
    assert same_everywhere(world, [int(token) for token in numbers.get_vocabulary()]) == [
        -1,
        10,
        20,
        30,
    ]
    words = layers.TextVectorization(max_tokens=5, output_mode="tf_idf", pad_to_max_tokens=True)
    words.adapt([["b a a", "a"], ["b c", "b"]][world.rank % 2])
    model = keras.Sequential([keras.Input((), dtype="string"), words])
    model.compile(hvd.DistributedOptimizer(keras.optimizers.SGD(0.0)))
    share_state(model, model.optimizer)
    assert words.get_vocabulary() == ["[UNK]", "a", "b"]
    # tf.idf of "a", in 2 of the root's 2 texts: log(1 + 2 / (1 + 2))
    found = model(tf.constant(["a"])).numpy()
    np.testing.assert_allclose(found, [[0, np.log(1 + 2 / 3), 0, 0, 0]], rtol=1e-6)
    if not world.is_root:
        assert "was not what rank 0 had" in caplog.text


def test_a_root_that_has_adapted_nothing_is_named(world: World) -> None:
    layer = layers.StringLookup(max_tokens=4)
    if not world.is_root:
        layer.adapt(np.array(["a", "b"]))
    model = keras.Sequential([keras.Input((1,), dtype="string"), layer])
    model.compile(hvd.DistributedOptimizer(keras.optimizers.SGD(0.0)))
    if world.size > 1:
        with pytest.raises(Exception, match="rank 0 has not adapted its layer"):
            share_state(model, model.optimizer)


def test_boundaries_of_bins_are_the_roots_and_survive_where_they_were_loaded(world: World) -> None:
    layer = layers.Discretization(num_bins=2)
    layer.adapt(DATA + 10 * world.rank)
    loaded = layers.Discretization.from_config(layer.get_config())
    model = _compiled(loaded)
    share_state(model, model.optimizer)
    edges = same_everywhere(world, [float(edge) for edge in loaded.bin_boundaries])
    if world.is_root:
        assert edges == [float(edge) for edge in layer.bin_boundaries]
    assert len(edges) == 1


class Unlisted(keras.layers.Layer):  # type: ignore[misc]  # keras ships no types
    """Holds TensorFlow's own variables, which Keras does not list."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.factor = tf.Variable(value)
        self.more = [tf.Variable(value), tf.Variable("text")]

    def call(self, x: Any) -> Any:
        """Multiplies."""
        return x * self.factor * self.more[0]


def test_variables_that_keras_does_not_list_are_the_roots(world: World) -> None:
    model = _compiled(Unlisted(3.0 + world.rank))
    assert len(unlisted_variables(model)) == 2
    _fit(model, DATA)
    assert float(model(np.ones((1, 1), "float32"))[0, 0]) == 9.0


def test_nothing_is_traced_anew_where_nothing_has_changed(world: World) -> None:
    layer = layers.Normalization()
    layer.adapt(DATA)
    model = _compiled(layer)
    _fit(model, DATA)
    trained, tested = model.train_function, model.test_function
    _fit(model, DATA)
    assert model.train_function is trained
    assert model.test_function is tested


def test_an_elastic_state_is_taken_over_whole(world: World) -> None:
    layer = layers.Normalization()
    layer.adapt(DATA + 10 * world.rank)
    model = _compiled(layer)
    hvd.elastic.KerasState(model).sync()
    assert float(model(np.array([[4.0]], "float32"))[0, 0]) == 2.0
