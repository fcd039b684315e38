"""Saliency of Google's PAIR, which takes one image at a time, and the gradient as a function."""

from collections.abc import Callable
from typing import Any

import numpy as np
import saliency.core as library
import tensorflow as tf

from cross_checks.probe import (
    LAYER,
    MAX_SIGMA,
    N_NOISY,
    N_STEPS,
    N_STEPS_UNTIL_EQUAL,
    NOISE,
    PATCH,
    Check,
    Examples,
    Probe,
    repeated,
)


def checks(probe: Probe) -> dict[str, Check]:
    """Returns what saliency can run."""
    np.random.seed(0)  # it draws from NumPy's global stream  # noqa: NPY002
    np.quantile = _quantile(np.quantile)
    cnn, mlp = probe.model("cnn"), probe.model("mlp")
    images, framed = probe.examples("images"), probe.examples("framed")
    both = tf.keras.Model(cnn.inputs, [cnn.get_layer(LAYER).output, cnn.outputs[0]])

    @tf.function(reduce_retracing=True)
    def forward_and_back(x: Any, target: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            activations, outputs = both(x, training=False)
            scores = outputs[:, target]
            total = tf.reduce_sum(scores)
        return activations, scores, *tape.gradient(total, [x, activations])

    def call(
        x: np.ndarray, call_model_args: int, expected_keys: list[str]
    ) -> dict[str, np.ndarray]:
        activations, scores, gradient, of_layer = forward_and_back(
            tf.constant(x, tf.float32), tf.constant(call_model_args)
        )
        known = {
            library.base.INPUT_OUTPUT_GRADIENTS: gradient,
            library.base.OUTPUT_LAYER_VALUES: scores,
            library.base.CONVOLUTION_LAYER_VALUES: activations,
            library.base.CONVOLUTION_OUTPUT_GRADIENTS: of_layer,
        }
        return {key: known[key].numpy() for key in expected_keys}

    @tf.function(reduce_retracing=True)
    def back(x: Any, target: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            total = tf.reduce_sum(mlp(x, training=False)[:, target])
        return tape.gradient(total, x)

    def gradient_of_row(
        x: np.ndarray, call_model_args: int, expected_keys: list[str]
    ) -> dict[str, np.ndarray]:
        return dict.fromkeys(
            expected_keys, back(tf.constant(x, tf.float32), tf.constant(call_model_args)).numpy()
        )

    def each(mask: Callable[..., np.ndarray], on: Examples = images, **options: Any) -> np.ndarray:
        return np.stack([mask(image, call, target, **options) for image, target in on])

    def occlusion() -> np.ndarray:
        summed = each(library.Occlusion().GetMask, size=PATCH)[..., 0]
        along = np.convolve(np.ones(summed.shape[1] - PATCH + 1), np.ones(PATCH))
        return summed / np.outer(along, along)  # it sums over the positions that cover a place

    return {
        "saliency: CNN": lambda: each(library.GradientSaliency().GetMask),
        "integrated_gradients: CNN, midpoints": lambda: each(
            library.IntegratedGradients().GetMask,
            x_baseline=np.zeros_like(images.inputs[0]),
            x_steps=N_STEPS - 1,
            batch_size=N_STEPS,
        ),
        "smoothgrad: CNN, relative noise, draws": repeated(
            lambda: each(
                library.GradientSaliency().GetSmoothedMask,
                stdev_spread=NOISE,
                nsamples=N_NOISY,
                magnitude=False,
            )
        ),
        "grad_cam: CNN": lambda: each(
            library.GradCam().GetMask, should_resize=False, three_dims=False
        ),
        "occlusion: CNN, one place on": occlusion,
        "guided_integrated_gradients: CNN": lambda: each(library.GuidedIG().GetMask, x_steps=200),
        "guided_integrated_gradients: MLP, many points": lambda: np.stack(
            [
                library.GuidedIG().GetMask(
                    row, gradient_of_row, target, x_steps=N_STEPS_UNTIL_EQUAL
                )
                for row, target in probe.examples("table")
            ]
        ),
        "blur_integrated_gradients: CNN": lambda: each(
            library.BlurIG().GetMask,
            framed,
            max_sigma=MAX_SIGMA,
            steps=2000,
            grad_step=1e-3,
            batch_size=200,
        ),
    }


def _quantile(quantile: Callable[..., Any]) -> Callable[..., Any]:
    """Calls NumPy's quantile with an argument's name from before NumPy 2.4, as GuidedIG does."""
    return lambda values, share, interpolation="linear", **given: quantile(
        values, share, **{"method": interpolation, **given}
    )
