"""tf-explain without its pictures; it takes one class at a time.

Its SmoothGrad explains the cross-entropy, and is left out.
"""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
from tf_explain.core import occlusion_sensitivity
from tf_explain.core.grad_cam import GradCAM
from tf_explain.core.gradients_inputs import GradientsInputs
from tf_explain.core.integrated_gradients import IntegratedGradients
from tf_explain.core.occlusion_sensitivity import OcclusionSensitivity
from tf_explain.core.vanilla_gradients import VanillaGradients

from cross_checks.probe import LAYER, N_STEPS, PATCH, Check, Probe


def checks(probe: Probe) -> dict[str, Check]:
    """Returns what tf-explain can run."""
    cnn, images = probe.model("cnn"), probe.examples("images")
    model = keras.Model(cnn.inputs, cnn.outputs[0])
    # it enlarges the map
    occlusion_sensitivity.cv2 = SimpleNamespace(resize=lambda of_patches, _: of_patches)

    def each(explain: Callable[[np.ndarray, int], Any]) -> np.ndarray:
        return np.concatenate(
            [np.asarray(explain(image[None], target)) for image, target in images]
        )

    def integrated_gradients(image: np.ndarray, target: int) -> Any:
        path = np.asarray(IntegratedGradients.generate_interpolations(image, N_STEPS), np.float32)
        return image * IntegratedGradients.get_integrated_gradients(path, model, target, N_STEPS)

    def grad_cam(image: np.ndarray, target: int) -> Any:
        filters, gradients = GradCAM.get_gradients_and_filters(model, image, LAYER, target, False)
        return np.maximum(GradCAM.generate_ponderated_output(filters, gradients), 0)

    def occlusion(image: np.ndarray, target: int) -> Any:
        # It writes 1 - F(x with a patch).
        written = OcclusionSensitivity().get_sensitivity_map(model, image[0], target, PATCH)
        return written[None] - 1 + float(model(image)[0, target])

    gradients = partial(
        each, lambda image, target: VanillaGradients.compute_gradients(image, model, target)
    )
    gradients_x_inputs = partial(
        each, lambda image, target: GradientsInputs.compute_gradients(image, model, target)
    )
    return {
        "saliency: CNN": gradients,
        "gradient_x_input: CNN": gradients_x_inputs,
        "integrated_gradients: CNN, midpoints": lambda: each(integrated_gradients),
        "grad_cam: CNN": lambda: each(grad_cam),
        "occlusion: CNN, grey": lambda: each(occlusion),
        "tf_explain: CNN, VanillaGradients": gradients,
        "tf_explain: CNN, GradientsInputs": gradients_x_inputs,
        "tf_explain: CNN, GradCAM": lambda: each(grad_cam),
        "tf_explain: CNN, OcclusionSensitivity": lambda: each(occlusion),
    }
