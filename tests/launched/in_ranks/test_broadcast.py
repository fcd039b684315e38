"""State, epochs and compilation are put right before training, or refused on all ranks."""

import keras
import numpy as np
import pytest

import hvd_xai.keras as hvd
from hvd_xai.keras.distribute import reduces_after_overflow_check
from hvd_xai.ranks.world import World
from tests.launched.fitting import first_callbacks, make_model, same_everywhere, zeros


def test_broadcast_gives_all_ranks_the_roots_state_but_not_its_seeds(world: World) -> None:
    keras.utils.set_random_seed(world.rank)
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(2), keras.layers.Dropout(0.5)]
    )
    model.compile(
        hvd.DistributedOptimizer(keras.optimizers.Adam(0.001 * (world.rank + 1))),
        "mse",
        jit_compile=False,
    )
    seeds = [variable for variable in model.variables if "seed_generator_state" in variable.path]
    assert len(seeds) == 1
    before, own = seeds[0].numpy(), model.layers[1].kernel.numpy()
    callback = hvd.callbacks.BroadcastGlobalVariablesCallback(
        0, local_variables=[model.layers[1].kernel]
    )
    callback.set_params({"steps": 1})
    callback.set_model(model)
    if world.is_root:
        # as that of a model that only the root has loaded
        model.optimizer.build(model.trainable_variables)
    callback.on_train_begin()
    same_everywhere(world, model.layers[0].kernel.numpy().tolist())
    same_everywhere(world, float(model.optimizer.learning_rate))
    np.testing.assert_array_equal(before, seeds[0].numpy())
    np.testing.assert_array_equal(own, model.layers[1].kernel.numpy())


def test_what_is_no_variable_cannot_be_local(world: World) -> None:
    with pytest.raises(TypeError, match="must be variables"):
        hvd.callbacks.BroadcastGlobalVariablesCallback(0, "", ["kernel"])


@pytest.mark.parametrize("what", ["initial_epoch", "epochs"])
def test_ranks_that_train_other_epochs_are_refused(world: World, what: str) -> None:
    if world.size == 1:
        return
    with pytest.raises(ValueError, match="different numbers of epochs"):
        make_model().fit(
            *zeros(), verbose=0, callbacks=first_callbacks(), **{"epochs": 9, what: 5 + world.rank}
        )


def test_jit_compile_is_turned_off_with_a_message(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    model = make_model()
    model.compile(hvd.DistributedOptimizer(keras.optimizers.SGD(0.1)), "mse", jit_compile=True)
    model.fit(*zeros(), verbose=0, callbacks=first_callbacks())
    assert model.jit_compile is False
    assert "jit_compile is turned off" in caplog.text


def test_loss_scaling_around_the_reduction_is_put_right(world: World) -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = make_model()
        model.fit(*zeros(), verbose=0, callbacks=first_callbacks())
    finally:
        keras.config.set_dtype_policy("float32")
    assert hasattr(model.optimizer, "inner_optimizer")
    assert not reduces_after_overflow_check(model.optimizer)
