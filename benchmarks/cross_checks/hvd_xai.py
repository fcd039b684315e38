"""Our methods, through the engine that `Explain` uses.

All others run the checks of these names that they can.
"""

from functools import partial
from typing import Any

import keras
import numpy as np

from cross_checks.probe import (
    GREY,
    LAYER,
    MAX_SIGMA,
    N_COALITIONS,
    N_MASKS,
    N_NOISY,
    N_ORDERS,
    N_REPETITIONS,
    N_STEPS,
    N_STEPS_UNTIL_EQUAL,
    NOISE,
    PATCH,
    TF_EXPLAIN,
    Check,
    Probe,
    shares,
)
from hvd_xai import baselines
from hvd_xai.compute.attribute import Compute
from hvd_xai.lookup.methods import load_method
from hvd_xai.tracing import micro_batches

# one place of each cell of a map
CELLS = (
    slice(None),
    slice(None, None, PATCH),
    slice(None, None, PATCH),
)


def checks(probe: Probe) -> dict[str, Check]:
    """Returns our own checks by name: `method: on what, how`.

    Checks with "draws" in their name return several repetitions.
    """
    models = {name: probe.model(name) for name in ("cnn", "mlp", "reader")}
    model_of = {"images": "cnn", "framed": "cnn", "table": "mlp", "tokens": "reader"}

    def run(
        method: str, on: str = "images", n_times: int = 1, model: Any = None, **options: Any
    ) -> np.ndarray:
        examples = probe.examples(on).repeated(n_times)
        function = partial(load_method(method), **options) if options else load_method(method)
        compute = Compute(
            model or models[model_of[on]],
            function,
            micro_batch=micro_batches.propose_size(examples.inputs.shape[1:]),
        )
        return compute(
            examples.inputs, examples.targets, np.arange(len(examples.inputs))
        ).attributions

    def draws(method: str, on: str = "images", **options: Any) -> np.ndarray:
        # What is random depends on the sample id, so that other ids are other draws.
        attributions = run(method, on, n_times=N_REPETITIONS, **options)
        return attributions.reshape(N_REPETITIONS, -1, *attributions.shape[1:])

    grey = partial(baselines.constant, value=GREY)
    noisy = {"n_samples": N_NOISY, "noise": NOISE, "is_relative": False}
    every_order, every_coalition = 720, 62  # of six features
    explainers = partial(run, "tf_explain", layer=LAYER, patch_size=PATCH, baseline=grey)
    return {
        "saliency: CNN": lambda: run("saliency"),
        "saliency: CNN, sizes": lambda: np.abs(run("saliency")),
        "gradient_x_input: CNN": lambda: run("gradient_x_input"),
        "integrated_gradients: CNN, midpoints": lambda: run(
            "integrated_gradients", n_steps=N_STEPS
        ),
        "integrated_gradients: CNN, Gauss": lambda: run(
            "integrated_gradients", n_steps=N_STEPS, rule="gauss_legendre"
        ),
        "integrated_gradients: MLP, many points": lambda: run(
            "integrated_gradients", "table", n_steps=N_STEPS_UNTIL_EQUAL
        ),
        "guided_integrated_gradients: CNN": lambda: run("guided_integrated_gradients", n_steps=200),
        "guided_integrated_gradients: MLP, many points": lambda: run(
            "guided_integrated_gradients", "table", n_steps=N_STEPS_UNTIL_EQUAL
        ),
        "blur_integrated_gradients: CNN": lambda: run(
            "blur_integrated_gradients", "framed", n_steps=200, max_sigma=MAX_SIGMA
        ),
        "layer_integrated_gradients: tokens": lambda: run(
            "layer_integrated_gradients", "tokens", baseline=0, n_steps=N_STEPS
        ),
        "layer_conductance: MLP, many points": lambda: run(
            "layer_conductance", "table", layer="first", n_steps=N_STEPS_UNTIL_EQUAL
        ),
        "expected_gradients: MLP, draws": lambda: run(
            "expected_gradients", "table", background=probe["background"], n_steps=N_STEPS
        )[None],
        "deep_lift: CNN": lambda: run("deep_lift"),
        "deep_lift: CNN, layers between": lambda: run("deep_lift"),
        "deep_lift: MLP": lambda: run("deep_lift", "table"),
        "smoothgrad: CNN, draws": lambda: draws("smoothgrad", **noisy),
        "squaregrad: CNN, draws": lambda: draws("squaregrad", **noisy),
        "vargrad: CNN, draws": lambda: draws("vargrad", **noisy),
        "smoothgrad: CNN, relative noise, draws": lambda: draws(
            "smoothgrad", n_samples=N_NOISY, noise=NOISE
        ),
        "guided_backprop: CNN": lambda: run("guided_backprop"),
        "deconvnet: CNN": lambda: run("deconvnet"),
        "grad_cam: CNN": lambda: run("grad_cam", layer=LAYER),
        "grad_cam_plus_plus: CNN": lambda: run("grad_cam_plus_plus", layer=LAYER),
        "hires_cam: CNN": lambda: run("hires_cam", layer=LAYER),
        "layer_cam: CNN": lambda: run("layer_cam", layer=LAYER),
        "score_cam: CNN": lambda: run("score_cam", layer=LAYER),
        "score_cam: CNN, centres aligned": lambda: run("score_cam", layer=LAYER),
        "eigen_cam: CNN": lambda: run("eigen_cam", layer=LAYER),
        "eigen_cam: CNN, centred, sizes": lambda: np.abs(
            run("eigen_cam", model=_centred(models["cnn"]))
        ),
        "occlusion: CNN, apart": lambda: run("occlusion", patch=PATCH)[CELLS],
        "occlusion: CNN, overlapping": lambda: run("occlusion", patch=PATCH, stride=2),
        "occlusion: CNN, one place on": lambda: run("occlusion", patch=PATCH, stride=1),
        "occlusion: CNN, grey": lambda: run("occlusion", patch=PATCH, baseline=grey)[CELLS],
        "occlusion: MLP": lambda: run("occlusion", "table"),
        "feature_permutation: CNN, to zero": lambda: run("feature_permutation", patch=PATCH),
        "feature_permutation: MLP, all others": lambda: run(
            "feature_permutation", "table", background=probe["table"]
        ),
        "permutation_shap: MLP, all orders": lambda: run(
            "permutation_shap", "table", n_permutations=every_order
        ),
        "kernel_shap: MLP, all coalitions": lambda: run(
            "kernel_shap", "table", n_samples=every_coalition
        ),
        "permutation_shap: CNN, draws": lambda: draws(
            "permutation_shap", patch=PATCH, n_permutations=N_ORDERS
        ),
        "kernel_shap: MLP, draws": lambda: run("kernel_shap", "table", n_samples=every_coalition)[
            None
        ],
        "kernel_shap: CNN, draws": lambda: draws(
            "kernel_shap", patch=PATCH, n_samples=N_COALITIONS
        ),
        "lime: CNN, the same versions": lambda: run(
            "lime", patch=PATCH, n_samples=1 + len(probe["versions"][0])
        ),
        "rise: CNN, draws": lambda: draws("rise", patch=PATCH, n_masks=N_MASKS),
        "rise: MLP, draws": lambda: draws("rise", "table", n_masks=N_MASKS),
        "sobol: CNN, the same design": lambda: shares(run("sobol", patch=PATCH)),
        **{
            f"tf_explain: CNN, {explainer}": partial(explainers, explainer=explainer)
            for explainer in TF_EXPLAIN
        },
    }


def _centred(cnn: keras.Model) -> keras.Model:
    """Returns a model that ends with the maps of a layer, centred."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            *cnn.layers[: cnn.layers.index(cnn.get_layer(LAYER)) + 1],
            _Centred(),
        ]
    )


class _Centred(keras.Layer):  # type: ignore[misc]
    """Takes the mean over places off each channel."""

    def call(self, maps: Any) -> Any:
        """Returns the maps, centred."""
        return maps - keras.ops.mean(maps, axis=(1, 2), keepdims=True)
