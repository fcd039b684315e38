"""Xplique with its channels unreduced."""

from typing import Any

import numpy as np
import tensorflow as tf
from sklearn.linear_model import Ridge
from xplique import attributions as methods
from xplique.attributions.global_sensitivity_analysis.replicated_designs import ReplicatedSampler
from xplique.attributions.global_sensitivity_analysis.sobol_estimators import JansenEstimator

from cross_checks.probe import (
    LAYER,
    N_CELLS,
    N_CLASSES,
    N_COALITIONS,
    N_MASKS,
    N_NOISY,
    N_STEPS,
    N_STEPS_UNTIL_EQUAL,
    NOISE,
    PATCH,
    Check,
    Probe,
    repeated,
    shares,
)


class SameDesign(ReplicatedSampler):  # type: ignore[misc]
    """The design that was drawn for everybody."""

    def __init__(self, design: np.ndarray) -> None:
        self._of_all = tf.constant(design, tf.float32)

    def __call__(self, dimension: int, nb_design: int) -> Any:
        """Returns both halves, and the first with one coordinate at a time from the second."""
        a, b = self._of_all[:nb_design, :dimension], self._of_all[:nb_design, dimension:]
        return tf.concat([a, b, self.build_replicated_design(a, b)], axis=0)


class Kept(JansenEstimator):  # type: ignore[misc]
    """Keeps the maps, which the method enlarges."""

    def __init__(self) -> None:
        self.maps: list[np.ndarray] = []

    def __call__(self, masks: Any, outputs: Any, nb_design: int) -> Any:
        """Estimates, and keeps."""
        estimated = super().__call__(masks, outputs, nb_design)
        self.maps.append(np.asarray(estimated)[..., 0])
        return estimated


def checks(probe: Probe) -> dict[str, Check]:
    """Returns what Xplique can run."""
    tf.random.set_seed(0)
    cnn, mlp = probe.model("cnn"), probe.model("mlp")
    images, table = probe.examples("images"), probe.examples("table")
    x, of_x = images.inputs, images.one_hot(10)
    rows, of_rows = table.inputs, table.one_hot(N_CLASSES)
    noisy = {"nb_samples": N_NOISY, "noise": NOISE, "reducer": None, "batch_size": N_NOISY * len(x)}

    def run(explainer: Any) -> np.ndarray:
        return np.asarray(explainer.explain(x, of_x))

    def on_rows(explainer: Any) -> np.ndarray:
        return np.asarray(explainer.explain(rows, of_rows))

    def coarse(kind: Any) -> np.ndarray:
        explainer = kind(cnn, conv_layer=LAYER)
        maps, gradients = explainer._gradient(tf.constant(x), tf.constant(of_x))
        return np.asarray(
            explainer._apply_weights(explainer._compute_weights(gradients, maps), maps)
        )

    def lime() -> np.ndarray:
        waiting = [
            np.concatenate([np.ones((1, N_CELLS**2)), versions]) for versions in probe["versions"]
        ]

        def similarity(_: Any, versions: Any, __: Any) -> Any:
            distance = 1 - tf.sqrt(tf.reduce_mean(tf.cast(versions, tf.float32), axis=1))
            return tf.exp(-(distance**2) / 0.25**2)

        explainer = methods.Lime(
            cnn,
            interpretable_model=Ridge(alpha=1.0),
            similarity_kernel=similarity,
            pertub_func=lambda *_: tf.constant(waiting.pop(0), tf.int32),
            map_to_interpret_space=lambda _: tf.constant(probe.cells, tf.int32),
            nb_samples=len(waiting[0]),
        )
        return run(explainer)[:, ::PATCH, ::PATCH, 0]

    def sobol() -> np.ndarray:
        design, kept = probe["design"], Kept()
        run(methods.SobolAttributionMethod(cnn, N_CELLS, len(design), SameDesign(design), kept))
        return shares(np.stack(kept.maps))

    return {
        "saliency: CNN, sizes": lambda: run(methods.Saliency(cnn, reducer=None)),
        "gradient_x_input: CNN": lambda: run(methods.GradientInput(cnn, reducer=None)),
        "integrated_gradients: CNN, midpoints": lambda: run(
            methods.IntegratedGradients(cnn, steps=N_STEPS, reducer=None)
        ),
        "integrated_gradients: MLP, many points": lambda: on_rows(
            methods.IntegratedGradients(mlp, steps=N_STEPS_UNTIL_EQUAL, reducer=None)
        ),
        "smoothgrad: CNN, draws": repeated(lambda: run(methods.SmoothGrad(cnn, **noisy))),
        "squaregrad: CNN, draws": repeated(lambda: run(methods.SquareGrad(cnn, **noisy))),
        "vargrad: CNN, draws": repeated(
            lambda: run(methods.VarGrad(cnn, **noisy)) * (N_NOISY - 1) / N_NOISY
        ),
        "guided_backprop: CNN": lambda: run(methods.GuidedBackprop(cnn, reducer=None)),
        "deconvnet: CNN": lambda: run(methods.DeconvNet(cnn, reducer=None)),
        "grad_cam: CNN": lambda: coarse(methods.GradCAM),
        "grad_cam_plus_plus: CNN": lambda: coarse(methods.GradCAMPP),
        "occlusion: CNN, apart": lambda: run(
            methods.Occlusion(cnn, patch_size=PATCH, patch_stride=PATCH)
        )[:, ::PATCH, ::PATCH, 0],
        "occlusion: MLP": lambda: on_rows(methods.Occlusion(mlp, patch_size=1, patch_stride=1)),
        "lime: CNN, the same versions": lime,
        "kernel_shap: MLP, draws": repeated(
            lambda: on_rows(methods.KernelShap(mlp, nb_samples=N_COALITIONS // 3))
        ),
        "rise: CNN, draws": repeated(
            lambda: run(methods.Rise(cnn, nb_samples=N_MASKS, grid_size=N_CELLS))[..., 0]
        ),
        "rise: MLP, draws": repeated(lambda: on_rows(methods.Rise(mlp, nb_samples=N_MASKS))),
        "sobol: CNN, the same design": sobol,
    }
