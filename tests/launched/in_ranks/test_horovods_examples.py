"""Scripts in the structure of Horovod's own examples run as they are, on less data.

What Keras 3 has renamed is renamed: `optimizer.variables` is no function any more, `compile` takes
no `experimental_run_tf_function`, and models are saved as `.keras`. `shuffle=False` spares us a
warning of Keras about data sets, and changes nothing.
"""

import timeit
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import hvd_xai.keras as hvd
from hvd_xai.ranks.world import World
from tests.launched.fitting import Callbacks, same_everywhere

SIDE, BATCH = 6, 4


def _digits(rank: int) -> "tf.data.Dataset":
    random = np.random.default_rng(rank)
    images = tf.cast(random.normal(size=(16, SIDE, SIDE, 1)), tf.float32)
    labels = tf.cast(random.integers(0, 10, 16), tf.int64)
    dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    return dataset.repeat().shuffle(16).batch(BATCH)


def _model() -> keras.Model:
    """Returns a model without weights, and with two Dropouts, as most examples begin."""
    return keras.Sequential(
        [
            keras.layers.Conv2D(2, [3, 3], activation="relu"),
            keras.layers.MaxPooling2D(pool_size=(2, 2)),
            keras.layers.Dropout(0.25),
            keras.layers.Flatten(),
            keras.layers.Dense(4, activation="relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


def _compile(model: keras.Model, learning_rate: float) -> None:
    optimizer = hvd.DistributedOptimizer(
        keras.optimizers.Adam(learning_rate),
        backward_passes_per_step=1,
        average_aggregated_gradients=True,
    )
    loss = keras.losses.SparseCategoricalCrossentropy()
    model.compile(loss=loss, optimizer=optimizer, metrics=["accuracy"])


def _same_state(world: World, model: keras.Model, optimizer: Any) -> None:
    """Checks that all ranks hold the same, but for the seeds of Dropout."""
    state = [*model.weights, *optimizer.variables]
    same_everywhere(world, [np.asarray(variable.value.numpy()).tolist() for variable in state])


def test_keras_mnist(world: World, tmp_path: Path) -> None:
    keras.utils.set_random_seed(world.rank)
    dataset, model = _digits(hvd.rank()), _model()
    scaled = 0.001 * hvd.size()
    _compile(model, scaled)
    callbacks: Callbacks = [
        hvd.callbacks.BroadcastGlobalVariablesCallback(0),
        hvd.callbacks.MetricAverageCallback(),
        hvd.callbacks.LearningRateWarmupCallback(initial_lr=scaled, warmup_epochs=3, verbose=1),
    ]
    if hvd.rank() == 0:
        callbacks.append(keras.callbacks.ModelCheckpoint(tmp_path / "checkpoint-{epoch}.keras"))
    history = model.fit(
        dataset,
        steps_per_epoch=4 // hvd.size(),
        callbacks=callbacks,
        epochs=3,
        shuffle=False,
        verbose=0,
    ).history
    _same_state(world, model, model.optimizer)
    same_everywhere(world, history)
    assert float(model.optimizer.learning_rate) == pytest.approx(scaled)
    assert len(list(tmp_path.iterdir())) == (3 if world.is_root else 0)


def test_mnist_with_a_tape(world: World) -> None:
    keras.utils.set_random_seed(world.rank)
    dataset, model = _digits(hvd.rank()), _model()
    loss = keras.losses.SparseCategoricalCrossentropy()
    optimizer = keras.optimizers.Adam(0.001 * hvd.size())

    @tf.function  # type: ignore[untyped-decorator]  # tensorflow ships no types
    def training_step(images: tf.Tensor, labels: tf.Tensor, first_batch: bool) -> tf.Tensor:
        with tf.GradientTape() as tape:
            value = loss(labels, model(images, training=True))
        tape = hvd.DistributedGradientTape(tape)
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        if first_batch:
            hvd.broadcast_variables(model.variables, root_rank=0)
            hvd.broadcast_variables(optimizer.variables, root_rank=0)
        return value

    for batch, (images, labels) in enumerate(dataset.take(6 // hvd.size())):
        assert float(training_step(images, labels, batch == 0)) > 0
    _same_state(world, model, optimizer)


def test_synthetic_benchmark(world: World) -> None:
    keras.utils.set_random_seed(world.rank)
    model, optimizer = _model(), keras.optimizers.SGD(0.01)
    data = tf.random.uniform([BATCH, SIDE, SIDE, 1])
    target = tf.random.uniform([BATCH, 1], minval=0, maxval=9, dtype=tf.int64)

    @tf.function  # type: ignore[untyped-decorator]  # as above
    def benchmark_step(first_batch: bool) -> None:
        with tf.GradientTape() as tape:
            probs = model(data, training=True)
            loss = keras.losses.sparse_categorical_crossentropy(target, probs)
        tape = hvd.DistributedGradientTape(tape, compression=hvd.Compression.fp16)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        if first_batch:
            hvd.broadcast_variables(model.variables, root_rank=0)
            hvd.broadcast_variables(optimizer.variables, root_rank=0)

    benchmark_step(first_batch=True)
    assert timeit.timeit(lambda: benchmark_step(first_batch=False), number=3) > 0
    _same_state(world, model, optimizer)


def test_elastic_keras_mnist(world: World, tmp_path: Path) -> None:
    keras.utils.set_random_seed(world.rank)
    dataset, model, epochs = _digits(hvd.rank()), _model(), 2
    _compile(model, 0.001 * hvd.size())
    # The example trains one step so that the optimizer has its variables.
    model.fit(dataset, steps_per_epoch=1, epochs=1, shuffle=False, verbose=0)
    state = hvd.elastic.KerasState(model, batch=0, epoch=0)

    def on_state_reset() -> None:
        state.model.optimizer.learning_rate = 0.001 * hvd.size()
        state.model.fit(dataset, steps_per_epoch=1, epochs=1, shuffle=False, verbose=0)

    state.register_reset_callbacks([on_state_reset])
    callbacks: Callbacks = [
        hvd.elastic.UpdateEpochStateCallback(state),
        hvd.elastic.UpdateBatchStateCallback(state),
        hvd.elastic.CommitStateCallback(state),
    ]
    if hvd.rank() == 0:
        callbacks.append(keras.callbacks.ModelCheckpoint(tmp_path / "checkpoint-{epoch}.keras"))

    @hvd.elastic.run
    def train(state: Any) -> None:
        state.model.fit(
            dataset,
            steps_per_epoch=4 // hvd.size(),
            epochs=epochs - state.epoch,
            callbacks=callbacks,
            shuffle=False,
            verbose=0,
        )

    train(state)
    assert (state.epoch, state.batch) == (epochs, 0)
    _same_state(world, model, model.optimizer)
    # a reset calls it; then training goes on from the root's state again
    on_state_reset()
    state.sync()
    _same_state(world, model, model.optimizer)
