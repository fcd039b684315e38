"""State, metrics, learning rates and stops: the same on all ranks, whatever one of them meets.

Keras's own callbacks decide alike.
"""

import csv
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import hvd_xai.keras as hvd
from hvd_xai.keras.callbacks import average_statistics
from hvd_xai.keras.callbacks.stop_vote import VOTE_EVERY
from hvd_xai.keras.distribute import reduces_after_overflow_check
from hvd_xai.ranks.world import World

Callbacks = list[keras.callbacks.Callback]

WORSE_FROM = 3  # the epoch at which the last rank's scripted loss rises


def _model(optimizer: keras.optimizers.Optimizer | None = None) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    model.compile(hvd.DistributedOptimizer(optimizer or keras.optimizers.SGD(0.1)), "mse")
    return model


def _first() -> Callbacks:
    return [
        hvd.callbacks.BroadcastGlobalVariablesCallback(0),
        hvd.callbacks.MetricAverageCallback(),
    ]


def _zeros(n: int = 4) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((n, 5), "float32"), np.zeros((n, 3), "float32")


def _scripted(
    world: World,
    loss_of: Callable[[int], float],
    callbacks: Callbacks,
    epochs: int = 8,
    n_steps: int = 1,
) -> keras.callbacks.History:
    """Trains with the losses that `loss_of` gives for this rank's batches; the weights do not
    move."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(hvd.DistributedOptimizer(keras.optimizers.SGD(1.0)), "mae")

    def stream() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for batch in range(10**6):
            yield np.zeros((2, 1), "float32"), np.full((2, 1), loss_of(batch), "float32")

    history: keras.callbacks.History = model.fit(
        stream(),
        steps_per_epoch=n_steps,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[*_first(), *callbacks],
    )
    return history


def _loss_of(world: World) -> Callable[[int], float]:
    """On all ranks but the last it falls for ever; the mean over the ranks rises at one epoch, and
    falls again."""
    worse = 100.0 if world.rank == world.size - 1 else 0.0
    return lambda epoch: 50.0 - epoch + (worse if epoch >= WORSE_FROM else 0.0)


def _everywhere(world: World, value: Any) -> Any:
    """Returns what all ranks have, which is one."""
    values = world.allgather("testing", value)
    assert len(set(map(str, values))) == 1, values
    return value


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
    _everywhere(world, model.layers[0].kernel.numpy().tolist())
    _everywhere(world, float(model.optimizer.learning_rate))
    np.testing.assert_array_equal(before, seeds[0].numpy())
    np.testing.assert_array_equal(own, model.layers[1].kernel.numpy())


def test_what_is_no_variable_cannot_be_local(world: World) -> None:
    with pytest.raises(TypeError, match="must be variables"):
        hvd.callbacks.BroadcastGlobalVariablesCallback(0, "", ["kernel"])


def test_moving_statistics_are_averaged(world: World) -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization()])
    model.layers[0].moving_mean.assign([float(world.rank), 1.0])
    average_statistics(model)
    np.testing.assert_allclose(model.layers[0].moving_mean.numpy(), [(world.size - 1) / 2, 1.0])


def test_metrics_are_those_of_all_examples_even_over_uneven_shards(world: World) -> None:
    keras.utils.set_random_seed(3)
    random = np.random.default_rng(3)
    x, y = (
        random.normal(size=(48, 5)).astype("float32"),
        random.integers(0, 2, 48).astype("float32"),
    )
    edges = np.cumsum([0, *[4 + 2 * rank for rank in range(world.size - 1)], 48])[: world.size + 1]
    edges[-1] = 48
    mine = slice(edges[world.rank], edges[world.rank + 1])
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1, activation="sigmoid")])
    model.compile(
        hvd.DistributedOptimizer(keras.optimizers.SGD(0.0)),
        "mse",
        metrics=["accuracy", keras.metrics.AUC(name="auc")],
    )
    expected = dict(zip(["loss", "accuracy", "auc"], model.evaluate(x, y, verbose=0), strict=True))
    history = model.fit(
        x[mine],
        y[mine],
        batch_size=64,
        validation_data=(x[mine], y[mine]),
        epochs=2,
        verbose=0,
        callbacks=_first(),
    ).history
    for epoch in range(2):
        for name, value in expected.items():
            assert history[name][epoch] == pytest.approx(value, abs=1e-6)
            assert history[f"val_{name}"][epoch] == pytest.approx(value, abs=1e-6)


def test_warmup_and_schedules_follow_their_closed_forms(world: World) -> None:
    """The sequence of Horovod's own test: five epochs of warm-up, two decays, and a function of the
    epoch."""
    full = 0.1 * world.size
    schedule = hvd.callbacks.LearningRateScheduleCallback
    rates = [
        hvd.callbacks.LearningRateWarmupCallback(initial_lr=full, warmup_epochs=5),
        schedule(initial_lr=full, multiplier=1e-1, start_epoch=5, end_epoch=10),
        schedule(full, 1e-2, 10, 15),
        schedule(full, lambda epoch: epoch, 15, 20, True, True, None),
    ]
    x, y = _zeros(5)
    history = (
        _model(keras.optimizers.Adam())
        .fit(x, y, batch_size=1, epochs=20, verbose=0, callbacks=[*_first(), *rates])
        .history
    )
    k = world.size
    expected = [
        *[full * ((epoch + 1) * (k - 1) / 5 + 1) / k for epoch in range(5)],
        *[full * 0.1 ** (epoch - 5) for epoch in range(5, 10)],
        *[full * 0.01 ** (epoch - 10) for epoch in range(10, 15)],
        *[full * epoch for epoch in range(15, 20)],
    ]
    assert history["lr"] == pytest.approx(expected, rel=1e-5)
    _everywhere(world, history["loss"])


def test_learning_rate_rises_batch_by_batch_to_that_of_all_ranks(world: World) -> None:
    seen: list[float] = []
    full = float(world.size)
    model = _model(keras.optimizers.SGD(full))
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda *_, **__: seen.append(float(model.optimizer.learning_rate))
    )
    warmup = hvd.callbacks.LearningRateWarmupCallback(full, warmup_epochs=1.5)
    model.fit(*_zeros(), batch_size=1, epochs=3, verbose=0, callbacks=[warmup, watch])
    k = world.size
    assert seen == pytest.approx(
        [full / k * (min((step + 1) / 4, 1.5) * (k - 1) / 1.5 + 1) for step in range(12)]
    )


@pytest.mark.parametrize("loss_scale", [False, True])
def test_velocity_is_what_the_new_learning_rate_would_have_built_up(
    world: World, loss_scale: bool
) -> None:
    """Under a gradient of 1, with momentum m, step t leaves the velocity -lr (1 - m^t)/(1 - m),
    whatever lr was before."""
    optimizer = keras.optimizers.SGD(1.0, momentum=0.9)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    whole = (
        keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=1.0)
        if loss_scale
        else optimizer
    )
    model.compile(hvd.DistributedOptimizer(whole), loss=lambda y, predicted: predicted + 0 * y)
    smooth = hvd.callbacks.LearningRateScheduleCallback(
        2.0, lambda epoch: 1 + epoch, staircase=False
    )
    model.fit(
        np.ones((4, 1)), np.ones((4, 1)), batch_size=1, epochs=2, verbose=0, callbacks=[smooth]
    )
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    rate = 2.0 * (1 + 1.75)
    assert float(inner.momentums[0].numpy()[0, 0]) == pytest.approx(
        -rate * (1 - 0.9**8) / (1 - 0.9), rel=1e-5
    )


def test_a_schedule_in_the_optimizer_is_not_overridden(world: World) -> None:
    model = _model(keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)))
    with pytest.raises(TypeError, match="was given a schedule"):
        model.fit(*_zeros(), verbose=0, callbacks=[hvd.callbacks.LearningRateWarmupCallback(1.0)])


def test_early_stopping_goes_by_the_mean_of_all_ranks(world: World) -> None:
    early = keras.callbacks.EarlyStopping("loss", patience=2, restore_best_weights=True)
    history = _scripted(world, _loss_of(world), [early])
    assert _everywhere(world, [len(history.history["loss"]), early.best_epoch]) == [
        WORSE_FROM + 2,
        WORSE_FROM - 1,
    ]


def test_reducing_the_learning_rate_goes_by_the_mean_of_all_ranks(world: World) -> None:
    reduce = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=2)
    rates = _scripted(world, _loss_of(world), [reduce], epochs=6).history["learning_rate"]
    assert _everywhere(world, rates) == [1.0] * (WORSE_FROM + 2) + [0.5]


def test_learning_rate_scheduler_sets_all_ranks_alike(world: World) -> None:
    rates = _scripted(
        world,
        _loss_of(world),
        [keras.callbacks.LearningRateScheduler(lambda epoch: 1 / (epoch + 1))],
        epochs=3,
    ).history
    assert _everywhere(world, rates["learning_rate"]) == pytest.approx([1, 1 / 2, 1 / 3])


def test_nan_on_one_rank_stops_all_at_one_batch(world: World) -> None:
    n_batches = []
    count = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, **_: n_batches.append(batch)
    )
    bad = 5 if world.rank == world.size - 1 else 10**6
    stops = keras.callbacks.TerminateOnNaN()
    history = _scripted(
        world,
        lambda batch: np.nan if batch == bad else 1.0,
        [stops, count],
        epochs=2,
        n_steps=3 * VOTE_EVERY,
    )
    assert _everywhere(world, [len(n_batches), len(history.epoch)]) == [VOTE_EVERY, 1]


def test_a_stop_by_one_rank_at_an_epochs_end_is_one_of_all(world: World) -> None:
    class Stop(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            self.model.stop_training = epoch == 1 and world.rank == world.size - 1

    assert _everywhere(world, len(_scripted(world, _loss_of(world), [Stop()]).epoch)) == 2


@pytest.mark.parametrize("on_all_ranks", [False, True])
def test_what_is_written_is_of_all_ranks(world: World, tmp_path: Path, on_all_ranks: bool) -> None:
    """By the root alone, or by every rank in a folder of its own: the same."""
    logged: list[float] = []
    writers: Callbacks = [
        keras.callbacks.ModelCheckpoint(
            tmp_path / "best-{epoch}.keras", "loss", save_best_only=True
        ),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.TensorBoard(tmp_path / "tensorboard"),
        keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: logged.append(logs["loss"])
        ),
    ]
    history = _scripted(
        world, _loss_of(world), writers if world.is_root or on_all_ranks else [], epochs=5
    ).history
    mean = [
        50.0 - epoch + (100.0 / world.size if epoch >= WORSE_FROM else 0.0) for epoch in range(5)
    ]
    assert _everywhere(world, history["loss"]) == pytest.approx(mean, rel=1e-6)
    if world.is_root or on_all_ranks:
        assert sorted(path.name for path in tmp_path.glob("*.keras")) == [
            "best-1.keras",
            "best-2.keras",
            "best-3.keras",
        ]
        with (tmp_path / "log.csv").open() as file:
            assert [float(row["loss"]) for row in csv.DictReader(file)] == pytest.approx(
                mean, rel=1e-6
            )
        assert _scalars(tmp_path / "tensorboard", "epoch_loss") == pytest.approx(mean, rel=1e-6)
        assert logged == history["loss"]


def _scalars(folder: Path, tag: str) -> list[float]:
    events = (
        event
        for path in sorted(folder.rglob("events.out.tfevents.*"))
        for event in tf.compat.v1.train.summary_iterator(str(path))
    )
    return [
        float(tf.make_ndarray(value.tensor))
        for event in events
        for value in event.summary.value
        if value.tag == tag
    ]


def test_averaged_weights_are_swapped_in_alike(world: World) -> None:
    """SwapEMAWeights with validation and a checkpoint of each epoch, against one process on the
    concatenated batch."""
    random = np.random.default_rng(5)
    n_steps, batch = 3, 2
    x, y = (
        random.normal(size=(n_steps * batch * world.size, width)).astype("float32")
        for width in (5, 3)
    )
    mine = [
        array.reshape(n_steps, world.size, batch, -1)[:, world.rank].reshape(n_steps * batch, -1)
        for array in (x, y)
    ]

    def fit(
        model: keras.Model, data: list[np.ndarray], batch_size: int, first: Callbacks
    ) -> dict[str, list[float]]:
        swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
        options: dict[str, Any] = {
            "validation_data": tuple(data),
            "callbacks": [*first, swap],
            "verbose": 0,
        }
        history: dict[str, list[float]] = model.fit(
            *data, batch_size=batch_size, epochs=3, shuffle=False, **options
        ).history
        return history

    alone, together = _model(), _model(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5))
    alone.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5), "mse")
    expected, found = (
        fit(alone, [x, y], batch * world.size, []),
        fit(together, mine, batch, _first()),
    )
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=1e-5)
    for a, b in zip(alone.get_weights(), together.get_weights(), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-6)
    _everywhere(world, [weight.tolist() for weight in together.get_weights()])


def test_the_best_model_is_saved_by_the_root_alone(world: World, tmp_path: Path) -> None:
    best = hvd.callbacks.BestModelCheckpoint(
        "loss", 0, False, "min", "epoch", filepath=tmp_path / "{epoch}.keras"
    )
    _scripted(world, _loss_of(world), [best], epochs=5)
    assert sorted(path.name for path in tmp_path.iterdir()) == (
        ["1.keras", "2.keras", "3.keras"] if world.is_root else []
    )


def test_backup_and_restore_goes_on_on_every_rank(world: World, tmp_path: Path) -> None:
    class Fails(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            if epoch == 2:
                raise RuntimeError("the power is gone")

    random = np.random.default_rng(world.rank)
    x, y = random.normal(size=(8, 5)), random.normal(size=(8, 3))

    def fit(backup: Callbacks) -> list[Any]:
        model = _model(keras.optimizers.Adam())
        model.fit(
            x, y, batch_size=4, shuffle=False, epochs=4, verbose=0, callbacks=[*_first(), *backup]
        )
        return [weight.tolist() for weight in model.get_weights()]

    whole = fit([])
    with pytest.raises(RuntimeError, match="power is gone"):
        fit([keras.callbacks.BackupAndRestore(tmp_path / str(world.rank)), Fails()])
    assert (
        _everywhere(world, fit([keras.callbacks.BackupAndRestore(tmp_path / str(world.rank))]))
        == whole
    )


@pytest.mark.parametrize("what", ["initial_epoch", "epochs"])
def test_ranks_that_train_other_epochs_are_refused(world: World, what: str) -> None:
    if world.size == 1:
        return
    with pytest.raises(ValueError, match="different numbers of epochs"):
        _model().fit(
            *_zeros(), verbose=0, callbacks=_first(), **{"epochs": 9, what: 5 + world.rank}
        )


def test_a_learning_rate_that_one_rank_changes_is_an_error_on_all(world: World) -> None:
    if world.size == 1:
        return
    changes = [keras.callbacks.LearningRateScheduler(lambda _: 0.5)] if world.is_root else []
    with pytest.raises(ValueError, match=r"rank 0 with 0.5, rank 1 with 1\. "):
        _scripted(world, _loss_of(world), changes)


def test_unequal_steps_are_refused_on_all_ranks(world: World) -> None:
    if world.size == 1:
        return
    with pytest.raises(ValueError, match=r"rank 0: 1, rank 1: 2.*steps_per_epoch=1"):
        _model().fit(*_zeros(4 + 4 * world.rank), batch_size=4, verbose=0, callbacks=_first())


def test_an_epoch_without_a_known_end_is_refused_on_all_ranks(world: World) -> None:
    if world.size == 1:
        return
    batches = (_zeros() for _ in range(4 + world.rank))
    with pytest.raises(ValueError, match=r"not known how many batches.*steps_per_epoch"):
        _model().fit(batches, shuffle=False, verbose=0, callbacks=_first())


def test_different_models_are_refused_and_the_variable_is_named(world: World) -> None:
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3 + world.rank, name="wide")])
    model.compile(hvd.DistributedOptimizer(keras.optimizers.SGD(0.1)), "mse")
    x, y = np.zeros((4, 5), "float32"), np.zeros((4, 3 + world.rank), "float32")
    if world.size == 1:
        return
    with pytest.raises(
        ValueError, match=r"wide/kernel' .5, 3. float32 where rank 1 has .*wide/kernel' .5, 4."
    ):
        model.fit(x, y, batch_size=4, verbose=0, callbacks=_first())


def test_jit_compile_is_turned_off_with_a_message(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    model = _model()
    model.compile(hvd.DistributedOptimizer(keras.optimizers.SGD(0.1)), "mse", jit_compile=True)
    model.fit(*_zeros(), verbose=0, callbacks=_first())
    assert model.jit_compile is False
    assert "jit_compile is turned off" in caplog.text


def test_loss_scaling_around_the_reduction_is_put_right(world: World) -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = _model()
        model.fit(*_zeros(), verbose=0, callbacks=_first())
    finally:
        keras.config.set_dtype_policy("float32")
    assert hasattr(model.optimizer, "inner_optimizer")
    assert not reduces_after_overflow_check(model.optimizer)


def _watches() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "hvd_xai-watch"]


def test_steps_are_watched_while_training_lasts_and_come_out_the_same(world: World) -> None:
    class Look(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            seen.append(len(set(_watches()) - of_others))
            if fails and batch == 1:
                raise OSError("a callback fails on all ranks")

    of_others = set(_watches())
    random = np.random.default_rng(world.rank)
    x, y = (
        random.normal(size=(8, 5)).astype("float32"),
        random.normal(size=(8, 3)).astype("float32"),
    )
    weights = []
    for callbacks in ([*_first(), Look()], []):
        model, fails, seen = _model(), False, list[int]()
        model.jit_compile = False
        model.fit(x, y, batch_size=2, epochs=2, shuffle=False, verbose=0, callbacks=callbacks)
        weights.append(model.get_weights())
        assert {n > 0 for n in seen} <= {world.size > 1}
    np.testing.assert_equal(*weights)

    fails, step = True, model.train_function
    with pytest.raises(OSError, match="on all ranks"):
        model.fit(x, y, batch_size=2, shuffle=False, verbose=0, callbacks=[*_first(), Look()])
    fails = False
    model.fit(x, y, batch_size=2, shuffle=False, verbose=0, callbacks=_first())
    assert model.train_function is step
    for thread in set(_watches()) - of_others:
        thread.join(30)
        assert not thread.is_alive()
