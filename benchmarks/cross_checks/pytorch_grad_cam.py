"""pytorch-grad-cam: maps at the layer's own resolution, before it scales them to 0 to 1."""

from functools import partial
from typing import Any

import numpy as np
import pytorch_grad_cam as library
import torch
from contenders import torch_cnn
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from cross_checks.probe import Check, Probe


def checks(probe: Probe) -> dict[str, Check]:
    """Returns what pytorch-grad-cam can run."""
    cnn = torch_cnn(probe.weights("cnn"))
    images = probe.examples("images")
    x = torch.tensor(images.inputs).permute(0, 3, 1, 2)
    targets = [ClassifierOutputTarget(int(target)) for target in images.targets]

    def maps(kind: Any) -> np.ndarray:
        found: list[np.ndarray] = []
        with kind(model=cnn, target_layers=[cnn.relu2]) as explainer:
            of_layer = explainer.get_cam_image

            def keep(*given: Any) -> np.ndarray:
                found.append(of_layer(*given))
                return found[0]

            explainer.get_cam_image = keep
            explainer(input_tensor=x, targets=targets)
        return found[0]

    def score_cam() -> np.ndarray:
        # It enlarges maps so that their corners are aligned.
        enlarge = torch.nn.UpsamplingBilinear2d
        torch.nn.UpsamplingBilinear2d = partial(torch.nn.Upsample, mode="bilinear")
        try:
            return maps(library.ScoreCAM)
        finally:
            torch.nn.UpsamplingBilinear2d = enlarge

    return {
        "grad_cam: CNN": lambda: np.maximum(maps(library.GradCAM), 0),
        "grad_cam_plus_plus: CNN": lambda: np.maximum(maps(library.GradCAMPlusPlus), 0),
        "hires_cam: CNN": lambda: maps(library.HiResCAM),
        "layer_cam: CNN": lambda: np.maximum(maps(library.LayerCAM), 0),
        "score_cam: CNN": lambda: np.maximum(maps(library.ScoreCAM), 0),
        "score_cam: CNN, centres aligned": score_cam,
        "eigen_cam: CNN": lambda: maps(library.EigenCAM),
        "eigen_cam: CNN, centred, sizes": lambda: np.abs(maps(library.EigenCAM)),
    }
