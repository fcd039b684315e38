"""Collectives on values and on variables return what they should."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import hvd_xai.keras as hvd
from hvd_xai.ranks.world import World


def test_values_are_reduced_gathered_and_broadcast(world: World) -> None:
    mine = np.array([world.rank + 1.0, 2.0], "float32")
    sums = sum(range(1, world.size + 1))
    np.testing.assert_allclose(hvd.allreduce(mine, name="mine"), [sums / world.size, 2.0])
    np.testing.assert_allclose(
        hvd.allreduce(keras.Variable(mine), op=hvd.Sum), [sums, 2.0 * world.size]
    )
    np.testing.assert_allclose(hvd.allreduce(mine.tolist(), op=hvd.Max), [world.size, 2.0])
    np.testing.assert_allclose(hvd.allreduce(mine, op=hvd.Min), [1.0, 2.0])
    np.testing.assert_allclose(
        hvd.allreduce(mine, op=hvd.Product), [math.factorial(world.size), 2.0**world.size]
    )
    np.testing.assert_allclose(
        hvd.allgather(np.full(world.rank + 1, world.rank)),
        np.repeat(range(world.size), range(1, world.size + 1)),
    )
    np.testing.assert_allclose(hvd.broadcast(mine, world.size - 1), [world.size, 2.0])
    np.testing.assert_allclose(
        hvd.reducescatter(np.arange(world.size, dtype="float32"), op=hvd.Sum),
        [world.rank * world.size],
    )
    assert hvd.broadcast_object({"from": world.rank}, 0) == {"from": 0}


def test_variables_of_keras_and_tensorflow_are_broadcast(world: World) -> None:
    variables = [
        keras.Variable([float(world.rank)], dtype="bfloat16"),
        tf.Variable([world.rank + 1]),
    ]
    hvd.broadcast_variables(variables, root_rank=world.size - 1)
    assert [float(tf.cast(variable, tf.float32)[0]) for variable in variables] == [
        world.size - 1,
        world.size,
    ]
    with pytest.raises(RuntimeError, match="broadcast_variables"):
        hvd.broadcast_global_variables(0)
