"""Keras's own callbacks decide alike on all ranks, and write values of all ranks."""

import csv
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.ranks.world import World
from tests.launched.fitting import (
    WORSE_FROM,
    Callbacks,
    first_callbacks,
    fit_scripted,
    loss_on,
    make_model,
    same_everywhere,
)


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


def test_early_stopping_goes_by_the_mean_of_all_ranks(world: World) -> None:
    early = keras.callbacks.EarlyStopping("loss", patience=2, restore_best_weights=True)
    history = fit_scripted(world, loss_on(world), [early])
    assert same_everywhere(world, [len(history.history["loss"]), early.best_epoch]) == [
        WORSE_FROM + 2,
        WORSE_FROM - 1,
    ]


def test_reducing_the_learning_rate_goes_by_the_mean_of_all_ranks(world: World) -> None:
    reduce = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=2)
    rates = fit_scripted(world, loss_on(world), [reduce], epochs=6).history["learning_rate"]
    assert same_everywhere(world, rates) == [1.0] * (WORSE_FROM + 2) + [0.5]


def test_learning_rate_scheduler_sets_all_ranks_alike(world: World) -> None:
    rates = fit_scripted(
        world,
        loss_on(world),
        [keras.callbacks.LearningRateScheduler(lambda epoch: 1 / (epoch + 1))],
        epochs=3,
    ).history
    assert same_everywhere(world, rates["learning_rate"]) == pytest.approx([1, 1 / 2, 1 / 3])


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
    history = fit_scripted(
        world, loss_on(world), writers if world.is_root or on_all_ranks else [], epochs=5
    ).history
    mean = [
        50.0 - epoch + (100.0 / world.size if epoch >= WORSE_FROM else 0.0) for epoch in range(5)
    ]
    assert same_everywhere(world, history["loss"]) == pytest.approx(mean, rel=1e-6)
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

    alone, together = (
        make_model(),
        make_model(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5)),
    )
    alone.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5), "mse")
    expected, found = (
        fit(alone, [x, y], batch * world.size, []),
        fit(together, mine, batch, first_callbacks()),
    )
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=1e-5)
    for a, b in zip(alone.get_weights(), together.get_weights(), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-6)
    same_everywhere(world, [weight.tolist() for weight in together.get_weights()])


def test_backup_and_restore_goes_on_on_every_rank(world: World, tmp_path: Path) -> None:
    class Fails(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            if epoch == 2:
                raise RuntimeError("the power is gone")

    random = np.random.default_rng(world.rank)
    x, y = random.normal(size=(8, 5)), random.normal(size=(8, 3))

    def fit(backup: Callbacks) -> list[Any]:
        model = make_model(keras.optimizers.Adam())
        model.fit(
            x,
            y,
            batch_size=4,
            shuffle=False,
            epochs=4,
            verbose=0,
            callbacks=[*first_callbacks(), *backup],
        )
        return [weight.tolist() for weight in model.get_weights()]

    whole = fit([])
    with pytest.raises(RuntimeError, match="power is gone"):
        fit([keras.callbacks.BackupAndRestore(tmp_path / str(world.rank)), Fails()])
    assert (
        same_everywhere(world, fit([keras.callbacks.BackupAndRestore(tmp_path / str(world.rank))]))
        == whole
    )
