"""The state of elastic training is committed, restored and synchronised on ranks that stay."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import hvd_xai.keras as hvd
from hvd_xai.keras.elastic import (
    CommitStateCallback,
    KerasState,
)
from hvd_xai.ranks.world import World

OTHERS = [np.array([[1, 2], [3, 4]], np.float32), np.zeros(2, np.float32)]


def _model(value: float, units: int = 2) -> keras.Model:
    """Returns Horovod's own model: two inputs, two outputs, all weights of one value."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(units, activation="softmax")])
    model.set_weights([np.full((2, units), value, np.float32), np.full(units, value, np.float32)])
    return model


def _weights(model: keras.Model) -> list[list[float]]:
    return [weight.tolist() for weight in model.get_weights()]


def _state(world: World) -> KerasState:
    """Returns a state that differs on each rank.

    Its weights are 1 on the root and 2 elsewhere, its batch is 20 + rank, its epoch 10 + rank.
    """
    return KerasState(
        _model(1.0 if world.is_root else 2.0),
        keras.optimizers.Adam(0.001 * (1 + world.rank)),
        batch=20 + world.rank,
        epoch=10 + world.rank,
        seen=[world.rank],
    )


def test_synchronised_state_is_the_roots(world: World) -> None:
    state = _state(world)
    state.sync()
    assert _weights(state.model) == _weights(_model(1.0))
    assert (state.batch, state.epoch, state.seen) == (20, 10, [0])
    assert float(state.optimizer.learning_rate) == pytest.approx(0.001)


def test_restoring_takes_everything_back_to_the_last_commit(world: World) -> None:
    state = _state(world)
    state.sync()
    state.model.set_weights(OTHERS)
    state.optimizer.iterations.assign(7)
    state.batch, state.epoch = 21, 11
    state.seen.append(5)
    state.restore()
    assert _weights(state.model) == _weights(_model(1.0))
    assert int(state.optimizer.iterations) == 0
    assert (state.batch, state.epoch, state.seen) == (20, 10, [0])


def test_a_commit_is_what_is_restored(world: World) -> None:
    state = _state(world)
    state.sync()
    state.model.set_weights(OTHERS)
    state.batch, state.epoch = 21, 11
    state.seen.append(5)
    state.commit()
    state.model.set_weights([np.full_like(weight, 9) for weight in OTHERS])
    state.seen.append(6)
    state.restore()
    assert _weights(state.model) == [weight.tolist() for weight in OTHERS]
    assert (state.batch, state.epoch, state.seen) == (21, 11, [0, 5])


def test_optimizer_state_of_the_root_reaches_ranks_that_never_trained(world: World) -> None:
    model = _model(1.0)
    model.compile(hvd.DistributedOptimizer(keras.optimizers.Adam(0.1)), "mse")
    if world.is_root:  # what the root has moved, and the others have only built
        model.optimizer.build(model.trainable_variables)
        for variable in model.optimizer.variables:
            variable.assign(tf.cast(tf.fill(variable.shape, 3), variable.dtype))
    state = KerasState(model)
    state.sync()
    assert {
        float(value) for variable in model.optimizer.variables for value in np.ravel(variable)
    } == {3.0}


def test_each_rank_keeps_its_own_seeds(world: World) -> None:
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dropout(0.5, seed=world.rank), keras.layers.Dense(2)]
    )
    model.compile("sgd", "mse")
    (seed,) = [variable for variable in model.variables if "seed_generator_state" in variable.path]
    before = np.asarray(seed.value.numpy()).tolist()
    state = KerasState(model)
    state.sync()
    assert np.asarray(seed.value.numpy()).tolist() == before
    seed.assign(seed + 1)
    state.restore()
    assert np.asarray(seed.value.numpy()).tolist() == before


def test_another_model_on_a_rank_is_said_on_all(world: World) -> None:
    state = KerasState(_model(1.0, units=3 if world.rank == 1 else 2), keras.optimizers.SGD())
    if world.size == 1:
        state.sync()
        return
    with pytest.raises(
        ValueError, match=r"rank 0 has .* .2, 2. float32 where rank 1 has .* .2, 3. float32"
    ):
        state.sync()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda: KerasState(keras.Sequential([keras.layers.Dense(2)]), keras.optimizers.SGD()),
            "model.build",
        ),
        (lambda: KerasState(_model(1.0)), "compile the model first"),
        (
            lambda: KerasState(_model(1.0), keras.optimizers.SGD(), commit=1),
            "'commit'; choose another name",
        ),
        (
            lambda: CommitStateCallback(KerasState(_model(1.0), keras.optimizers.SGD()), 0),
            "batches_per_commit must be 1 or more",
        ),
    ],
)
def test_mistakes_are_said_before_anything_is_sent(world: World, make: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()  # type: ignore[operator]  # any of the four


def test_an_attribute_that_is_not_there_says_which_are(world: World) -> None:
    with pytest.raises(
        AttributeError, match=r"no attribute 'epochs'; it was made with: batch, epoch, seen"
    ):
        _ = _state(world).epochs
