"""Loss scaling around and inside distributed optimizers, on ranks of which one overflows."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import hvd_xai.keras as hvd
from hvd_xai.keras.distribute import reduce_before_overflow_check
from hvd_xai.ranks.world import World


def test_an_overflow_on_one_rank_skips_the_step_on_all(world: World) -> None:
    for accumulation in (None, 2):
        inner = keras.optimizers.SGD(0.1, gradient_accumulation_steps=accumulation)
        optimizer = hvd.DistributedOptimizer(
            keras.optimizers.LossScaleOptimizer(inner, initial_scale=1024.0)
        )
        _overflow_on_the_root(world, optimizer)


def test_loss_scaling_that_keras_has_put_around_the_reduction_is_put_right(world: World) -> None:
    for accumulation in (None, 2):
        inner = hvd.DistributedOptimizer(
            keras.optimizers.SGD(0.1, gradient_accumulation_steps=accumulation)
        )
        around = keras.optimizers.LossScaleOptimizer(inner, initial_scale=1024.0)
        reduce_before_overflow_check(around)
        assert type(around).__name__ == "LossScaleOptimizer"
        _overflow_on_the_root(world, around)


def _overflow_on_the_root(world: World, optimizer: keras.optimizers.LossScaleOptimizer) -> None:
    variable = keras.Variable(np.ones(3, "float32"))
    optimizer.build([variable])
    step = tf.function(lambda gradient: optimizer.apply([gradient], [variable]), autograph=False)
    step(tf.constant([np.inf if world.rank == 0 else 1.0, 1.0, 1.0]))
    np.testing.assert_array_equal(variable.numpy(), np.ones(3))
    assert world.allgather("testing", float(optimizer.dynamic_scale)) == [512.0] * world.size
    for _ in range(2):
        step(tf.constant([0.0, 512.0, 512.0 * 2 * world.rank]))
    n_updates = 1 if optimizer.inner_optimizer.gradient_accumulation_steps else 2
    np.testing.assert_allclose(
        variable.numpy(), 1 - 0.1 * n_updates * np.array([0, 1, world.size - 1]), rtol=1e-6
    )


def test_loss_scaling_around_the_reduction_is_refused_before_anything_travels(world: World) -> None:
    around = keras.optimizers.LossScaleOptimizer(
        hvd.DistributedOptimizer(keras.optimizers.SGD(0.1))
    )
    with pytest.raises(
        ValueError, match=r"DistributedOptimizer\(keras.optimizers.LossScaleOptimizer"
    ):
        around.apply([tf.ones(3)], [keras.Variable(np.ones(3, "float32"))])


def test_an_infinite_gradient_does_not_outlive_its_step(world: World) -> None:
    optimizer = hvd.DistributedOptimizer(keras.optimizers.SGD(0.1), backward_passes_per_step=2)
    variable = keras.Variable(np.zeros(1, "float32"))
    for gradient in (np.inf, 1.0):
        optimizer.apply([tf.constant([gradient])], [variable])
    assert not np.isfinite(variable.numpy()).all()
    variable.assign([0.0])
    for _ in range(2):
        optimizer.apply([tf.constant([1.0])], [variable])
    np.testing.assert_allclose(variable.numpy(), [-0.2])
