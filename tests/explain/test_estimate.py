"""Estimates count rows and bytes exactly, and time without leaving anything behind."""

from functools import partial

import keras
import pytest

from hvd_xai.attributions.smoothgrad import smoothgrad
from hvd_xai.checkpoint.rows import row_dtype
from hvd_xai.errors import PeerError
from hvd_xai.explain.estimate import estimate
from hvd_xai.lookup.resolve import resolve
from hvd_xai.probe.probe import Probe
from hvd_xai.protocols import Methods
from hvd_xai.ranks.world import World
from tests.models_under_test import assert_same_state, examples, functional, state_of

PROBE = Probe(*examples(6))


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return functional()


def test_each_method_is_estimated_under_its_name(model: keras.Model) -> None:
    methods: Methods = {"mine": "saliency", "grad_cam": "grad_cam"}
    found = estimate(model, PROBE, resolve(methods), world=World.alone())
    assert [(one.method, one.n_rows) for one in found] == [("mine", 6), ("grad_cam", 6)]
    assert all(0 < one.seconds < 60 for one in found)
    row = row_dtype((8, 8, 1), target=PROBE.targets.dtype)
    assert found[0].n_bytes == 6 * row.itemsize


def test_the_model_is_left_as_it_is(model: keras.Model) -> None:
    before = state_of(model)
    estimate(model, PROBE, resolve(["saliency"]), world=World.alone())
    assert_same_state(state_of(model), before)


def test_a_method_that_does_not_fit_is_refused(model: keras.Model) -> None:
    methods = resolve([partial(smoothgrad, noise=-1.0)])
    with pytest.raises((ValueError, PeerError), match="noise is a standard deviation"):
        estimate(model, PROBE, methods, world=World.alone())
