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


def test_several_broadcasts_and_tapes_of_one_step_do_not_mix(world: World) -> None:
    """In the step itself, in the branch of a condition, and in functions within it."""
    variables = [tf.Variable(10.0 * number + world.rank) for number in range(4)]

    @tf.function  # type: ignore[untyped-decorator]  # tensorflow ships no types
    def slope(of: tf.Tensor) -> tf.Tensor:
        with hvd.DistributedGradientTape(tf.GradientTape()) as tape:
            tape.watch(of)
            loss = (world.rank + 1.0) * of**2
        return tape.gradient(loss, of)

    @tf.function  # type: ignore[untyped-decorator]  # as above
    def step(*, first: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        hvd.broadcast_variables(variables[:1], root_rank=0)
        if first:
            hvd.broadcast_variables(variables[1:2], root_rank=0)
            hvd.broadcast_variables(variables[2:3], root_rank=0)
        else:
            hvd.broadcast_variables(variables[3:], root_rank=0)
        return slope(tf.constant(3.0)), slope(tf.constant([3.0]))[0]

    mean = (world.size + 1) / 2
    first, second = step(first=tf.constant(value=True))
    assert (float(first), float(second)) == (6 * mean, 6 * mean)
    assert [float(variable) for variable in variables] == [0.0, 10.0, 20.0, 30.0 + world.rank]
    step(first=tf.constant(value=False))
    assert float(variables[3]) == 30.0
