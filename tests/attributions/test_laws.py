"""What every attribution method must hold to. Each module of `hvd_xai.attributions` is found and tested; a new one needs no line here."""

import functools
import importlib
import os
import pkgutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import hvd_xai.attributions
from hvd_xai.compute import Compute, Computed
from hvd_xai.types import Attribution
from tests import models_under_test as models
from tests.models_under_test import Family

METHODS: list[str] = sorted(module.name for module in pkgutil.iter_modules(hvd_xai.attributions.__path__))

# An example's rows go through the model in micro-batches of one fixed shape, and are summed in a fixed order, whatever the others are; only
# their place in a micro-batch moves. Kernels may round by place: float32 has 1.2e-7, and a sum of 50 such terms stays below this.
PLACE_TOLERANCE = 1e-6


def method_named(name: str) -> Attribution:
    method: Attribution = getattr(importlib.import_module(f"hvd_xai.attributions.{name}"), name)
    return method


@functools.cache
def family_named(name: str) -> Family:
    """Returns the first family of models that the method of that name explains as it is, without options."""
    refusals = []
    for family in models.FAMILIES:
        try:
            Compute(models.with_state(family), method_named(name)).check(*models.examples(0, family=family))
        except ValueError as error:
            refusals.append(f"{family.name}: {error}")
        else:
            return family
    raise AssertionError(f"'{name}' explains no model of any family; add one to tests/models_under_test.py. " + " ".join(refusals))


