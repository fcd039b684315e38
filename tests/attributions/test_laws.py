"""What every attribution method must hold to. Each module of `hvd_xai.attributions` is found and tested; a new one needs no line here."""

import importlib
import os
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import hvd_xai.attributions
from hvd_xai import provenance
from hvd_xai.compute import Compute, Computed
from hvd_xai.types import Attributed, Attribution
from tests import models_under_test as models

METHODS: list[str] = sorted(module.name for module in pkgutil.iter_modules(hvd_xai.attributions.__path__))

# An example's rows go through the model in micro-batches of one fixed shape, and are summed in a fixed order, whatever the others are; only
# their place in a micro-batch moves. Kernels may round by place: float32 has 1.2e-7, and a sum of 50 such terms stays below this.
PLACE_TOLERANCE = 1e-6


def method_named(name: str) -> Attribution:
    method: Attribution = getattr(importlib.import_module(f"hvd_xai.attributions.{name}"), name)
    return method


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> Attribution:
    return method_named(request.param)


def assert_same(got: Computed, want: Computed, tolerance: float = PLACE_TOLERANCE) -> None:
    assert got.attributions.shape == want.attributions.shape
    scale = max(float(np.abs(want.attributions).max(initial=0)), 1e-30)
    assert np.abs(got.attributions - want.attributions).max(initial=0) <= tolerance * scale
    assert got.per_sample.keys() == want.per_sample.keys()
    for name, values in want.per_sample.items():
        assert got.per_sample[name].shape == values.shape == (len(want.attributions),)
        # Beside the attributions stand small differences of sums of them, so the sums give the scale.
        total = max(float(np.abs(want.attributions.reshape(len(values), -1)).sum(axis=1).max(initial=0)), 1e-30)
        assert np.abs(got.per_sample[name] - values).max(initial=0) <= tolerance * total


def rows_of(computed: Computed, rows: slice | np.ndarray) -> Computed:
    return Computed(computed.attributions[rows], {name: values[rows] for name, values in computed.per_sample.items()})


def joined(parts: list[Computed]) -> Computed:
    return Computed(
        np.concatenate([part.attributions for part in parts]),
        {name: np.concatenate([part.per_sample[name] for part in parts]) for name in parts[0].per_sample},
    )


def test_every_module_has_one_public_function_of_its_name() -> None:
    assert METHODS
    for name in METHODS:
        module = importlib.import_module(f"hvd_xai.attributions.{name}")
        own = [
            key for key, value in vars(module).items() if not key.startswith("_") and getattr(value, "__module__", "") == module.__name__
        ]
        assert own == [name]


def test_every_module_has_a_test_of_its_own() -> None:
    here = Path(__file__).parent
    assert [name for name in METHODS if not (here / f"test_{name}.py").exists()] == []


def test_shape_and_dtype(method: Attribution) -> None:
    inputs, targets, ids = models.examples(5)
    compute = Compute(models.with_state(), method)
    compute.check(inputs, targets, ids)
    computed = compute(inputs, targets, ids)
    assert computed.attributions.shape == (5, *compute.sample_shape)
    assert computed.attributions.dtype == np.float32
    assert np.all(np.isfinite(computed.attributions))
    assert np.any(computed.attributions != 0)
    assert {name: values.dtype for name, values in computed.per_sample.items()} == compute.per_sample
    assert all(values.shape == (5,) for values in computed.per_sample.values())


def test_an_example_does_not_depend_on_its_batch(method: Attribution) -> None:
    inputs, targets, ids = models.examples(300)
    compute = Compute(models.with_state(), method)
    everything = compute(inputs, targets, ids)
    for rows in (slice(0, 1), slice(137, 138), slice(20, 27), slice(100, 164), slice(0, 300 - 1)):
        assert_same(compute(inputs[rows], targets[rows], ids[rows]), rows_of(everything, rows))


def test_the_micro_batch_changes_nothing(method: Attribution) -> None:
    # Another shape of micro-batch may take other kernels, and sums of paths are cut elsewhere: twice the rounding.
    inputs, targets, ids = models.examples(9)
    model = models.with_state()
    want = Compute(model, method)(inputs, targets, ids)
    for micro_batch in (1, 7, 64, 1000):
        assert_same(Compute(model, method, micro_batch=micro_batch)(inputs, targets, ids), want, 2 * PLACE_TOLERANCE)


