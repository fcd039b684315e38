"""Models that `fit` builds begin with the root's weights on all ranks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import hvd_xai.keras as hvd
from hvd_xai import Explain, Probe, RunDirectory
from hvd_xai.keras.callbacks.unbuilt_model import build_for, is_whole
from hvd_xai.ranks.world import World
from tests.launched.fitting import first_callbacks, same_everywhere

layers = keras.layers

SEED = 50
# Dropout has a seed, which is a variable of a model without weights; at this rate it drops nothing.
NO_RATE = 1e-9


def _sequential() -> keras.Model:
    return keras.Sequential(
        [layers.Dense(8, activation="relu"), layers.Dropout(NO_RATE), layers.Dense(3)]
    )


class Subclassed(keras.Model):  # type: ignore[misc]  # keras ships no types
    """Layers that `fit` builds, one of them in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = layers.Dense(8, activation="relu")
        self.dropout = layers.Dropout(NO_RATE)
        self.out = layers.Dense(3)
        self.head = layers.Dense(1)

    def call(self, x: Any, training: bool = False) -> Any:
        """Runs the layers; an auxiliary head adds a loss in training."""
        hidden = self.dropout(self.hidden(x), training=training)
        if training:
            self.add_loss(keras.ops.mean(keras.ops.square(self.head(hidden))))
        return self.out(hidden)


class Own(keras.Model):  # type: ignore[misc]  # keras ships no types
    """A model without `call`, whose training step takes batches in a form of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.net = _sequential()

    def train_step(self, data: Any) -> Any:
        """Trains the network inside."""
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            loss = keras.ops.mean(keras.losses.mean_squared_error(y, self.net(x, training=True)))
        weights = self.net.trainable_weights
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        return {"loss": loss}


def _data(world: World, n_steps: int = 2, batch: int = 4) -> tuple[list[np.ndarray], ...]:
    """Returns the rows of all ranks, step by step, and this rank's."""
    random = np.random.default_rng(5)
    shape = (n_steps, world.size, batch)
    x = random.normal(size=(*shape, 6)).astype("float32")
    y = random.normal(size=(*shape, 3)).astype("float32")
    everything = [array.reshape(-1, array.shape[-1]) for array in (x, y)]
    mine = [array[:, world.rank].reshape(-1, array.shape[-1]) for array in (x, y)]
    return everything, mine


def _fit(model: keras.Model, data: list[np.ndarray], batch: int, callbacks: list[Any]) -> None:
    model.fit(*data, batch_size=batch, epochs=2, shuffle=False, verbose=0, callbacks=callbacks)


@pytest.mark.parametrize("make", [_sequential, Subclassed])
def test_unbuilt_models_train_as_the_roots_would_in_one_process(
    world: World, make: Callable[[], keras.Model]
) -> None:
    everything, mine = _data(world)
    keras.utils.set_random_seed(SEED)
    alone = make()
    alone.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
    _fit(alone, everything, 4 * world.size, [])
    # as it is without a seed: each rank begins elsewhere
    keras.utils.set_random_seed(SEED + world.rank)
    model = make()
    model.compile(hvd.DistributedOptimizer(keras.optimizers.SGD(0.05, momentum=0.9)), "mse")
    _fit(model, mine, 4, first_callbacks())
    assert len(model.weights) == len(alone.weights) >= 4
    for got, want in zip(model.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6)
    same_everywhere(world, [weight.tolist() for weight in model.get_weights()])
    assert len(model.optimizer.variables) == len(alone.optimizer.variables)


def test_a_model_that_only_the_root_has_built_is_built_elsewhere(world: World) -> None:
    _, mine = _data(world)
    model = _sequential()
    model.compile(hvd.DistributedOptimizer(keras.optimizers.Adam(0.01)), "mse")
    if world.is_root:
        model.build((None, 6))
        model.optimizer.build(model.trainable_variables)
    _fit(model, mine, 4, first_callbacks())
    same_everywhere(world, [weight.tolist() for weight in model.get_weights()])


def test_weights_of_a_step_of_ones_own_are_shared_after_it_and_that_is_said(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    _, mine = _data(world)
    keras.utils.set_random_seed(SEED + world.rank)
    model = Own()
    model.compile(hvd.DistributedOptimizer(keras.optimizers.Adam(0.01)))
    _fit(model, mine, 4, [hvd.callbacks.BroadcastGlobalVariablesCallback()])
    same_everywhere(world, [weight.tolist() for weight in model.net.get_weights()])
    assert len(model.optimizer.variables) == 2 + 2 * len(model.net.trainable_weights)
    assert caplog.text.count("made weights in its first training step") == 1


def test_a_model_that_fit_builds_is_explained(world: World, tmp_path: Path) -> None:
    _, mine = _data(world)
    folder = world.from_root("naming the folder", str(tmp_path)) + "/run"
    model = _sequential()
    model.compile(hvd.DistributedOptimizer(keras.optimizers.SGD(0.01)), "mse")
    probe = Probe(np.ones((3, 6), "float32"), np.zeros(3, int))
    explain = Explain(probe, ["saliency"], world=world, run=folder)
    _fit(model, mine, 4, [*first_callbacks(), explain])
    if world.is_root:
        assert RunDirectory(folder).explanations().epochs == [0, 1]


def test_a_loop_of_ones_own_is_told_to_call_the_model_first(world: World) -> None:
    model = _sequential()
    model.compile(hvd.DistributedOptimizer(keras.optimizers.SGD(0.01)), "mse")
    callback = hvd.callbacks.BroadcastGlobalVariablesCallback()
    callback.set_params({"steps": 1, "epochs": 1})
    callback.set_model(model)
    with pytest.raises(ValueError, match=r"call it on one batch, as model\(x\[:1\]\)"):
        callback.on_train_begin()


def test_building_computes_nothing_and_forgives_what_cannot_be_run(world: World) -> None:
    import tensorflow as tf

    model = Subclassed()
    assert not is_whole(model)
    assert model.variables  # the seed of Dropout
    build_for(model, (tf.TensorSpec((None, 6)), tf.TensorSpec((None, 3))))
    assert [len(layer.weights) for layer in (model.hidden, model.out, model.head)] == [2, 2, 2]
    assert model.losses == []
    own = Own()
    build_for(own, (tf.TensorSpec((None, 6)), tf.TensorSpec((None, 3))))
    assert own.weights == []
