"""Shards do not overlap, and have one size."""

from typing import Any

import numpy as np
import tensorflow as tf

import hvd_xai.keras as hvd
from hvd_xai.ranks.world import World
from tests.launched.rows_under_test import Batches, draw_rows, gather_targets


def test_shards_are_apart_and_of_one_size(world: World) -> None:
    n = 4 * world.size + 1
    x, y = draw_rows(n)
    dealt = world.size * (n // world.size)
    for data in (
        [hvd.shard(x, y, world=world)],
        hvd.shard(
            tf.data.Dataset.from_tensor_slices((x, y)).filter(lambda *_: True).batch(1), world=world
        ),
    ):
        assert sorted(
            gather_targets(world, [[np.asarray(part) for part in batch] for batch in data])
        ) == list(range(dealt))
    batches: Any = hvd.shard(Batches(*draw_rows(2 * n)), world=world)
    assert (
        len(gather_targets(world, [batches[index] for index in range(batches.num_batches)]))
        == 2 * dealt
    )
    dataset: Any = hvd.shard(tf.data.Dataset.range(n), world=world)
    assert int(dataset.cardinality()) == n // world.size
    assert (
        dataset.options().experimental_distribute.auto_shard_policy
        == tf.data.experimental.AutoShardPolicy.OFF
    )