@pytest.fixture(params=METHODS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def method(name: str) -> Attribution:
    return method_named(name)


@pytest.fixture
def family(name: str) -> Family:
    return family_named(name)


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


def test_shape_and_dtype(method: Attribution, family: Family) -> None:
    inputs, targets, ids = models.examples(5, family=family)
    compute = Compute(models.with_state(family), method)
    compute.check(inputs, targets, ids)
    computed = compute(inputs, targets, ids)
    assert computed.attributions.shape == (5, *compute.sample_shape)
    assert computed.attributions.dtype == np.float32
    assert np.all(np.isfinite(computed.attributions))
    assert np.any(computed.attributions != 0)
    assert {name: values.dtype for name, values in computed.per_sample.items()} == compute.per_sample
    assert all(values.shape == (5,) for values in computed.per_sample.values())


def test_an_example_does_not_depend_on_its_batch(method: Attribution, family: Family) -> None:
    inputs, targets, ids = models.examples(300, family=family)
    compute = Compute(models.with_state(family), method)
    everything = compute(inputs, targets, ids)
    for rows in (slice(0, 1), slice(137, 138), slice(20, 27), slice(100, 164), slice(0, 300 - 1)):
        assert_same(compute(inputs[rows], targets[rows], ids[rows]), rows_of(everything, rows))


def test_the_micro_batch_changes_nothing(method: Attribution, family: Family) -> None:
    # Another shape of micro-batch may take other kernels, and sums of paths are cut elsewhere: twice the rounding.
    inputs, targets, ids = models.examples(9, family=family)
    model = models.with_state(family)
    want = Compute(model, method)(inputs, targets, ids)
    for micro_batch in (1, 7, 64, 1000):
        assert_same(Compute(model, method, micro_batch=micro_batch)(inputs, targets, ids), want, 2 * PLACE_TOLERANCE)


def test_shards_of_a_world_of_any_size_join_to_the_whole(method: Attribution, family: Family) -> None:
    inputs, targets, ids = models.examples(31, family=family)
    compute = Compute(models.with_state(family), method)
    whole = compute(inputs, targets, ids)
    for size in (2, 3, 40):  # 40 ranks of 31 examples: some shards are empty
        edges = [31 * rank // size for rank in range(size + 1)]
        shards = [slice(start, stop) for start, stop in pairwise(edges)]
        assert_same(joined([compute(inputs[shard], targets[shard], ids[shard]) for shard in shards]), whole)


def test_permuted_examples_get_permuted_attributions(method: Attribution, family: Family) -> None:
    inputs, targets, ids = models.examples(23, family=family)
    order = np.random.default_rng(1).permutation(23)
    compute = Compute(models.with_state(family), method)
    assert_same(compute(inputs[order], targets[order], ids[order]), rows_of(compute(inputs, targets, ids), order))


def test_the_same_examples_get_the_same_bits(method: Attribution, family: Family) -> None:
    inputs, targets, ids = models.examples(12, family=family)
    first, second = (Compute(models.with_state(family), method)(inputs, targets, ids) for _ in range(2))
    np.testing.assert_array_equal(first.attributions, second.attributions)
    for name, values in first.per_sample.items():
        np.testing.assert_array_equal(values, second.per_sample[name])


def test_no_examples_give_no_attributions(method: Attribution, family: Family) -> None:
    inputs, targets, ids = models.examples(0, family=family)
    compute = Compute(models.with_state(family), method)
    compute.check(inputs, targets, ids)
    computed = compute(inputs, targets, ids)
    assert computed.attributions.shape == (0, *compute.sample_shape)
    assert {name: values.shape for name, values in computed.per_sample.items()} == dict.fromkeys(compute.per_sample, (0,))


def test_is_traced_once_over_epochs_and_sees_new_weights(method: Attribution, family: Family) -> None:
    inputs, targets, ids = models.examples(20, family=family)
    model = models.with_state(family)
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
def test_any_shape_of_model_gives_the_same(method: Attribution, family: Family, build: Callable[[Family], keras.Model]) -> None:
    inputs, targets, ids = models.examples(6, family=family)
    want = Compute(models.functional(family), method)(inputs, targets, ids)
    assert_same(Compute(build(family), method)(inputs, targets, ids), want)


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


def test_leaves_pythons_random_stream_alone(name: str, family: Family) -> None:
    # In a process of its own, where no types are checked at run time: the checker picks the items it looks at by that stream.
    code = f"""
import random
from hvd_xai.attributions.{name} import {name}
from hvd_xai.compute import Compute
from tests import models_under_test as models
from tests.models_under_test import Family
family = next(family for family in models.FAMILIES if family.name == {family.name!r})
model = models.with_state(family)
before = random.getstate()
Compute(model, {name})(*models.examples(3, family=family))
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
def test_leaves_the_model_as_it_was(method: Attribution, family: Family, build: Callable[[Family], keras.Model]) -> None:
    inputs, targets, ids = models.examples(6, family=family)

    def run(*, explained: bool) -> tuple[dict[str, Any], list[float], np.ndarray]:
        model = build(family)
        seed_streams()
        if explained:
            Compute(model, method)(inputs, targets, ids)
        return models.state_of(model), random_streams(), model.predict(inputs, verbose=0)

    (state, streams, predictions), (want_state, want_streams, want_predictions) = run(explained=True), run(explained=False)
    models.assert_same_state(state, want_state)
    assert streams == want_streams
    np.testing.assert_array_equal(predictions, want_predictions)


@contextmanager
def failing(layer: keras.Layer, at: int | None = None) -> Iterator[list[int]]:
    """Counts the calls of a layer, and has one of them fail."""
    calls: list[int] = []
    call = layer.call

    def call_or_fail(*args: Any, **kwargs: Any) -> Any:
        calls.append(len(calls))
        if len(calls) - 1 == at:
            raise RuntimeError("this layer fails")
        return call(*args, **kwargs)

    vars(layer)["call"] = call_or_fail
    try:
        yield calls
    finally:
        del vars(layer)["call"]


def test_leaves_the_model_as_it_was_after_an_error(method: Attribution, family: Family) -> None:
    inputs, targets, ids = models.examples(6, family=family)
    model = models.with_state(family)
    before = models.state_of(model)
    with failing(model.layers[-1]) as calls:
        Compute(model, method)(inputs, targets, ids)
    seed_streams()
    # The last time that the method runs the model, it is deepest in whatever it has patched.
    with pytest.raises(RuntimeError, match="this layer fails"), failing(model.layers[-1], at=len(calls) - 1):
        Compute(model, method)(inputs, targets, ids)
    streams = random_streams()
    models.assert_same_state(models.state_of(model), before)
    seed_streams()
    assert streams == random_streams()
    assert_same(Compute(model, method)(inputs, targets, ids), Compute(models.with_state(family), method)(inputs, targets, ids), tolerance=0)


def trained(family: Family, *, explained: Attribution | None) -> list[np.ndarray]:
    """Trains for two epochs, with dropout and batch normalisation, and explains after the first or not."""
    inputs, targets, ids = models.examples(48, family=family)
    model = models.with_state(family)
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")

    def explain(epoch: int, logs: object) -> None:
        if explained is not None:
            Compute(model, explained)(inputs[:5], targets[:5], ids[:5])

    model.fit(inputs, targets, epochs=2, batch_size=16, verbose=0, callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=explain)])
    return [np.array(weight) for weight in model.get_weights()]


def test_explaining_does_not_change_training(method: Attribution, family: Family) -> None:
    for got, want in zip(trained(family, explained=method), trained(family, explained=None), strict=True):
        np.testing.assert_array_equal(got, want)
