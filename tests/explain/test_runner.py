import json
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai import open_explanations
from hvd_xai.analysis.statistics import compute_statistics
from hvd_xai.attributions.integrated_gradients import integrated_gradients
from hvd_xai.explain.once import explain
from hvd_xai.lookup.methods import load_method
from hvd_xai.probe.probe import Probe
from hvd_xai.protocols import Attributed, Attribution
from hvd_xai.ranks.world import World
from tests.models_under_test import functional


def test_a_name_of_its_own_leaves_no_trace(tmp_path: Path) -> None:
    probe = Probe(np.ones((2, 8, 8, 1), np.float32), np.zeros(2, np.int32))
    model, as_it_is, under_its_name = functional(), tmp_path / "a" / "run", tmp_path / "b" / "run"
    explain(model, probe, ["saliency"], world=World.alone(), run=as_it_is)
    explain(model, probe, {"saliency": "saliency"}, world=World.alone(), run=under_its_name)
    first, second = (
        json.loads((run / "explanations/epochs/000000/saliency/manifest.json").read_text())
        for run in (as_it_is, under_its_name)
    )
    for record in (first, second):
        for name in ("created", "digest"):
            record.pop(name)
    assert first == second
    assert "function" not in first


def test_accuracy_is_known_of_binary_targets_and_one_probability_alone(tmp_path: Path) -> None:
    keras.utils.set_random_seed(3)
    inputs = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    logits = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model = keras.Sequential([logits, keras.layers.Activation("sigmoid")])
    targets = np.arange(20) % 2
    right = ((model.predict(inputs, verbose=0)[:, 0] > 0.5) == targets).mean()
    assert right not in (0, 1)
    found = []
    for number, (explained, of) in enumerate(
        [(model, targets), (logits, targets), (model, targets + 1), (model, targets / 2)]
    ):
        run = tmp_path / str(number)
        explain(explained, Probe(inputs, of), ["saliency"], world=World.alone(), run=run)
        explanations = open_explanations(run)
        found.append(
            compute_statistics(explanations, explanations.explanation(0, "saliency")).accuracy
        )
    assert found == [pytest.approx(right), None, None, None]


def _of_units(
    model: keras.Model, inputs: tf.Tensor, targets: tf.Tensor, /, *, ids: tf.Tensor, unit_layer: str
) -> Attributed:
    """Attributes to the three units of a layer, which an option of any name may choose."""
    units = tf.matmul(inputs, model.get_layer(unit_layer).kernel.value)
    return Attributed(units, attributed_to="units")


def _of_layer(
    model: keras.Model, inputs: tf.Tensor, targets: tf.Tensor, /, *, ids: tf.Tensor, layer: str
) -> Attributed:
    return _of_units(model, inputs, targets, ids=ids, unit_layer=layer)


def _of_inputs(
    model: keras.Model, inputs: tf.Tensor, targets: tf.Tensor, /, *, ids: tf.Tensor, layer: str
) -> Attributed:
    return Attributed(inputs, attributed_to="inputs")


def test_what_a_method_says_decides_about_names_and_not_what_its_options_are_called(
    tmp_path: Path,
) -> None:
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(3, name="hidden"), keras.layers.Dense(2)]
    )
    names = ("age", "height", "weight")
    probe = Probe(np.ones((4, 3), np.float32), np.zeros(4, np.int32), feature_names=names)
    methods: dict[str, Attribution | str] = {
        "by_unit_layer": partial(_of_units, unit_layer="hidden"),
        "by_layer": partial(_of_layer, layer="hidden"),
        "of_inputs": partial(_of_inputs, layer="hidden"),
    }
    explain(model, probe, methods, world=World.alone(), run=tmp_path / "run")
    found = {one.manifest.method: one for one in open_explanations(tmp_path / "run")}
    assert [found[name].manifest.attributed_to for name in methods] == ["units", "units", "inputs"]
    assert [found[name].feature_names for name in methods] == [(), (), names]


def _sigmoid(weight: float) -> keras.Model:
    start = keras.initializers.Constant(weight)
    dense = keras.layers.Dense(1, "sigmoid", kernel_initializer=start)
    return keras.Sequential([keras.Input((1,)), dense])


def test_an_explanation_that_means_little_is_told_and_recorded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    x = keras.Input((1,))
    power = keras.Model(x, keras.ops.power(x, 4.0))
    one_step = partial(integrated_gradients, n_steps=1)
    integers, values = np.array([0, 1, 1, 1]), np.array([0.5, 1.0, 1.0, 1.0], np.float32)
    cases: list[tuple[keras.Model, np.ndarray, Attribution | str, dict[str, int]]] = [
        # from 0 to 1 the slope of x^4 is 1/2 in the middle, and the gain is 1
        (power, values, one_step, {"gap": 4}),
        (power, values, "saliency", {}),
        (_sigmoid(0.5), integers, "saliency", {"other class": 1}),
        # sigmoid'(50) = p (1 - p) is zero in float32
        (_sigmoid(50.0), values, "saliency", {"zero": 4, "saturated": 4}),
        (_sigmoid(50.0), values, partial(load_method("saliency"), score="logit"), {}),
        (
            _sigmoid(0.5),
            integers,
            partial(load_method("saliency"), score="target_probability"),
            {},
        ),
    ]
    for number, (model, targets, method, expected) in enumerate(cases):
        caplog.clear()
        run, probe = tmp_path / str(number), Probe(np.ones((4, 1), np.float32), targets)
        explain(model, probe, [method], world=World.alone(), run=run)
        (explanation,) = open_explanations(run)
        assert explanation.manifest.doubts == expected
        warned = [one for one in caplog.records if one.levelname == "WARNING"]
        assert len(warned) == bool(expected)
    manifest = explanation.manifest
    assert (manifest.score_facts.unit, manifest.score_facts.of_class) == ("probability", "target")
    # p of class 1 rises with the input by p (1 - p) / 2; the probability of class 0 falls alike
    slopes = explanation.attributions()[:, 0]
    np.testing.assert_allclose(slopes, 0.1175 * np.array([-1, 1, 1, 1]), atol=1e-4)


def test_a_kind_that_there_is_not_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    probe = Probe(np.ones((2, 1), np.float32), np.zeros(2, np.int32), kind="imgae")
    with pytest.raises(ValueError, match="kind= of a probe is one of 'image'"):
        explain(_sigmoid(0.5), probe, ["saliency"], world=World.alone(), run=tmp_path / "run")
    assert not (tmp_path / "run").exists()
