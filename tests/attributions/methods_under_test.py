"""Finds the attribution methods, and compares what they return, for the laws of all methods."""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

import hvd_xai.attributions
from hvd_xai.checkpoint.rows import STANDARD_ERRORS
from hvd_xai.compute.attribute import Compute, Computed
from tests import models_under_test as models
from tests.models_under_test import Family

METHODS: list[str] = sorted(
    module.name for module in pkgutil.iter_modules(hvd_xai.attributions.__path__)
)

# An example's rows go through the model in micro-batches of one fixed shape, and are summed in a
# fixed order, whatever the others are; only their place in a micro-batch moves. Kernels may round
# by place: float32 has 1.2e-7, and a sum of 50 such terms stays below this.
PLACE_TOLERANCE = 1e-6

COURSES: Mapping[str, object] = {"tolerance": 0.004}
"""Options that give each example a course of its own, with a value under which courses differ."""


def _cases() -> Iterator[tuple[str, Callable[..., Any]]]:
    for name in METHODS:
        method = getattr(importlib.import_module(f"hvd_xai.attributions.{name}"), name)
        yield name, method
        for option, value in COURSES.items():
            if option in inspect.signature(method).parameters:
                yield f"{name}-{option}", partial(method, **{option: value})


CASES: dict[str, Callable[..., Any]] = dict(_cases())
"""What the laws hold for: each method as it is, and once more with each option of `COURSES` that it
has."""


@functools.cache
def family_of(case: str) -> Family:
    """Returns the first family of models that the method explains as it is, with no other
    options."""
    refusals = []
    for family in models.FAMILIES:
        try:
            Compute(models.with_state(family), CASES[case]).check(
                *models.examples(0, family=family)
            )
        except ValueError as error:
            refusals.append(f"{family.name}: {error}")
        else:
            return family
    raise AssertionError(
        f"'{case}' explains no model of any family; add one to tests/models_under_test.py. "
        + " ".join(refusals)
    )


def shape_beside(name: str, attributions: np.ndarray) -> tuple[int, ...]:
    """Returns the shape of what stands beside attributions: one value each, or their errors."""
    return attributions.shape if name == STANDARD_ERRORS else attributions.shape[:1]


def assert_same(got: Computed, want: Computed, tolerance: float = PLACE_TOLERANCE) -> None:
    assert got.attributions.shape == want.attributions.shape
    scale = max(float(np.abs(want.attributions).max(initial=0)), 1e-30)
    assert np.abs(got.attributions - want.attributions).max(initial=0) <= tolerance * scale
    assert got.per_sample.keys() == want.per_sample.keys()
    for name, values in want.per_sample.items():
        assert got.per_sample[name].shape == values.shape == shape_beside(name, want.attributions)
        # Beside the attributions stand small differences of sums of them, so the sums give the
        # scale.
        total = max(
            float(np.abs(want.attributions.reshape(len(values), -1)).sum(axis=1).max(initial=0)),
            1e-30,
        )
        assert (
            np.abs(np.subtract(got.per_sample[name], values, dtype=np.float64)).max(initial=0)
            <= tolerance * total
        )


def rows_of(computed: Computed, rows: slice | np.ndarray) -> Computed:
    return Computed(
        computed.attributions[rows],
        {name: values[rows] for name, values in computed.per_sample.items()},
    )
