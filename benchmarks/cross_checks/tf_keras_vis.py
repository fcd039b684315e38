"""tf-keras-vis: signed, neither normalised nor enlarged."""

import numpy as np
import tensorflow as tf
from tf_keras_vis.gradcam import Gradcam
from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
from tf_keras_vis.layercam import Layercam
from tf_keras_vis.saliency import Saliency
from tf_keras_vis.scorecam import Scorecam
from tf_keras_vis.utils.scores import CategoricalScore

from cross_checks.probe import LAYER, N_NOISY, NOISE, Check, Probe, repeated


def checks(probe: Probe) -> dict[str, Check]:
    """Returns what tf-keras-vis can run."""
    np.random.seed(0)  # it draws from NumPy's global stream  # noqa: NPY002
    cnn, images = probe.model("cnn"), probe.examples("images")
    score = CategoricalScore(images.targets.tolist())
    raw = {"keepdims": True, "normalize_map": False, "gradient_modifier": None}
    coarse = {"penultimate_layer": LAYER, "expand_cam": False, "normalize_cam": False}
    x = tf.constant(images.inputs)
    return {
        "saliency: CNN": lambda: np.asarray(Saliency(cnn)(score, x, **raw)),
        "smoothgrad: CNN, relative noise, draws": repeated(
            lambda: np.asarray(
                Saliency(cnn)(
                    score, images.inputs, smooth_samples=N_NOISY, smooth_noise=NOISE, **raw
                )
            )
        ),
        "grad_cam: CNN": lambda: np.asarray(Gradcam(cnn)(score, x, **coarse)),
        "grad_cam_plus_plus: CNN": lambda: np.asarray(GradcamPlusPlus(cnn)(score, x, **coarse)),
        "layer_cam: CNN": lambda: np.asarray(Layercam(cnn)(score, x, **coarse)),
        "score_cam: CNN": lambda: np.asarray(Scorecam(cnn)(score, x, **coarse)),
    }
