"""Optimizers are taken apart and copied with all that they hold."""

import keras
import numpy as np

from hvd_xai.keras.optimizer_parts import accumulates_in_keras, copy_state, with_inner


def trained(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    weight = keras.Variable([1.0, 2.0], name="kernel")
    for _ in range(3):
        optimizer.apply([keras.ops.convert_to_tensor([1.0, -1.0])], [weight])
    return optimizer


def test_an_optimizer_that_wraps_none_is_alone() -> None:
    optimizer = keras.optimizers.SGD()
    assert with_inner(optimizer) == [optimizer]


def test_a_wrapped_optimizer_comes_behind_what_wraps_it() -> None:
    inner = keras.optimizers.SGD()
    outer = keras.optimizers.LossScaleOptimizer(inner)
    assert with_inner(outer) == [outer, inner]


def test_accumulation_is_seen_through_loss_scaling() -> None:
    inner = keras.optimizers.SGD(gradient_accumulation_steps=4)
    assert accumulates_in_keras(inner)
    assert accumulates_in_keras(keras.optimizers.LossScaleOptimizer(inner))
    assert not accumulates_in_keras(keras.optimizers.SGD())


def test_variables_are_copied() -> None:
    one = trained(keras.optimizers.Adam(0.1))
    other = keras.optimizers.Adam.from_config(one.get_config())
    copy_state(one, other)
    assert int(other.iterations) == 3
    for mine, theirs in zip(one.variables, other.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(theirs.numpy()), np.asarray(mine.numpy()))


def test_exceptions_from_weight_decay_are_copied_though_nothing_is_built() -> None:
    one = keras.optimizers.AdamW()
    one.exclude_from_weight_decay(var_names=["bias"])
    other = keras.optimizers.AdamW.from_config(one.get_config())
    copy_state(one, other)
    assert not other.built
    bias, kernel = keras.Variable([1.0], name="bias"), keras.Variable([1.0], name="kernel")
    assert not other._use_weight_decay(bias)
    assert other._use_weight_decay(kernel)
