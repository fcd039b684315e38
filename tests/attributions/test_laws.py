"""What every attribution method must hold to.

Each module of `hvd_xai.attributions` is found and tested; a new one needs no line here.

What costs is tracing: each method is compiled once for its laws' model, and all laws that can share
that do.
"""

import functools
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.attributions.integrated_gradients import integrated_gradients
from hvd_xai.attributions.layer_integrated_gradients import layer_integrated_gradients
from hvd_xai.attributions.tf_explain import tf_explain
from hvd_xai.baselines import blurred
from hvd_xai.compute.attribute import Compute, Computed
from hvd_xai.protocols import Attributed, Attribution
from tests import models_under_test as models
from tests import processes
from tests.attributions.methods_under_test import (
    CASES,
    METHODS,
    PLACE_TOLERANCE,
    assert_same,
    family_of,
    rows_of,
    shape_beside,
)
from tests.models_under_test import Family

# Activations of bfloat16 have 8 bits, those of float16 11. Their errors are of 1 in 256 a layer,
# average out along paths and over channels, and are amplified where attributions are differences of
# large numbers: a tenth, in the L2 norm, tells rounding from a mistake.
MIXED_TOLERANCE = 0.1

N = 70  # a full micro-batch of 64 examples, and a remainder


@dataclass(frozen=True)
class Case:
    """A method, compiled for a model with state and run on `N` examples.

    All laws share it: none may leave the model changed.
    """

    method: Attribution
    family: Family
    model: keras.Model
    compute: Compute
    everything: Computed

    def examples(self, n: int = N) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return tuple(array[:n] for array in models.examples(N, family=self.family))  # type: ignore[return-value]  # three, as there

    def explain(self, rows: slice | np.ndarray) -> Computed:
        inputs, targets, ids = self.examples()
        return self.compute(inputs[rows], targets[rows], ids[rows])


@functools.cache
def case_named(name: str) -> Case:
    family, method = family_of(name), CASES[name]
    model = models.with_state(family)
    compute = Compute(model, method)
    compute.check(*models.examples(0, family=family))
    return Case(method, family, model, compute, compute(*models.examples(N, family=family)))


