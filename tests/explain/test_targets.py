"""Targets are found where a data set has none."""

from functools import partial

import keras
import numpy as np

from hvd_xai.attributions.integrated_gradients import integrated_gradients
from hvd_xai.explain.targets import predict_targets
from hvd_xai.probe.probe import Probe
from hvd_xai.ranks.world import World
from tests.models_under_test import functional

OF_PREDICTED = partial(integrated_gradients, score="predicted")


def test_they_are_the_most_likely_classes_or_the_values() -> None:
    inputs = np.random.default_rng(0).random((70, 8, 8, 1), np.float32)
    probe = Probe(inputs, np.zeros(70, np.int32), np.arange(70) * 2)
    model = functional()
    found = predict_targets(model, probe, "predicted", world=World.alone())
    outputs = model.predict(inputs, verbose=0)
    assert found.targets.dtype == np.int32
    np.testing.assert_array_equal(found.targets, outputs.argmax(axis=1))
    assert len(set(found.targets.tolist())) > 1
    np.testing.assert_array_equal(found.sample_ids, probe.sample_ids)

    one = keras.Model(model.inputs, keras.layers.Dense(1)(model.outputs[0]))
    values = predict_targets(
        one,
        probe,
        "regression",
        world=World.alone(),
    ).targets
    # float32
    np.testing.assert_allclose(values, one.predict(inputs, verbose=0)[:, 0], rtol=1e-5, atol=1e-6)
