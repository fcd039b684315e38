"""Methods are compiled once for a model and a probe."""

from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.attributions.integrated_gradients import integrated_gradients
from hvd_xai.attributions.smoothgrad import smoothgrad
from hvd_xai.explain.compiled_methods import CompiledMethods
from hvd_xai.explain.share import ProbeShare
from hvd_xai.lookup.resolve import resolve
from hvd_xai.probe.probe import Probe
from hvd_xai.protocols import Attributed
from hvd_xai.ranks.world import World
from tests.models_under_test import functional

PROBE = Probe(np.random.default_rng(0).random((9, 8, 8, 1), np.float32), np.arange(9) % 3)


def unsaid(
    model: keras.Model, inputs: tf.Tensor, targets: tf.Tensor, /, *, ids: tf.Tensor
) -> tf.Tensor:
    return tf.cast(inputs, tf.float32)


def said(
    model: keras.Model, inputs: tf.Tensor, targets: tf.Tensor, /, *, ids: tf.Tensor
) -> Attributed:
    return Attributed(tf.cast(inputs, tf.float32), attributed_to="inputs")


def test_a_score_is_predicted_once_however_many_methods_explain_it() -> None:
    methods = resolve(["saliency", "grad_cam", partial(integrated_gradients, score="logit")])
    model = functional()
    share = ProbeShare.cut(PROBE, World.alone())
    compiled = CompiledMethods(model, PROBE, methods)
    compiled.check(share)
    predicted = compiled.predict(share)
    assert list(predicted) == ["output", "logit"]
    outputs = model.predict(PROBE.inputs, verbose=0)
    np.testing.assert_array_equal(predicted["output"].predictions, outputs.argmax(axis=1))
    np.testing.assert_allclose(
        predicted["output"].scores, outputs[np.arange(9), PROBE.targets], rtol=1e-5
    )


def test_checking_twice_traces_once() -> None:
    compiled = CompiledMethods(functional(), PROBE, resolve(["saliency"]))
    for _ in range(2):
        compiled.check(ProbeShare.cut(PROBE, World.alone()))
    assert compiled.computes["saliency"].n_traces == 1


def test_of_several_methods_the_one_that_does_not_fit_is_named() -> None:
    methods = resolve(["saliency", partial(smoothgrad, noise=-1.0)])
    compiled = CompiledMethods(functional(), PROBE, methods)
    with pytest.raises(ValueError, match="method 'smoothgrad': noise is a standard deviation"):
        compiled.check(ProbeShare.cut(PROBE, World.alone()))


def test_methods_that_say_nothing_are_told_where_the_probe_has_names() -> None:
    table = np.ones((4, 3), np.float32)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    told = {}
    for names in ((), ("age", "height", "weight")):
        probe = Probe(table, np.zeros(4, np.int32), feature_names=names)
        compiled = CompiledMethods(model, probe, resolve([said, unsaid, "saliency"]))
        compiled.check(ProbeShare.cut(probe, World.alone()))
        told[names] = compiled.without_names()
    assert list(told.values()) == [[], ["unsaid"]]
