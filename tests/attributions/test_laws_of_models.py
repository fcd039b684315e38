"""What every attribution method must hold to in models of other forms: with shared layers, several
inputs, an output for each place.

Each method is held to an equal function without that form. As in the other laws, methods are found.
"""

import functools
import inspect
import re
from functools import partial

import numpy as np
import pytest

from hvd_xai import Probe, scores
from hvd_xai.compute.attribute import Compute
from hvd_xai.tracing.packed_model import accept_packed
from tests import models_under_test as models
from tests.attributions.methods_under_test import (
    CASES,
    METHODS,
    PLACE_TOLERANCE,
    assert_same,
    family_of,
    rows_of,
)

N = 5
# The same float32 operations, but the graphs are others, and some of their kernels are chosen by
# what stands around them.
GRAPH_TOLERANCE = 2 * PLACE_TOLERANCE

# Methods leave models as they were, so that one of each kind will do for all of them.
called_twice, copied = (
    functools.cache(models.with_layers_called_twice),
    functools.cache(models.with_layers_copied),
)
of_several, of_one_row = functools.cache(models.of_several), functools.cache(models.of_one_row)
segmenting = functools.cache(models.segmenting)


def refusal(compute: Compute, inputs: np.ndarray, targets: np.ndarray) -> str | None:
    try:
        compute.check(inputs, targets)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", METHODS)
def test_each_call_of_a_shared_layer_is_as_a_layer_of_its_own(name: str) -> None:
    family, method = family_of(name), CASES[name]
    shared, apart, examples = (
        called_twice(family),
        copied(family),
        models.examples(N, family=family),
    )
    compute = Compute(shared, method)
    refused = refusal(compute, *examples[:2])
    if refused is None:
        assert_same(compute(*examples), Compute(apart, method)(*examples), GRAPH_TOLERANCE)
        return
    offer = re.fullmatch(
        rf"`{name}` .* calls layer '(\w+)' 2 times\. Pass layer= one of '\1\[0\]' \(.*\), '\1\[1\]'"
        r" \(.*\)\.",
        refused,
    )
    assert offer, refused
    for number in (0, 1):
        got = Compute(shared, partial(method, layer=f"{offer[1]}[{number}]"))(*examples)
        assert_same(
            got,
            Compute(apart, partial(method, layer=f"{offer[1]}_{number}"))(*examples),
            GRAPH_TOLERANCE,
        )


@pytest.mark.parametrize("name", METHODS)
def test_several_inputs_are_as_one_row_and_no_other_words_are_shown(name: str) -> None:
    probe, model = Probe.of_several(*models.several_examples(N)), of_several()
    inputs, targets, ids = probe.inputs, probe.targets, probe.sample_ids
    before = models.state_of(model)
    compute = Compute(accept_packed(model, probe.packing), CASES[name])
    refused = refusal(compute, inputs, targets)
    if refused is not None:
        assert re.fullmatch(rf"`{name}` needs .*; .*\. (Pass|Take) .*\.", refused), refused
        return
    got = compute(inputs, targets, ids)
    models.assert_same_state(models.state_of(model), before)
    assert np.all(np.isfinite(got.attributions))
    assert np.any(got.attributions != 0)
    # A variance or a squared gradient doubles the relative error of rounding by place.
    tolerance = 2 * PLACE_TOLERANCE
    for rows in (slice(0, 1), slice(2, 5)):
        again = compute(inputs[rows], targets[rows], ids[rows])
        assert_same(again, rows_of(got, rows), tolerance)
    assert_same(got, Compute(of_one_row(), CASES[name])(inputs, targets, ids), GRAPH_TOLERANCE)


@pytest.mark.parametrize(
    "name", [name for name in METHODS if "score" in inspect.signature(CASES[name]).parameters]
)
def test_a_region_of_a_segmentation_is_as_the_mean_over_its_places(name: str) -> None:
    family, method = family_of(name), CASES[name]
    inputs, targets, ids = models.examples(N, family=family)
    model = segmenting(family)
    regions = np.argmax(model(inputs), axis=-1) == targets.reshape(
        -1, *[1] * len(model.output_shape[2:])
    )
    # At a baseline all places are of one class: the region must stay where it is for the example.
    of_some = next(row for row, region in enumerate(regions) if region.any() and not region.all())
    rows = slice(of_some, of_some + 1)
    got = Compute(model, partial(method, score=scores.segmentation))(inputs, targets, ids)
    want = Compute(models.averaging(regions[of_some], family), method)(
        inputs[rows], targets[rows], ids[rows]
    )
    assert_same(rows_of(got, rows), want, GRAPH_TOLERANCE)
