"""Shap, which explains one output at a time, or all of them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import shap as library
import tensorflow as tf

from cross_checks.probe import (
    N_CELLS,
    N_COALITIONS,
    N_FEATURES,
    N_ORDERS,
    N_PAIRS,
    N_REPETITIONS,
    PATCH,
    Check,
    Examples,
    Probe,
)


def checks(probe: Probe) -> dict[str, Check]:
    """Returns what shap can run."""
    cnn, mlp = probe.model("cnn"), probe.model("mlp")
    images, table = probe.examples("images"), probe.examples("table")
    masks = np.kron(np.eye(N_CELLS**2).reshape(-1, N_CELLS, N_CELLS), np.ones((PATCH, PATCH)))

    @tf.function(reduce_retracing=True)
    def outputs(x: Any) -> Any:
        return cnn(x, training=False)

    def of_class(target: int) -> Callable[[np.ndarray], np.ndarray]:
        return lambda rows: mlp(rows.astype(np.float32), training=False).numpy()[:, target]

    def of_cells(image: np.ndarray, target: int) -> Callable[[np.ndarray], np.ndarray]:
        def score(present: np.ndarray) -> np.ndarray:
            seen = np.tensordot(present, masks, axes=1)[..., None].astype(np.float32)
            return outputs(tf.constant(seen * image)).numpy()[:, target]

        return score

    def chosen(values: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return np.stack(
            [of_all[..., target] for of_all, target in zip(values, targets, strict=True)]
        )

    def deep_lift(model: Any, examples: Examples, baseline: np.ndarray) -> np.ndarray:
        return chosen(
            library.DeepExplainer(model, baseline[None]).shap_values(examples.inputs),
            examples.targets,
        )

    def permutation(score: Callable[[np.ndarray], np.ndarray], seed: int) -> np.ndarray:
        n_cells = N_CELLS**2
        explainer = library.PermutationExplainer(score, np.zeros((1, n_cells)), seed=seed)
        n_evaluations = N_ORDERS * (2 * n_cells + 1)
        return explainer(
            np.ones((1, n_cells)), max_evals=n_evaluations, batch_size=n_evaluations, silent=True
        ).values[0]

    def kernel(score: Callable[[np.ndarray], np.ndarray], seed: int) -> np.ndarray:
        np.random.seed(seed)  # shap draws from NumPy's global stream  # noqa: NPY002
        explainer = library.KernelExplainer(score, np.zeros((1, N_CELLS**2)))
        return explainer.shap_values(
            np.ones(N_CELLS**2), nsamples=N_COALITIONS, l1_reg=False, silent=True
        )

    def draws(
        of_image: Callable[[Callable[[np.ndarray], np.ndarray], int], np.ndarray],
    ) -> np.ndarray:
        values = [
            [of_image(of_cells(*one), seed) for one in images] for seed in range(N_REPETITIONS)
        ]
        return np.array(values).reshape(N_REPETITIONS, -1, N_CELLS, N_CELLS)

    def expected_gradients() -> np.ndarray:
        explainer = library.GradientExplainer(mlp, probe["background"], batch_size=N_PAIRS)
        of_all = [
            explainer.shap_values(table.inputs, nsamples=20 * N_PAIRS, rseed=seed)
            for seed in range(N_REPETITIONS)
        ]
        return np.stack([chosen(values, table.targets) for values in of_all])

    def all_coalitions() -> np.ndarray:
        zeros = np.zeros((1, N_FEATURES))
        return np.stack(
            [
                library.KernelExplainer(of_class(target), zeros).shap_values(
                    row, nsamples=2**N_FEATURES, l1_reg=False, silent=True
                )
                for row, target in table
            ]
        )

    return {
        "permutation_shap: MLP, all orders": lambda: np.stack(
            [
                library.ExactExplainer(of_class(target), np.zeros((1, N_FEATURES)))(
                    row[None]
                ).values[0]
                for row, target in table
            ]
        ),
        "kernel_shap: MLP, all coalitions": all_coalitions,
        "permutation_shap: CNN, draws": lambda: draws(permutation),
        "kernel_shap: CNN, draws": lambda: draws(kernel),
        "expected_gradients: MLP, draws": expected_gradients,
        "deep_lift: CNN": lambda: deep_lift(cnn, images, np.zeros_like(images.inputs[0])),
        "deep_lift: MLP": lambda: deep_lift(mlp, table, np.zeros_like(table.inputs[0])),
    }
