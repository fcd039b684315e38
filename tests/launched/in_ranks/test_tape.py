"""The distributed tape, and Horovod's collectives on values, on ranks."""

import importlib
import inspect
import math
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


def test_values_are_reduced_gathered_and_broadcast(world: World) -> None:
    mine = np.array([world.rank + 1.0, 2.0], "float32")
    sums = sum(range(1, world.size + 1))
    np.testing.assert_allclose(hvd.allreduce(mine, name="mine"), [sums / world.size, 2.0])
    np.testing.assert_allclose(
        hvd.allreduce(keras.Variable(mine), op=hvd.Sum), [sums, 2.0 * world.size]
    )
    np.testing.assert_allclose(hvd.allreduce(mine.tolist(), op=hvd.Max), [world.size, 2.0])
    np.testing.assert_allclose(hvd.allreduce(mine, op=hvd.Min), [1.0, 2.0])
    np.testing.assert_allclose(
        hvd.allreduce(mine, op=hvd.Product), [math.factorial(world.size), 2.0**world.size]
    )
    np.testing.assert_allclose(
        hvd.allgather(np.full(world.rank + 1, world.rank)),
        np.repeat(range(world.size), range(1, world.size + 1)),
    )
    np.testing.assert_allclose(hvd.broadcast(mine, world.size - 1), [world.size, 2.0])
    np.testing.assert_allclose(
        hvd.reducescatter(np.arange(world.size, dtype="float32"), op=hvd.Sum),
        [world.rank * world.size],
    )
    assert hvd.broadcast_object({"from": world.rank}, 0) == {"from": 0}


def test_variables_of_keras_and_tensorflow_are_broadcast(world: World) -> None:
    variables = [
        keras.Variable([float(world.rank)], dtype="bfloat16"),
        tf.Variable([world.rank + 1]),
    ]
    hvd.broadcast_variables(variables, root_rank=world.size - 1)
    assert [float(tf.cast(variable, tf.float32)[0]) for variable in variables] == [
        world.size - 1,
        world.size,
    ]
    with pytest.raises(RuntimeError, match="broadcast_variables"):
        hvd.broadcast_global_variables(0)


OTHERWISE = {
    "init",  # takes process_sets by name
    "is_version_greater_equal_than",  # of Horovod's own
    "load_model",  # has no legacy_opts: Keras 3 has no legacy optimizers
    "run",  # a decorator, whose argument has another name
    "TensorFlowKerasState",  # the base class of KerasState
}


@pytest.mark.parametrize("part", ["", ".callbacks", ".elastic"])
def test_horovods_names_and_arguments_are_there(world: World, part: str) -> None:
    """So that a script that imports `horovod.tensorflow.keras` changes that line alone."""
    theirs, ours = (
        importlib.import_module(package + part)
        for package in ("horovod.tensorflow.keras", "hvd_xai.keras")
    )
    offered = {
        name: value
        for name, value in vars(theirs).items()
        if callable(value) and not name.startswith("_")
    }
    assert "KerasState" in offered or len(offered) > 4
    for name in offered.keys() - OTHERWISE:
        arguments, had = (
            list(inspect.signature(getattr(module, name)).parameters) for module in (ours, theirs)
        )
        assert arguments[: len(had)] == had, name


def test_horovod_says_how_it_runs(world: World) -> None:
    assert (hvd.rank(), hvd.size(), hvd.cross_rank(), hvd.cross_size()) == (
        world.rank,
        world.size,
        0,
        1,
    )
    assert hvd.is_initialized()
    assert hvd.mpi_enabled() != hvd.gloo_enabled()
    for build in ("mpi", "gloo", "nccl", "ddl", "ccl", "cuda", "rocm"):
        assert getattr(hvd, f"{build}_built")() in (False, True, 0, 1)
    assert hvd.global_process_set.size() == world.size
