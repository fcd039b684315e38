"""Every row counts once in an epoch, and no rank steps more often than the others."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import hvd_xai.keras as hvd
from hvd_xai.errors import PeerError
from hvd_xai.ranks.world import World
from tests.launched.rows_under_test import Batches, draw_rows, gather_targets

ROUNDING = 1e-6


def _taken(stream: Any, n: int, first: int = 0) -> list[Any]:
    batches = (
        [stream[first + index] for index in range(n)]
        if isinstance(stream, keras.utils.PyDataset)
        else list(stream.skip(first).take(n))
    )
    return [[np.asarray(part) for part in batch] for batch in batches]


def _sources(kind: str, n: int) -> tuple[Any, ...]:
    x, y = draw_rows(n)
    return {
        "arrays": (x, y),
        "dataset": (tf.data.Dataset.from_tensor_slices((x, y)),),
        "pydataset": (Batches(x, y),),
    }[kind]


@pytest.mark.parametrize("remainder", ["drop", "pad"])
@pytest.mark.parametrize("kind", ["arrays", "dataset", "pydataset"])
def test_every_row_counts_once_an_epoch_in_another_order_and_again_when_resumed(
    world: World, kind: str, remainder: Any
) -> None:
    tf.random.set_seed(world.rank)  # as scripts do, so that ranks drop out other units
    n = 8 * world.size + 2
    size = {} if kind == "pydataset" else {"batch_size": 4}
    stream, n_steps = hvd.batches(
        *_sources(kind, n), world=world, seed=5, remainder=remainder, **size
    )
    assert len({str(steps) for steps in world.allgather("testing", n_steps)}) == 1
    first, second = _taken(stream, n_steps), _taken(stream, n_steps, first=n_steps)
    epochs = [gather_targets(world, first), gather_targets(world, second)]
    for epoch in epochs:
        assert len(set(epoch)) == len(epoch)
        assert len(epoch) >= (
            n
            if remainder == "pad"
            else n - (2 * world.size if kind == "pydataset" else 4 * world.size)
        )
    assert epochs[0] != epochs[1]
    resumed, _ = hvd.batches(
        *_sources(kind, n), world=world, seed=5, remainder=remainder, initial_epoch=1, **size
    )
    for a, b in zip(second, _taken(resumed, n_steps), strict=True):
        for ours, theirs in zip(a, b, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def _trained(
    distributed: bool, data: Any, n_steps: int | None, epochs: int = 1
) -> list[np.ndarray]:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    optimizer = keras.optimizers.SGD(0.1, momentum=0.5)
    model.compile(hvd.DistributedOptimizer(optimizer) if distributed else optimizer, "mse")
    callbacks = [hvd.callbacks.BroadcastGlobalVariablesCallback(0)] if distributed else []
    model.fit(
        data, steps_per_epoch=n_steps, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks
    )
    weights: list[np.ndarray] = model.get_weights()
    return weights


@pytest.mark.parametrize("kind", ["arrays", "dataset", "pydataset"])
def test_padded_batches_train_as_one_process_with_a_smaller_last_batch(
    world: World, kind: str
) -> None:
    n = 4 * world.size + 2
    size = {} if kind == "pydataset" else {"batch_size": 2}
    stream, n_steps = hvd.batches(*_sources(kind, n), world=world, remainder="pad", **size)
    assert n_steps == 3
    whole = []
    for batch in _taken(stream, 2 * n_steps):
        counts = batch[2] > 0
        parts: list[Any] = [world.allgather("testing", part[counts].tolist()) for part in batch[:2]]
        whole.append(
            [np.array([row for rank in part for row in rank], "float32") for part in parts]
        )
    alone = _trained(False, (tuple(batch) for batch in whole), n_steps, epochs=2)
    for a, b in zip(alone, _trained(True, stream, n_steps, epochs=2), strict=True):
        np.testing.assert_allclose(a, b, atol=ROUNDING)


def test_ranks_with_other_numbers_of_batches_join_to_one_process(world: World) -> None:
    counts = [3 + 2 * rank for rank in range(world.size)]
    random = np.random.default_rng(4)
    x = [random.normal(size=(count, 2, 3)).astype("float32") for count in counts]
    mine = x[world.rank]
    stream, n_steps = hvd.join_batches(
        tf.data.Dataset.from_tensor_slices((mine, mine.sum(axis=2, keepdims=True))), world=world
    )
    assert n_steps == max(counts)
    together = [
        np.concatenate([rows[step] for rows in x if step < len(rows)]) for step in range(n_steps)
    ]
    alone = _trained(
        False, ((rows, rows.sum(axis=1, keepdims=True)) for rows in together * 2), n_steps, epochs=2
    )
    for a, b in zip(alone, _trained(True, stream, n_steps, epochs=2), strict=True):
        np.testing.assert_allclose(a, b, atol=ROUNDING)


def test_a_rank_without_a_batch_is_an_error_on_all(world: World) -> None:
    dataset = (
        tf.data.Dataset.from_tensor_slices(draw_rows(4))
        .batch(2)
        .take(0 if world.rank == world.size - 1 else 2)
    )
    with pytest.raises(PeerError if world.size > 1 else ValueError, match="this rank has no batch"):
        hvd.join_batches(dataset, world=world)


@pytest.mark.parametrize(
    ("data", "options", "error", "message"),
    [
        (tf.data.Dataset.range(4).repeat(), {"batch_size": 1}, ValueError, "never ends"),
        (tf.data.Dataset.range(4), {}, ValueError, "needs batch_size"),
        (
            tf.data.Dataset.range(4),
            {"batch_size": 1, "remainder": "pad"},
            TypeError,
            "must give .inputs, targets",
        ),
        (np.zeros(0), {"batch_size": 1}, ValueError, "0 training examples"),
    ],
)
def test_data_that_cannot_be_shared_is_refused(
    world: World, data: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        hvd.batches(data, world=world, **options)


def test_rows_weigh_in_double_precision_where_keras_trains_in_it(world: World) -> None:
    n_rows, together = 2 * world.size - 1, 2 * world.size
    keras.config.set_floatx("float64")
    try:
        padded, _ = hvd.batches(
            np.zeros((n_rows, 3)), np.zeros(n_rows), batch_size=2, remainder="pad"
        )
        weights = next(iter(padded))[2].numpy()
    finally:
        keras.config.set_floatx("float32")
    assert weights[0] == together / n_rows
