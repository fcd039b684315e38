"""The distributed tape returns the gradients of all ranks."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import hvd_xai.keras as hvd
from hvd_xai.ranks.world import World


@pytest.mark.parametrize("kind", [keras.Variable, tf.Variable])
@pytest.mark.parametrize("in_graph", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"op": hvd.Sum},
        {"groups": 1, "gradient_predivide_factor": 2.0},
        {"sparse_as_dense": True},
    ],
)
def test_the_tape_returns_the_gradients_of_all_ranks(
    world: World, kind: Any, in_graph: bool, options: dict[str, Any]
) -> None:
    dense, sparse, unused = (kind(np.array([1.0, 2.0], "float32")) for _ in range(3))

    def gradients() -> list[Any]:
        with tf.GradientTape() as tape:
            loss = (world.rank + 1.0) * (
                tf.reduce_sum(dense**2)
                + tf.reduce_sum(tf.gather(tf.convert_to_tensor(sparse), [0]))
            )
        return list(
            hvd.DistributedGradientTape(tape, **options).gradient(loss, [dense, sparse, unused])
        )

    found = tf.function(gradients, autograph=False)() if in_graph else gradients()
    mean = (world.size + 1) / 2 * (world.size if options.get("op") == hvd.Sum else 1)
    np.testing.assert_allclose(found[0], mean * 2 * np.array([1.0, 2.0]), rtol=1e-6)
    np.testing.assert_allclose(tf.convert_to_tensor(found[1]), [mean, 0.0], rtol=1e-6)
    assert found[2] is None


def test_the_tape_wraps_before_recording_and_takes_any_structure(world: World) -> None:
    variable = keras.Variable(3.0)
    watched = tf.constant(2.0)
    with hvd.DistributedGradientTape(tf.GradientTape(persistent=True)) as tape:
        tape.watch({"watched": watched})
        loss = (world.rank + 1.0) * variable * watched
    found = tape.gradient(loss, {"variable": variable, "watched": watched})
    mean = (world.size + 1) / 2
    assert {name: float(value) for name, value in found.items()} == {
        "variable": 2 * mean,
        "watched": 3 * mean,
    }
    assert float(tape.gradient(loss, variable)) == 2 * mean


@pytest.mark.parametrize("scale", [True, False])
def test_local_sources_keep_their_gradients(world: World, scale: bool) -> None:
    layers = [keras.layers.Dense(1, use_bias=False, kernel_initializer="ones") for _ in range(2)]
    with tf.GradientTape() as tape:
        loss = (world.rank + 1.0) * sum(tf.reduce_sum(layer(tf.ones((1, 1)))) for layer in layers)
    partial = hvd.PartialDistributedGradientTape(
        tape, local_layers=layers[:1], scale_local_gradients=scale
    )
    local, shared = partial.get_local_and_global_gradients(loss, [layer.kernel for layer in layers])
    assert (local[0][0] is layers[0].kernel, shared[0][0] is layers[1].kernel) == (True, True)
    np.testing.assert_allclose(
        np.asarray(local[0][1]), [[(world.rank + 1) / (world.size if scale else 1)]]
    )
    np.testing.assert_allclose(np.asarray(shared[0][1]), [[(world.size + 1) / 2]])
