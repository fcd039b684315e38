"""Plain Keras reads our model files and we read plain Keras's; a torn file is never used."""

import json
import os
import sys
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import hvd_xai.keras as hvd
from hvd_xai.errors import CheckpointError
from hvd_xai.keras.distribute import is_distributed, reduce_before_overflow_check
from hvd_xai.keras.model_files import (
    Trained,
    load_state,
    publish_model,
    read_trained,
    seed_states,
    set_seed_states,
    stage_model,
)
from hvd_xai.ranks.world import World
from tests import processes


class Quick(keras.optimizers.RMSprop):  # type: ignore[misc]  # keras ships no types
    """An optimizer that a user wrote."""


def _save(model: keras.Model, folder: Path, trained: Trained) -> Path:
    stage_model(model, folder, trained)
    return publish_model(folder, trained.epoch)


def _trained(optimizer: keras.optimizers.Optimizer, units: int = 3) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(units), keras.layers.Dropout(0.5)]
    )
    model.compile(hvd.DistributedOptimizer(optimizer), "mse")
    random = np.random.default_rng(0)
    model.fit(random.normal(size=(6, 4)), random.normal(size=(6, units)), batch_size=2, verbose=0)
    return model


def _equal(ours: keras.Model, theirs: keras.Model) -> None:
    """Keras leaves the states of seed generators out of its files; those of a run have them."""
    for a, b in zip(
        [*ours.weights, *ours.optimizer.variables],
        [*theirs.weights, *theirs.optimizer.variables],
        strict=True,
    ):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def _per_path() -> keras.optimizers.Optimizer:
    optimizers = keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1))
    optimizers["bias"] = keras.optimizers.Adam(0.01)
    return keras.optimizers.MultiOptimizer(optimizers)


SAVED: dict[str, tuple[keras.optimizers.Optimizer, dict[str, Any]]] = {
    "adam": (keras.optimizers.Adam(0.01, use_ema=True), {}),
    "schedule": (
        keras.optimizers.SGD(
            keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5), momentum=0.9
        ),
        {},
    ),
    "passes": (
        keras.optimizers.Adam(0.01),
        {"backward_passes_per_step": 2, "compression": hvd.Compression.fp16},
    ),
    "accumulation": (keras.optimizers.Adam(0.01, gradient_accumulation_steps=2), {}),
    "loss_scale": (
        keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
        ),
        {},
    ),
    "multi": (_per_path(), {}),
    "mixed_float16": (keras.optimizers.SGD(0.1, momentum=0.9), {}),
}
KINDS = {
    "loss_scale": "LossScaleOptimizer",
    "mixed_float16": "LossScaleOptimizer",
    "multi": "MultiOptimizer",
    "schedule": "SGD",
}

PLAIN = """
import sys
sys.modules["hvd_xai"] = sys.modules["horovod"] = None  # neither can be imported
from pathlib import Path
import keras
import numpy as np
for path in Path(sys.argv[1]).glob("*.keras"):
    # Keras wraps by the policy of now
    keras.config.set_dtype_policy("mixed_float16" if path.stem == "mixed_float16" else "float32")
    model = keras.saving.load_model(path)
    expected = np.load(path.with_suffix(".npz"))
    found = [*model.weights, *model.optimizer.variables]
    assert len(found) == len(expected), path
    for variable, name in zip(found, expected, strict=True):
        where = f"{path.stem} {variable.path}"
        np.testing.assert_array_equal(variable.numpy(), expected[name], err_msg=where)
    loaded = [type(part) for part in (*model.layers, model.optimizer)]
    kinds = [f"{kind.__module__}.{kind.__name__}" for kind in loaded]
    assert all(kind.startswith("keras.src.") for kind in kinds), kinds
    print(path.stem, kinds[-1].split(".")[-1])
model.train_on_batch(np.ones((2, 4)), np.ones((2, 3)))
"""


def test_saved_models_load_where_hvd_xai_cannot_be_imported(world: World, tmp_path: Path) -> None:
    for name, (optimizer, options) in SAVED.items():
        keras.config.set_dtype_policy("mixed_float16" if name == "mixed_float16" else "float32")
        try:
            model = keras.Sequential(
                [
                    keras.Input((4,)),
                    keras.layers.Dense(3),
                    hvd.SyncBatchNormalization(),
                    keras.layers.Dropout(0.5),
                ]
            )
            model.compile(hvd.DistributedOptimizer(optimizer, **options), "mse")
        finally:
            keras.config.set_dtype_policy("float32")
        if name == "mixed_float16":
            reduce_before_overflow_check(model.optimizer)
        for _ in range(3):
            model.optimizer.apply(
                [tf.ones(variable.shape) for variable in model.trainable_variables],
                model.trainable_variables,
            )
        model.save(tmp_path / f"{name}.keras")
        np.savez(
            tmp_path / f"{name}.npz",
            *[variable.numpy() for variable in (*model.weights, *model.optimizer.variables)],
        )
    if world.is_root:
        words = [sys.executable, "-c", PLAIN, str(tmp_path)]
        ended = processes.run(words, cwd=tmp_path)
        assert ended.code == 0, ended.stderr[-4000:]
        assert dict(line.split() for line in ended.stdout.splitlines() if line) == {
            name: KINDS.get(name, "Adam") for name in SAVED
        }


