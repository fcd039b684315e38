"""Synchronised batch normalisation equals that of one process on all ranks' rows."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import hvd_xai.keras as hvd
from hvd_xai.ranks.world import World

ROUNDING = 2e-6  # of values near 1; float32, with statistics summed in another order


def _uneven(world: World, far: float = 0.0) -> tuple[np.ndarray, slice]:
    """Returns the rows of all ranks, and which of them are this rank's: 2, 5, 8, ... rows."""
    counts = [2 + 3 * rank for rank in range(world.size)]
    ends = np.cumsum(counts)
    rows = np.random.default_rng(1).normal(size=(ends[-1], 3, 4)).astype("float32") + far
    return rows, slice(ends[world.rank] - counts[world.rank], ends[world.rank])


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("axis", [-1, 1])
def test_outputs_gradients_and_statistics_are_those_of_the_whole_batch(
    world: World, axis: int, masked: bool, graph: bool
) -> None:
    if masked and axis == 1:
        return  # Keras masks the last axis' elements only
    x, mine = _uneven(world)
    random = np.random.default_rng(2)
    slopes = random.normal(size=x.shape).astype("float32")
    mask = random.random(x.shape[:2]) < 0.6 if masked else np.ones(x.shape[:2], bool)

    def step(layer: keras.layers.Layer, rows: slice) -> list[np.ndarray]:
        def run(
            values: tf.Tensor, mask: tf.Tensor, slopes: tf.Tensor
        ) -> tuple[tf.Tensor, list[tf.Tensor]]:
            with tf.GradientTape() as tape:
                tape.watch(values)
                outputs = (
                    layer(values, training=True, mask=mask)
                    if masked
                    else layer(values, training=True)
                )
                score = tf.reduce_sum(slopes * tf.square(outputs))
            return outputs, tape.gradient(score, [values, layer.gamma.value, layer.beta.value])

        layer.build(x.shape)
        layer.gamma.assign(random_gamma)
        called = tf.function(run, autograph=False) if graph else run
        outputs, gradients = called(
            tf.constant(x[rows]), tf.constant(mask[rows]), tf.constant(slopes[rows])
        )
        return [value.numpy() for value in (outputs, *gradients)]

    random_gamma = random.normal(size=(x.shape[axis],)).astype("float32")
    alone, together = (
        keras.layers.BatchNormalization(axis=axis),
        hvd.SyncBatchNormalization(axis=axis),
    )
    outputs, slope, *weights = step(alone, slice(None))
    ours, our_slope, *our_weights = step(together, mine)
    np.testing.assert_allclose(ours, outputs[mine], atol=ROUNDING)
    np.testing.assert_allclose(our_slope, slope[mine], atol=10 * ROUNDING)
    summed = [
        np.sum([np.array(part) for part in world.allgather("testing", weight.tolist())], axis=0)
        for weight in our_weights
    ]
    for a, b in zip(summed, weights, strict=True):
        np.testing.assert_allclose(a, b, atol=20 * ROUNDING)
    np.testing.assert_allclose(
        together.moving_mean.numpy(), alone.moving_mean.numpy(), atol=ROUNDING
    )
    np.testing.assert_allclose(
        together.moving_variance.numpy(), alone.moving_variance.numpy(), atol=ROUNDING
    )


def test_values_far_from_zero_keep_their_variance(world: World) -> None:
    x, mine = _uneven(world, far=1000.0)
    layer = hvd.SyncBatchNormalization(momentum=0.0)
    layer(x[mine], training=True)
    np.testing.assert_allclose(
        layer.moving_variance.numpy(), x.astype("float64").var(axis=(0, 1)), rtol=1e-3
    )


def _model(normalisation: type[keras.layers.Layer]) -> keras.Model:
    keras.utils.set_random_seed(0)
    shared = normalisation(momentum=0.5)
    inputs = keras.Input((4,))
    hidden = shared(keras.layers.Dense(6)(inputs))
    hidden = keras.layers.Activation("tanh")(shared(keras.layers.Dense(6)(hidden)))
    return keras.Model(inputs, keras.layers.Dense(2)(hidden))


def test_ranks_train_as_one_process_on_the_concatenated_batch(world: World, tmp_path: Path) -> None:
    n, batch = 3, 4
    random = np.random.default_rng(3)
    x, y = (
        random.normal(size=(n * batch * world.size, 4)).astype("float32"),
        random.normal(size=(n * batch * world.size, 2)).astype("float32"),
    )
    alone, together = _model(keras.layers.BatchNormalization), _model(hvd.SyncBatchNormalization)
    # checking types draws from Python's random numbers, as Keras does for its seeds
    together.set_weights(alone.get_weights())
    alone.compile(keras.optimizers.SGD(0.1), "mse")
    alone.fit(x, y, batch_size=batch * world.size, shuffle=False, verbose=0)
    together.compile(hvd.DistributedOptimizer(keras.optimizers.SGD(0.1)), "mse")
    for _ in range(world.rank):
        # Keras's counters differ now; the names on the wire must not
        _model(keras.layers.BatchNormalization)
    rows = [
        array.reshape(n, world.size, batch, -1)[:, world.rank].reshape(n * batch, -1)
        for array in (x, y)
    ]
    state = hvd.callbacks.BroadcastGlobalVariablesCallback(0)
    together.fit(*rows, batch_size=batch, shuffle=False, verbose=0, callbacks=[state])
    for a, b in zip(alone.get_weights(), together.get_weights(), strict=True):
        np.testing.assert_allclose(b, a, atol=5 * ROUNDING)
    _saves_and_loads(together, x, tmp_path / "model.keras")


def _saves_and_loads(model: keras.Model, x: np.ndarray, path: Path) -> None:
    model.save(path)
    expected = model.predict(x, verbose=0)
    again = keras.saving.load_model(path)
    assert isinstance(again.layers[2], hvd.SyncBatchNormalization)
    np.testing.assert_array_equal(again.predict(x, verbose=0), expected)


def test_a_rank_that_traces_more_often_still_meets_the_others(world: World) -> None:
    layer = hvd.SyncBatchNormalization(momentum=0.0)
    layer.build((None, 2))
    step = tf.function(lambda values: layer(values, training=True), autograph=False)
    for size in (4, 4 + world.rank, 4):  # another shape on each rank but the root: another trace
        step(tf.ones((size, 2)))
    total = sum(4 * (rank + 1) for rank in range(world.size))
    step(tf.fill((4, 2), float(4 * (world.rank + 1))))
    np.testing.assert_allclose(layer.moving_mean.numpy(), total / world.size)


def test_what_keras_synchronises_itself_is_refused(world: World) -> None:
    with pytest.raises(ValueError, match="already"):
        hvd.SyncBatchNormalization(synchronized=True).build((None, 3))
