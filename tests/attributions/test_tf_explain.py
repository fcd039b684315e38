"""tf-explain's explainers against ours of the same name, and closed forms of what was mended."""

import sys
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tf_explain import core

from hvd_xai.attributions.grad_cam import grad_cam
from hvd_xai.attributions.gradient_x_input import gradient_x_input
from hvd_xai.attributions.integrated_gradients import integrated_gradients
from hvd_xai.attributions.saliency import saliency
from hvd_xai.attributions.smoothgrad import smoothgrad
from hvd_xai.attributions.tf_explain import tf_explain
from hvd_xai.compute.attribute import Compute
from hvd_xai.protocols import Attribution
from tests import models_under_test as models
from tests.attributions import functions_under_test as under_test

ROUNDING = 2e-6  # the same float32 sums, in another order
EXPLAINERS = (
    "VanillaGradients",
    "GradientsInputs",
    "IntegratedGradients",
    "SmoothGrad",
    "GradCAM",
    "OcclusionSensitivity",
)


def half(inputs: tf.Tensor) -> tf.Tensor:
    return tf.fill(tf.shape(inputs), 0.5)


def first_rows(inputs: tf.Tensor) -> tf.Tensor:
    return inputs[:, :1]


def logit(outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    return tf.math.log(tf.gather(outputs, targets, batch_dims=1))


def check(explainer: str, model: keras.Model, inputs: np.ndarray, **options: Any) -> None:
    """Checks a method without explaining anything, which finds all that can be wrong beforehand."""
    Compute(model, partial(tf_explain, explainer=explainer, **options)).check(
        inputs, np.zeros(len(inputs), np.int64)
    )


def test_every_explainer_of_the_library_is_there_or_refused() -> None:
    assert sorted([*EXPLAINERS, "ExtractActivations"]) == sorted(core.__all__)


@pytest.mark.parametrize(
    ("explainer", "ours", "options"),
    [
        ("VanillaGradients", saliency, {}),
        ("GradientsInputs", gradient_x_input, {}),
        ("IntegratedGradients", integrated_gradients, {"n_steps": 7, "baseline": half}),
        ("SmoothGrad", smoothgrad, {"n_samples": 4, "noise": 0.2, "seed": 3}),
        ("GradCAM", grad_cam, {"layer": "conv"}),
    ],
)
def test_equals_our_method_on_a_model_that_the_library_cannot_rebuild(
    explainer: str, ours: Attribution, options: dict[str, Any]
) -> None:
    inputs, targets, _ = models.examples(9)  # each of its own target
    model = models.functional_in_subclassed()
    method = partial(ours, is_relative=False) if ours is smoothgrad else ours
    got = under_test.explain(
        model,
        tf_explain,
        inputs,
        targets,
        explainer=explainer,
        score=logit,
        micro_batch=16,
        **options,
    )
    want = under_test.explain(model, method, inputs, targets, score=logit, **options)
    assert under_test.relative_error(got.attributions, want.attributions) < ROUNDING
    assert got.per_sample.keys() == want.per_sample.keys()
    for name, values in want.per_sample.items():
        assert np.abs(got.per_sample[name] - values).max() < ROUNDING


def test_integrated_gradients_of_closed_form() -> None:
    got = under_test.explain_functions(tf_explain, n_steps=2)
    points = under_test.POINTS
    assert (
        under_test.relative_error(got["linear"].attributions, under_test.WEIGHTS * points)
        < ROUNDING
    )
    assert under_test.relative_error(got["square"].attributions, points**2) < ROUNDING
    total = points.sum(axis=1, keepdims=True)
    # its own path loses an end
    assert (
        under_test.relative_error(got["relu"].attributions, np.where(total > 0, points, 0))
        < ROUNDING
    )
    # Two midpoints of 3 x^2 are 15/16 of it: what the sum misses is told.
    assert under_test.relative_error(got["cube"].attributions, 15 / 16 * points**3) < ROUNDING
    assert (
        under_test.relative_error(
            got["cube"].per_sample["convergence_delta"], -(points**3).sum(axis=1) / 16
        )
        < 10 * ROUNDING
    )


def test_smoothgrad_of_a_linear_model_is_its_weights_whatever_the_noise() -> None:
    got = under_test.explain_functions(tf_explain, explainer="SmoothGrad", noise=100.0)
    assert (
        under_test.relative_error(got["linear"].attributions, np.tile(under_test.WEIGHTS, (2, 1)))
        < ROUNDING
    )


def test_grad_cam_knows_series() -> None:
    keras.utils.set_random_seed(5)
    layers = [
        keras.layers.Conv1D(4, 3, activation="relu"),
        keras.layers.GlobalAveragePooling1D(),
        keras.layers.Dense(2),
    ]
    model = keras.Sequential([keras.Input((9, 2)), *layers])
    inputs = np.random.default_rng(5).normal(size=(4, 9, 2)).astype(np.float32)
    got = under_test.explain(model, tf_explain, inputs, explainer="GradCAM").attributions
    assert (
        under_test.relative_error(got, under_test.explain(model, grad_cam, inputs).attributions)
        < ROUNDING
    )


def test_guided_grad_cam_drops_negative_gradients_and_silent_places() -> None:
    inputs = keras.Input((2, 1, 1))
    conv, head = keras.layers.Conv2D(2, 1, name="conv"), keras.layers.Dense(1, use_bias=False)
    model = keras.Model(inputs, head(keras.layers.Flatten()(conv(inputs))))
    conv.set_weights([np.array([[[[1.0, -1.0]]]], np.float32), np.zeros(2, np.float32)])
    head.set_weights([np.array([[2.0], [5.0], [-3.0], [7.0]], np.float32)])
    x = np.array([4.0, 1.0], np.float32).reshape(1, 2, 1, 1)
    # The first channel is x, of gradient 2 and -3; the second is -x, nowhere positive.
    got = [
        under_test.explain(
            model, tf_explain, x, explainer="GradCAM", use_guided_grads=guided
        ).attributions
        for guided in (False, True)
    ]
    mean, guided_mean = [(2 - 3) / 2, (5 + 7) / 2], [(2 + 0) / 2, 0]
    np.testing.assert_allclose(got[0], np.maximum((mean[0] - mean[1]) * x[..., 0], 0))
    np.testing.assert_allclose(got[1], np.maximum((guided_mean[0] - guided_mean[1]) * x[..., 0], 0))
    assert got[1].max() > 0


@pytest.mark.parametrize("shape", [(5, 8, 2), (7, 3)])
def test_occlusion_of_a_linear_model_is_what_the_patch_takes_away(shape: tuple[int, ...]) -> None:
    model = keras.Sequential(
        [keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(2, use_bias=False)]
    )
    generator = np.random.default_rng(2)
    weights = generator.normal(size=(int(np.prod(shape)), 2)).astype(np.float32)
    model.set_weights([weights])
    inputs, targets = generator.normal(size=(3, *shape)).astype(np.float32), np.array([0, 1, 1])
    got = under_test.explain(
        model,
        tf_explain,
        inputs,
        targets,
        explainer="OcclusionSensitivity",
        patch_size=3,
        baseline=half,
        micro_batch=4,
    ).attributions
    terms = (
        (weights.T[targets].reshape(inputs.shape) * (inputs - 0.5))
        .reshape(3, *shape[:2], -1)
        .sum(axis=-1)
    )
    want = np.stack(
        [
            terms[:, y : y + 3, x : x + 3].sum(axis=(1, 2))
            for y in range(0, shape[0], 3)
            for x in range(0, shape[1], 3)
        ],
        axis=1,
    )
    assert got.shape == (3, -(-shape[0] // 3), -(-shape[1] // 3))
    # differences of scores ten times their size
    assert under_test.relative_error(got.reshape(3, -1), want) < 10 * ROUNDING


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"explainer": "Saliency"},
            "'Saliency' is none of tf-explain's; pass explainer= one of 'VanillaGradients', ",
        ),
        (
            {"explainer": "ExtractActivations"},
            "'ExtractActivations' shows activations and attributes nothing; pass explainer= one of",
        ),
        ({"explainer": "IntegratedGradients", "n_steps": 1}, "needs n_steps >= 2"),
        (
            {"explainer": "IntegratedGradients", "baseline": first_rows},
            r"a baseline has the shape of the inputs, \(25, 8, 8, 1\)",
        ),
        ({"explainer": "SmoothGrad", "noise": -1.0}, "noise >= 0 .* -1.0"),
        (
            {"explainer": "GradCAM", "layer": "flatten"},
            "`tf_explain` needs a layer with a spatial output",
        ),
        ({"explainer": "OcclusionSensitivity", "patch_size": 0}, "patch_size >= 1"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(
            model=models.functional(),
            inputs=np.zeros((0, *models.INPUT_SHAPE), np.float32),
            **options,
        )


def test_occlusion_of_what_is_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"OcclusionSensitivity needs images, \(n, h, w\)"):
        check("OcclusionSensitivity", under_test.functions(), under_test.POINTS)


@pytest.mark.parametrize(
    "explainer", ["VanillaGradients", "GradientsInputs", "IntegratedGradients", "SmoothGrad"]
)
def test_a_score_without_a_gradient_is_refused(explainer: str) -> None:
    model = keras.Sequential(
        [keras.Input((3,), dtype="int32"), keras.layers.Embedding(5, 2), keras.layers.Flatten()]
    )
    with pytest.raises(ValueError, match="take `layer_integrated_gradients` at their embedding"):
        check(explainer, model, np.zeros((1, 3), np.int32))


def test_the_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "hvd_xai.attributions.tf_explain"
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tf_explain", None)
    with pytest.raises(ImportError, match=r"pip install 'hvd_xai\[tf_explain\]'"):
        __import__(name)