@pytest.mark.parametrize("how", ["built in", "custom_optimizers", "custom_objects"])
def test_load_model_takes_up_the_optimizer_and_reduces(
    world: World, tmp_path: Path, how: str
) -> None:
    model = _trained(keras.optimizers.Adam(0.01) if how == "built in" else Quick(0.01))
    model.save(tmp_path / "m.keras")
    given: dict[str, Any] = {
        "built in": {},
        "custom_optimizers": {"custom_optimizers": [Quick]},
        "custom_objects": {"custom_objects": {"Quick": Quick}},
    }
    loaded = hvd.load_model(tmp_path / "m.keras", **given[how], compression=hvd.Compression.none)
    assert is_distributed(loaded.optimizer)
    assert type(loaded.optimizer).__name__ == ("Adam" if how == "built in" else "Quick")
    _equal(model, loaded)
    x, y = np.full((2, 4), world.rank + 1.0), np.ones((2, 3))
    loaded.fit(x, y, verbose=0, callbacks=[hvd.callbacks.BroadcastGlobalVariablesCallback(0)])
    assert (
        len(
            {
                str(entry)
                for entry in world.allgather("testing", loaded.layers[0].kernel.numpy().tolist())
            }
        )
        == 1
    )


def test_a_model_that_only_the_root_has_loaded_comes_to_all(world: World, tmp_path: Path) -> None:
    model = _trained(keras.optimizers.SGD(0.01, momentum=0.9))
    model.save(tmp_path / "m.keras")
    again = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dropout(0.5)])
    if world.is_root:
        again = hvd.load_model(tmp_path / "m.keras")
    else:
        again.compile(hvd.DistributedOptimizer(keras.optimizers.SGD(0.5, momentum=0.9)), "mse")
    again.fit(
        np.ones((2, 4)),
        np.ones((2, 3)),
        steps_per_epoch=1,
        epochs=0,
        verbose=0,
        callbacks=[hvd.callbacks.BroadcastGlobalVariablesCallback(0)],
    )
    np.testing.assert_array_equal(again.layers[0].kernel.numpy(), model.layers[0].kernel.numpy())
    np.testing.assert_array_equal(
        again.optimizer.momentums[0].numpy(), model.optimizer.momentums[0].numpy()
    )
    assert int(again.optimizer.iterations) == 3


def test_a_run_goes_on_from_the_newest_whole_file(world: World, tmp_path: Path) -> None:
    model = _trained(keras.optimizers.Adam(0.01))
    for epoch in range(2):
        _save(
            model, tmp_path, Trained(epoch, 3, world.size, 0.01, [seed_states(model)] * world.size)
        )
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-000001.keras"]
    (tmp_path / ".writing-epoch-000002.keras").write_bytes(b"torn")  # as a killed job leaves it
    (tmp_path / "notes.keras").write_bytes(b"a user's")
    found = read_trained(tmp_path)
    assert found == Trained(1, 3, world.size, 0.01, [seed_states(model)] * world.size)
    other = _trained(keras.optimizers.Adam(0.01))
    other.layers[0].kernel.assign(np.zeros((4, 3)))
    set_seed_states(other, [[7, 7]])
    load_state(other, tmp_path, found)
    _equal(model, other)
    set_seed_states(other, [[1, 2]])
    assert seed_states(other) == [[1, 2]]
    _save(model, tmp_path, Trained(2, 3, world.size, 0.01, []))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-000002.keras", "notes.keras"]


def test_a_damaged_or_foreign_file_is_refused(world: World, tmp_path: Path) -> None:
    model = _trained(keras.optimizers.Adam(0.01))
    path = _save(model, tmp_path, Trained(0, 3, world.size, 0.01, []))
    whole = path.read_bytes()
    for damaged in (whole[:-50], whole[:300] + bytes(300) + whole[600:], b""):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="damaged"):
            read_trained(tmp_path)
    model.save(path)
    with pytest.raises(CheckpointError, match="was not saved by a run"):
        read_trained(tmp_path)
    good = asdict(Trained(0, 3, world.size, 0.01, []))
    forgeries: list[dict[str, object]] = [
        {"size": 0},
        {"epoch": "0"},
        {"learning_rate": []},
        {"seeds": None},
        {"seeds": [[["a"]]] * world.size},
    ]
    for forged in forgeries:
        model.save(path)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("hvd_xai.json", json.dumps({**good, **forged}))
        with pytest.raises(CheckpointError, match="was not saved by a run"):
            read_trained(tmp_path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match="it is no plain file"):
        read_trained(tmp_path)


def test_another_model_or_optimizer_is_refused(world: World, tmp_path: Path) -> None:
    trained = Trained(0, 3, world.size, 0.01, [])
    _save(_trained(keras.optimizers.Adam(0.01)), tmp_path, trained)
    with pytest.raises(CheckpointError, match="another than the recipe now builds"):
        load_state(_trained(keras.optimizers.Adam(0.01), units=5), tmp_path, trained)
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dropout(0.5)])
    other.compile(keras.optimizers.SGD(0.01), "mse")
    other.optimizer.build(other.trainable_variables)
    with (
        pytest.warns(UserWarning, match="Skipping variable loading"),
        pytest.raises(CheckpointError, match=r"optimizer of .* is another"),
    ):
        load_state(other, tmp_path, trained)