def test_shards_of_a_world_of_any_size_join_to_the_whole(method: Attribution) -> None:
    inputs, targets, ids = models.examples(31)
    compute = Compute(models.with_state(), method)
    whole = compute(inputs, targets, ids)
    for size in (2, 3, 40):  # 40 ranks of 31 examples: some shards are empty
        edges = [31 * rank // size for rank in range(size + 1)]
        shards = [slice(start, stop) for start, stop in pairwise(edges)]
        assert_same(joined([compute(inputs[shard], targets[shard], ids[shard]) for shard in shards]), whole)


def test_permuted_examples_get_permuted_attributions(method: Attribution) -> None:
    inputs, targets, ids = models.examples(23)
    order = np.random.default_rng(1).permutation(23)
    compute = Compute(models.with_state(), method)
    assert_same(compute(inputs[order], targets[order], ids[order]), rows_of(compute(inputs, targets, ids), order))


def test_the_same_examples_get_the_same_bits(method: Attribution) -> None:
    inputs, targets, ids = models.examples(12)
    first, second = (Compute(models.with_state(), method)(inputs, targets, ids) for _ in range(2))
    np.testing.assert_array_equal(first.attributions, second.attributions)
    for name, values in first.per_sample.items():
        np.testing.assert_array_equal(values, second.per_sample[name])


def test_no_examples_give_no_attributions(method: Attribution) -> None:
    inputs, targets, ids = models.examples(0)
    compute = Compute(models.with_state(), method)
    compute.check(inputs, targets, ids)
    computed = compute(inputs, targets, ids)
    assert computed.attributions.shape == (0, *compute.sample_shape)
    assert {name: values.shape for name, values in computed.per_sample.items()} == dict.fromkeys(compute.per_sample, (0,))


def test_is_traced_once_over_epochs_and_sees_new_weights(method: Attribution) -> None:
    inputs, targets, ids = models.examples(20)
    model = models.with_state()
    compute = Compute(model, method)
    compute.check(inputs, targets, ids)
    epochs = []
    for epoch in range(2):
        model.set_weights([weight + 0.1 * epoch for weight in model.get_weights()])
        epochs.append(compute(inputs, targets, ids))
        for n in (0, 1, 7):
            compute(inputs[:n], targets[:n], ids[:n])
        assert_same(epochs[-1], Compute(model, method)(inputs, targets, ids))
    assert compute.n_traces == 1
    assert np.abs(epochs[0].attributions - epochs[1].attributions).max() > 0


@pytest.mark.parametrize("build", models.SAME_FUNCTION, ids=lambda build: build.__name__)
def test_any_shape_of_model_gives_the_same(method: Attribution, build: Callable[[], keras.Model]) -> None:
    inputs, targets, ids = models.examples(6)
    want = Compute(models.functional(), method)(inputs, targets, ids)
    assert_same(Compute(build(), method)(inputs, targets, ids), want)


# Activations of bfloat16 have 8 bits, those of float16 11. Their errors are of 1 in 256 a layer, average out along paths and over channels,
# and are amplified where attributions are differences of large numbers: a tenth, in the L2 norm, tells rounding from a mistake.
MIXED_TOLERANCE = 0.1


def assert_close(got: Computed, want: Computed) -> None:
    assert got.attributions.dtype == np.float32
    assert np.all(np.isfinite(got.attributions))
    assert np.linalg.norm(got.attributions - want.attributions) <= MIXED_TOLERANCE * np.linalg.norm(want.attributions)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_models_of_mixed_precision_are_explained(method: Attribution, policy: str) -> None:
    inputs, targets, ids = models.examples(9)
    full = models.with_state()
    keras.config.set_dtype_policy(policy)
    try:
        mixed = models.with_state()
    finally:
        keras.config.set_dtype_policy("float32")
    compute = Compute(mixed, method)
    everything = compute(inputs, targets, ids)
    assert_close(everything, Compute(full, method)(inputs, targets, ids))
    for rows in (slice(0, 1), slice(2, 9)):
        assert_same(compute(inputs[rows], targets[rows], ids[rows]), rows_of(everything, rows))


def test_bfloat16_on_request_is_close_and_leaves_the_model_as_it_was(method: Attribution) -> None:
    inputs, targets, ids = models.examples(9)
    model = models.with_state()
    before = models.state_of(model)
    compute = Compute(model, method, precision="bfloat16")
    got = compute(inputs, targets, ids)
    models.assert_same_state(models.state_of(model), before)
    want = Compute(model, method)(inputs, targets, ids)
    assert_close(got, want)
    assert np.any(got.attributions != want.attributions)
    assert compute.described[1]["precision"] == "bfloat16"
    assert compute.n_traces == 1


def seed_streams() -> None:
    """Begins every random stream anew. Keras keeps its own until the session is cleared, and begins it when it is first drawn from."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(99)
    keras.random.uniform([])


def random_streams() -> list[float]:
    """Draws from the global random streams of NumPy, TensorFlow and Keras. Python's own is used by the type checker of these tests."""
    return [
        float(np.random.random()),  # noqa: NPY002 - the global stream is what must be left alone
        float(tf.random.uniform([])),
        float(keras.random.uniform([])),
    ]


def test_leaves_pythons_random_stream_alone(method: Attribution) -> None:
    # In a process of its own, where no types are checked at run time: the checker picks the items it looks at by that stream.
    name = provenance.describe(method)[0]
    code = f"""
import random
from hvd_xai.attributions.{name} import {name}
from hvd_xai.compute import Compute
from tests import models_under_test as models
model = models.with_state()
before = random.getstate()
Compute(model, {name})(*models.examples(3))
assert random.getstate() == before
"""
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("build", [*models.SAME_FUNCTION, models.with_state], ids=lambda build: build.__name__)
def test_leaves_the_model_as_it_was(method: Attribution, build: Callable[[], keras.Model]) -> None:
    inputs, targets, ids = models.examples(6)

    def run(*, explained: bool) -> tuple[dict[str, Any], list[float], np.ndarray]:
        model = build()
        seed_streams()
        if explained:
            Compute(model, method)(inputs, targets, ids)
        return models.state_of(model), random_streams(), model.predict(inputs, verbose=0)

    (state, streams, predictions), (want_state, want_streams, want_predictions) = run(explained=True), run(explained=False)
    models.assert_same_state(state, want_state)
    assert streams == want_streams
    np.testing.assert_array_equal(predictions, want_predictions)


def failing(*args: object, **options: object) -> tf.Tensor:
    raise RuntimeError("this layer fails")


def test_leaves_the_model_as_it_was_after_an_error(method: Attribution) -> None:
    inputs, targets, ids = models.examples(6)
    model = models.with_state()
    head = vars(model.get_layer("probabilities"))  # a layer, for not every method has a score that could fail
    seed_streams()
    before = models.state_of(model)

    def failing_method(model: keras.Model, x: tf.Tensor, target: tf.Tensor, /, *, ids: tf.Tensor) -> tf.Tensor | Attributed:
        head["call"] = failing
        try:
            return method(model, x, target, ids=ids)
        finally:
            del head["call"]

    with pytest.raises(RuntimeError, match="this layer fails"):
        Compute(model, failing_method)(inputs, targets, ids)
    streams = random_streams()
    models.assert_same_state(models.state_of(model), before)
    seed_streams()
    assert streams == random_streams()
    assert_same(Compute(model, method)(inputs, targets, ids), Compute(models.with_state(), method)(inputs, targets, ids), tolerance=0)


def trained(*, explained: Attribution | None) -> list[np.ndarray]:
    """Trains for two epochs, with dropout and batch normalisation, and explains after the first or not."""
    inputs, targets, ids = models.examples(48)
    model = models.with_state()
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")

    def explain(epoch: int, logs: object) -> None:
        if explained is not None:
            Compute(model, explained)(inputs[:5], targets[:5], ids[:5])

    model.fit(inputs, targets, epochs=2, batch_size=16, verbose=0, callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=explain)])
    return [np.array(weight) for weight in model.get_weights()]


def test_explaining_does_not_change_training(method: Attribution) -> None:
    for got, want in zip(trained(explained=method), trained(explained=None), strict=True):
        np.testing.assert_array_equal(got, want)
