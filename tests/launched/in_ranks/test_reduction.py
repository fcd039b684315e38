"""How gradients that are known numbers are reduced over the ranks, in closed form."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import hvd_xai.keras as hvd
from hvd_xai.errors import PeerError
from hvd_xai.ranks.world import World


class Adding(keras.optimizers.Optimizer):  # type: ignore[misc]  # keras ships no types
    """Adds gradients to variables, so that what was applied can be read from them."""

    def __init__(self, learning_rate: float = 0.1, **options: Any) -> None:
        super().__init__(learning_rate=learning_rate, **options)

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        variable.assign_add(tf.convert_to_tensor(gradient))


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("kind", [keras.Variable, tf.Variable])
def test_passes_are_summed_or_averaged_and_local_variables_keep_their_own(
    world: World, average: bool, kind: Any
) -> None:
    n_passes = 4
    optimizer = hvd.DistributedOptimizer(
        Adding(),
        backward_passes_per_step=n_passes,
        average_aggregated_gradients=average,
        sparse_as_dense=True,
    )
    shared, own = (kind(np.array([1.0, 2.0], "float32"), name=name) for name in ("shared", "own"))
    optimizer.register_local_var(own)

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]  # tensorflow ships no types
    def step() -> None:
        # d loss / d variable = [-(rank + 1), 0], sparse
        pairs = optimizer.compute_gradients(
            lambda: sum(
                tf.reduce_sum(-(world.rank + 1.0) * tf.gather(variable, [0]))
                for variable in (shared, own)
            ),
            [shared, own],
        )
        optimizer.apply_gradients(pairs)

    for index in range(10):
        step()
        scale = (index + 1) // n_passes * (1 if average else n_passes)
        np.testing.assert_allclose(shared.numpy(), [1 - scale * (world.size + 1) / 2, 2], rtol=1e-6)
        np.testing.assert_allclose(
            own.numpy(), [1 - scale * (world.rank + 1) / world.size, 2], rtol=1e-6
        )
        assert int(optimizer.iterations) == index + 1


def test_local_layers_keep_their_gradients_undivided_if_asked(world: World) -> None:
    layers = [keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros") for _ in range(2)]
    for layer in layers:
        layer.build((None, 1))
    optimizer = hvd.PartialDistributedOptimizer(
        Adding(), local_layers=layers[0], scale_local_gradients=False
    )
    optimizer.apply([tf.constant([[world.rank + 1.0]])] * 2, [layer.kernel for layer in layers])
    np.testing.assert_allclose(
        [layer.kernel.numpy().item() for layer in layers], [world.rank + 1, (world.size + 1) / 2]
    )


def test_values_that_overwrite_become_the_largest_of_all_ranks(world: World) -> None:
    for n_passes, accumulation in (1, None), (2, None), (1, 2):
        adding = Adding(gradient_accumulation_steps=accumulation)
        optimizer = hvd.DistributedOptimizer(adding, op=hvd.Sum, backward_passes_per_step=n_passes)
        plain, scale = (
            keras.Variable(np.zeros(1, "float32")),
            keras.Variable(np.zeros(1, "float32")),
        )
        scale.overwrite_with_gradient = True
        for value in (world.rank + 1.0, world.rank + 0.5):
            optimizer.apply([tf.constant([1.0]), tf.constant([value])], [plain, scale])
        assert float(scale.numpy()[0]) == (
            world.size if n_passes > 1 or accumulation else world.size - 0.5
        )


def test_variables_that_are_named_together_travel_together(world: World) -> None:
    variables = [keras.Variable(np.zeros(1, "float32")) for _ in range(3)]
    optimizer = hvd.DistributedOptimizer(Adding(), groups=[[variables[2], variables[0]]])
    optimizer.apply([tf.constant([world.rank + index * 1.0]) for index in range(3)], variables)
    mean = (world.size - 1) / 2
    np.testing.assert_allclose(
        [float(variable.numpy()[0]) for variable in variables], [mean, mean + 1, mean + 2]
    )


def test_variables_of_different_dtypes_are_reduced(world: World) -> None:
    variables = [
        keras.Variable(np.zeros(1), dtype=dtype) for dtype in ("float32", "float64", "bfloat16")
    ]
    optimizer = hvd.DistributedOptimizer(Adding())
    optimizer.apply(
        [tf.constant([float(world.rank)], variable.dtype) for variable in variables], variables
    )
    for variable in variables:
        assert float(tf.cast(variable, tf.float32)[0]) == (world.size - 1) / 2


def test_a_process_set_reduces_over_its_ranks_and_others_keep_their_own(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    evens = list(range(0, world.size, 2))
    if world.size == 1:
        return
    process_set = hvd.add_process_set(evens)
    try:
        for options in (
            {},
            {"op": hvd.Sum},
            {"backward_passes_per_step": 2, "average_aggregated_gradients": True},
        ):
            optimizer = hvd.DistributedOptimizer(Adding(), process_set=process_set, **options)
            variable = keras.Variable(np.zeros(1, "float32"))
            for _ in range(options.get("backward_passes_per_step", 1)):
                optimizer.apply([tf.constant([float(world.rank)])], [variable])
            of_set = sum(evens) / (1 if "op" in options else len(evens))
            assert float(variable.numpy()[0]) == (of_set if world.rank in evens else world.rank)
        with tf.GradientTape() as tape:
            loss = world.rank * variable
        found = hvd.DistributedGradientTape(tape, process_set=process_set).gradient(loss, variable)
        assert float(found[0]) == (sum(evens) / len(evens) if world.rank in evens else world.rank)
        assert ("is not in the process set" in caplog.text) == (world.rank not in evens)
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
        model.compile(
            hvd.DistributedOptimizer(keras.optimizers.SGD(), process_set=process_set), "mse"
        )
        with pytest.raises(
            (ValueError, PeerError), match=r"process set of ranks \[0.*rank 1 is not in it"
        ):
            model.fit(
                np.zeros((2, 5)),
                np.zeros((2, 3)),
                verbose=0,
                callbacks=[hvd.callbacks.BroadcastGlobalVariablesCallback()],
            )
    finally:
        world.agree("testing")
        hvd.remove_process_set(process_set)