@pytest.fixture(params=METHODS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def plain(name: str) -> Case:
    return case_named(name)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return case_named(str(request.param))


def assert_close(got: Computed, want: Computed) -> None:
    assert got.attributions.dtype == np.float32
    assert np.all(np.isfinite(got.attributions))
    assert np.linalg.norm(got.attributions - want.attributions) <= MIXED_TOLERANCE * np.linalg.norm(
        want.attributions
    )


def joined(parts: list[Computed]) -> Computed:
    return Computed(
        np.concatenate([part.attributions for part in parts]),
        {
            name: np.concatenate([part.per_sample[name] for part in parts])
            for name in parts[0].per_sample
        },
    )


def test_every_module_has_one_public_function_of_its_name() -> None:
    assert METHODS
    for name in METHODS:
        module = importlib.import_module(f"hvd_xai.attributions.{name}")
        own = [
            key
            for key, value in vars(module).items()
            if not key.startswith("_") and getattr(value, "__module__", "") == module.__name__
        ]
        assert own == [name]


def test_every_module_has_a_test_of_its_own() -> None:
    here = Path(__file__).parent
    assert [name for name in METHODS if not (here / f"test_{name}.py").exists()] == []


def test_shape_and_dtype(case: Case) -> None:
    computed, compute = case.everything, case.compute
    assert computed.attributions.shape == (N, *compute.sample_shape)
    assert computed.attributions.dtype == np.float32
    assert np.all(np.isfinite(computed.attributions))
    assert np.any(computed.attributions != 0)
    assert {
        name: values.dtype for name, values in computed.per_sample.items()
    } == compute.per_sample
    for name, values in computed.per_sample.items():
        assert values.shape == shape_beside(name, computed.attributions)


def test_a_method_says_what_it_attributes_to_and_whether_signed(case: Case) -> None:
    attributed_to, signed = case.compute.attributed_to, case.compute.signed
    assert attributed_to is not None
    assert signed is not None
    if attributed_to == "inputs":
        assert case.everything.attributions.shape == case.examples()[0].shape
    if not signed:
        assert np.all(case.everything.attributions >= 0)


@pytest.mark.parametrize("name", [name for name in CASES if name not in METHODS])
def test_examples_take_courses_of_their_own(name: str) -> None:
    counts = [
        values
        for values in case_named(name).everything.per_sample.values()
        if values.dtype.kind == "i"
    ]
    assert any(len(np.unique(values)) > 1 for values in counts)


def test_an_example_does_not_depend_on_its_batch(case: Case) -> None:
    for rows in (slice(0, 1), slice(37, 38), slice(20, 27), slice(5, 69)):
        assert_same(case.explain(rows), rows_of(case.everything, rows))


def test_the_micro_batch_changes_nothing(plain: Case) -> None:
    # Another shape of micro-batch may take other kernels, and sums of paths are cut elsewhere:
    # twice the rounding.
    examples = plain.examples(9)
    for micro_batch in (7, 1000):
        got = Compute(plain.model, plain.method, micro_batch=micro_batch)(*examples)
        assert_same(got, rows_of(plain.everything, slice(9)), 2 * PLACE_TOLERANCE)


def test_shards_of_a_world_of_any_size_join_to_the_whole(case: Case) -> None:
    for size in (3, 40):  # 40 ranks of 31 examples: some shards are empty
        edges = [31 * rank // size for rank in range(size + 1)]
        shards = [case.explain(slice(start, stop)) for start, stop in pairwise(edges)]
        assert_same(joined(shards), rows_of(case.everything, slice(31)))


def test_permuted_examples_get_permuted_attributions(case: Case) -> None:
    order = np.random.default_rng(1).permutation(23)
    assert_same(case.explain(order), rows_of(case.everything, order))


def test_the_same_examples_get_the_same_bits(case: Case) -> None:
    again = Compute(models.with_state(case.family), case.method)(*case.examples())
    np.testing.assert_array_equal(again.attributions, case.everything.attributions)
    for name, values in case.everything.per_sample.items():
        np.testing.assert_array_equal(again.per_sample[name], values)


PLACED = [name for name in METHODS if "channels" in inspect.signature(CASES[name]).parameters]


@pytest.mark.parametrize(
    "method",
    [
        *(CASES[name] for name in PLACED),
        partial(tf_explain, explainer="OcclusionSensitivity", patch_size=2, baseline="mean"),
        partial(integrated_gradients, n_steps=3, baseline="mean"),
        partial(integrated_gradients, n_steps=3, baseline=partial(blurred, sigma=1.0)),
        partial(layer_integrated_gradients, n_steps=3, layer="pool", baseline="mean"),
    ],
    ids=[*PLACED, "patches", "mean", "blurred", "layer"],
)
def test_attributions_of_a_channels_first_model_are_the_transposed_ones(
    method: Attribution,
) -> None:
    last, first = models.of_places("last"), models.of_places("first")
    inputs = np.random.default_rng(4).uniform(0.5, 2, size=(3, 6, 5, 2)).astype(np.float32)
    targets, ids = np.array([0, 2, 1]), np.array([5, 6, 9])
    want = Compute(last, method)(inputs, targets, ids).attributions
    got = Compute(first, method)(inputs.transpose(0, 3, 1, 2), targets, ids).attributions
    if want.ndim == 4:
        got = got.transpose(0, 2, 3, 1)
    assert got.shape == want.shape
    assert np.abs(want).max() > 0
    # Other kernels sum in another order, and fits and differences make more of it.
    assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()


@pytest.mark.parametrize(
    "name", [name for name in METHODS if "baseline" in inspect.signature(CASES[name]).parameters]
)
def test_a_random_baseline_comes_from_the_sample_id(name: str) -> None:
    family = family_of(name)
    inputs, targets, _ = models.examples(1, family=family)
    compute = Compute(models.functional(family), partial(CASES[name], baseline="uniform"))
    attributions = compute(inputs[[0, 0, 0]], targets[[0, 0, 0]], np.array([4, 5, 4])).attributions
    np.testing.assert_array_equal(attributions[0], attributions[2])
    assert np.any(attributions[0] != attributions[1])


def test_no_examples_give_no_attributions(case: Case) -> None:
    computed = case.explain(slice(0))
    assert computed.attributions.shape == (0, *case.compute.sample_shape)
    assert {name: values.shape for name, values in computed.per_sample.items()} == {
        name: shape_beside(name, computed.attributions) for name in case.compute.per_sample
    }


def test_is_traced_once_over_epochs_and_sees_new_weights(case: Case) -> None:
    before = case.model.get_weights()
    try:
        case.model.set_weights([weight + 0.1 for weight in before])
        got, want = case.explain(slice(20)), Compute(case.model, case.method)(*case.examples(20))
    finally:
        case.model.set_weights(before)
    assert_same(got, want)
    assert np.abs(got.attributions - case.everything.attributions[:20]).max() > 0
    case.explain(slice(7))
    assert case.compute.n_traces == 1


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_models_of_mixed_precision_are_explained(plain: Case, policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        mixed = models.with_state(plain.family)
    finally:
        keras.config.set_dtype_policy("float32")
    inputs, targets, ids = plain.examples(9)
    compute = Compute(mixed, plain.method)
    everything = compute(inputs, targets, ids)
    assert_close(everything, rows_of(plain.everything, slice(9)))
    for rows in (slice(0, 1), slice(2, 9)):
        assert_same(compute(inputs[rows], targets[rows], ids[rows]), rows_of(everything, rows))


def test_bfloat16_on_request_is_close_and_leaves_the_model_as_it_was(plain: Case) -> None:
    before = models.state_of(plain.model)
    compute = Compute(plain.model, plain.method, precision="bfloat16")
    got = compute(*plain.examples(9))
    models.assert_same_state(models.state_of(plain.model), before)
    want = rows_of(plain.everything, slice(9))
    assert_close(got, want)
    assert np.any(got.attributions != want.attributions)
    assert compute.precision == "bfloat16"
    assert compute.n_traces == 1


def seed_streams() -> None:
    """Begins every random stream anew.

    Keras keeps its own until the session is cleared, and begins it when it is first drawn from.
    """
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(99)
    keras.random.uniform([])


def random_streams() -> list[float]:
    """Draws from the global random streams of NumPy, TensorFlow and Keras.

    Python's own is used by the type checker of these tests.
    """
    return [
        float(np.random.random()),  # noqa: NPY002
        float(tf.random.uniform([])),
        float(keras.random.uniform([])),
    ]


@functools.cache
def streams_untouched() -> list[float]:
    seed_streams()
    return random_streams()


@functools.cache
def explained_functional(name: str) -> Computed:
    family = family_of(name)
    model = models.functional(family)
    before = models.state_of(model)
    computed = Compute(model, CASES[name])(*models.examples(6, family=family))
    models.assert_same_state(models.state_of(model), before)
    return computed


@pytest.mark.parametrize("build", models.SAME_FUNCTION[1:], ids=lambda build: build.__name__)
def test_any_shape_of_model_gives_the_same_and_is_left_as_it_was(
    name: str, build: Callable[[Family], keras.Model]
) -> None:
    family = family_of(name)
    examples = models.examples(6, family=family)
    model = build(family)
    before, predictions = models.state_of(model), np.asarray(model(examples[0], training=False))
    seed_streams()
    computed = Compute(model, CASES[name])(*examples)
    assert random_streams() == streams_untouched()
    models.assert_same_state(models.state_of(model), before)
    np.testing.assert_array_equal(np.asarray(model(examples[0], training=False)), predictions)
    assert_same(computed, explained_functional(name))


def test_pythons_random_stream_is_left_alone() -> None:
    # In a process of its own, where no types are checked at run time: the checker picks the items
    # it looks at by that stream.
    code = """
import random
import sys
from hvd_xai.compute.attribute import Compute
from hvd_xai.lookup.methods import load_method
from tests import models_under_test as models
families = {family.name: family for family in models.FAMILIES}
for word in sys.argv[1:]:
    name, family = word.split(":")
    model = models.with_state(families[family])
    before = random.getstate()
    Compute(model, load_method(name))(*models.examples(3, family=families[family]))
    assert random.getstate() == before, name
"""
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    done = processes.run(
        [sys.executable, "-c", code, *(f"{name}:{family_of(name).name}" for name in METHODS)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.code == 0, done.stderr


@contextmanager
def failing(layer: keras.Layer, at: int | None = None) -> Iterator[list[int]]:
    """Counts the calls of a layer, and lets one of them fail."""
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


def test_leaves_the_model_as_it_was_after_an_error(plain: Case) -> None:
    examples = plain.examples(6)
    model = models.with_state(plain.family)
    before = models.state_of(model)
    at: int | None = None

    def failing_method(
        model: keras.Model, x: tf.Tensor, target: tf.Tensor, /, *, ids: tf.Tensor
    ) -> tf.Tensor | Attributed:
        nonlocal at
        with failing(model.layers[-1], at) as calls:
            attributed = plain.method(model, x, target, ids=ids)
        # the last time that the method runs the model, deepest in whatever it has patched by then
        at = len(calls) - 1
        return attributed

    # Where a model has its channels is found at the first call only; it would count as one more.
    Compute(model, plain.method)(*examples)
    Compute(model, failing_method)(*examples)
    seed_streams()
    with pytest.raises(RuntimeError, match="this layer fails"):
        Compute(model, failing_method)(*examples)
    assert random_streams() == streams_untouched()
    models.assert_same_state(models.state_of(model), before)
    assert_same(Compute(model, plain.method)(*examples), rows_of(plain.everything, slice(6)))


def trained(family: Family, *, explained: Attribution | None) -> list[np.ndarray]:
    """Trains for two epochs, with dropout and batch normalisation, and explains after the first if
    asked to."""
    inputs, targets, ids = models.examples(48, family=family)
    model = models.with_state(family)
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")

    def explain(epoch: int, logs: object) -> None:
        if explained is not None:
            Compute(model, explained)(inputs[:5], targets[:5], ids[:5])

    model.fit(
        inputs,
        targets,
        epochs=2,
        batch_size=16,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=explain)],
    )
    return [np.array(weight) for weight in model.get_weights()]


@functools.cache
def trained_without(family_name: str) -> list[np.ndarray]:
    return trained(
        next(family for family in models.FAMILIES if family.name == family_name), explained=None
    )


def test_explaining_does_not_change_training(plain: Case) -> None:
    for got, want in zip(
        trained(plain.family, explained=plain.method),
        trained_without(plain.family.name),
        strict=True,
    ):
        np.testing.assert_array_equal(got, want)
