"""Runs Captum on PyTorch models with the same layers and weights, channels first."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from captum import attr
from captum._utils.models.linear_model import SkLearnRidge
from contenders import torch_cnn

from cross_checks.probe import (
    N_COALITIONS,
    N_NOISY,
    N_ORDERS,
    N_PAIRS,
    N_STEPS,
    N_STEPS_UNTIL_EQUAL,
    NOISE,
    PATCH,
    Check,
    Probe,
    repeated,
)


def checks(probe: Probe) -> dict[str, Check]:
    """Returns what Captum can run."""
    torch.manual_seed(0)
    cnn, mlp, reader = (
        torch_cnn(probe.weights("cnn")),
        _mlp(probe.weights("mlp")),
        _reader(probe.weights("reader")),
    )
    images, table, tokens = (probe.examples(name) for name in ("images", "table", "tokens"))
    x, of_x = torch.tensor(images.inputs).permute(0, 3, 1, 2), torch.tensor(images.targets)
    rows, of_rows = torch.tensor(table.inputs), torch.tensor(table.targets)
    background = torch.tensor(probe["background"])
    cells = torch.tensor(probe.cells)[None, None]
    window = (1, PATCH, PATCH)

    def noise_tunnel(kind: str) -> Check:
        tunnel = attr.NoiseTunnel(attr.Saliency(cnn))
        return repeated(
            lambda: _images(
                tunnel.attribute(
                    x, nt_type=kind, nt_samples=N_NOISY, stdevs=NOISE, target=of_x, abs=False
                )
            )
        )

    def integrated_gradients(method: str) -> np.ndarray:
        return _images(
            attr.IntegratedGradients(cnn).attribute(x, target=of_x, n_steps=N_STEPS, method=method)
        )

    def conductance() -> np.ndarray:
        # It takes gradients at the starts of steps. Forwards and backwards, that makes the
        # trapezoid rule.
        def one_way(start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
            n_steps, method = N_STEPS_UNTIL_EQUAL, "riemann_trapezoid"
            return attr.LayerConductance(mlp, mlp[1]).attribute(
                end, start, target=of_rows, n_steps=n_steps, method=method
            )

        zeros = torch.zeros_like(rows)
        return _numpy(one_way(zeros, rows) - one_way(rows, zeros)) / 2

    def lime() -> np.ndarray:
        def similarity(_: Any, __: Any, version: torch.Tensor, **___: Any) -> torch.Tensor:
            distance = 1 - torch.sqrt(version.double().mean())
            return torch.exp(-((distance / 0.25) ** 2))

        def attributions(
            image: torch.Tensor, target: torch.Tensor, versions: np.ndarray
        ) -> np.ndarray:
            def draw(*_: Any, **__: Any) -> Iterator[torch.Tensor]:
                yield torch.ones(1, versions.shape[1], dtype=torch.long)
                yield from torch.tensor(versions, dtype=torch.long)[:, None]

            explainer = attr.Lime(cnn, SkLearnRidge(alpha=1.0), similarity, draw)
            n_samples = len(versions) + 1
            fitted = explainer.attribute(
                image[None],
                target=target,
                feature_mask=cells,
                n_samples=n_samples,
                perturbations_per_eval=64,
                return_input_shape=False,
            )
            return _numpy(fitted).reshape(7, 7)

        return np.stack(
            [attributions(*one) for one in zip(x, of_x, probe["versions"], strict=True)]
        )

    def kernel_shap() -> np.ndarray:
        explainer = attr.KernelShap(mlp)
        return np.concatenate(
            [
                _numpy(
                    explainer.attribute(row[None], target=int(target), n_samples=N_COALITIONS // 3)
                )
                for row, target in table_rows
            ]
        )

    def permuted(by: int) -> np.ndarray:
        explainer = attr.FeaturePermutation(
            mlp, perm_func=lambda values, mask: torch.where(mask, values.roll(by, 0), values)
        )
        return _numpy(explainer.attribute(rows, target=of_rows))

    def occlusion(stride: int) -> np.ndarray:
        strides = (1, stride, stride)
        return _images(
            attr.Occlusion(cnn).attribute(
                x, window, strides=strides, target=of_x, perturbations_per_eval=64
            )
        )[..., 0]

    def in_cells(maps: torch.Tensor) -> np.ndarray:
        return _images(maps)[:, ::PATCH, ::PATCH, 0]

    table_rows = list(zip(rows, of_rows, strict=True))
    return {
        "saliency: CNN": lambda: _images(attr.Saliency(cnn).attribute(x, target=of_x, abs=False)),
        "gradient_x_input: CNN": lambda: _images(
            attr.InputXGradient(cnn).attribute(x, target=of_x)
        ),
        "integrated_gradients: CNN, midpoints": lambda: integrated_gradients("riemann_middle"),
        "integrated_gradients: CNN, Gauss": lambda: integrated_gradients("gausslegendre"),
        "integrated_gradients: MLP, many points": lambda: _numpy(
            attr.IntegratedGradients(mlp).attribute(
                rows, target=of_rows, n_steps=N_STEPS_UNTIL_EQUAL, method="riemann_trapezoid"
            )
        ),
        "layer_integrated_gradients: tokens": lambda: _numpy(
            attr.LayerIntegratedGradients(reader, reader[0])
            .attribute(
                torch.tensor(tokens.inputs),
                target=torch.tensor(tokens.targets),
                n_steps=N_STEPS,
                method="riemann_middle",
            )
            .sum(-1)
        ),
        "layer_conductance: MLP, many points": conductance,
        "expected_gradients: MLP, draws": repeated(
            lambda: _numpy(
                attr.GradientShap(mlp).attribute(
                    rows, background, n_samples=20 * N_PAIRS, target=of_rows
                )
            )
        ),
        "deep_lift: CNN": lambda: _images(attr.DeepLift(cnn).attribute(x, target=of_x)),
        "deep_lift: CNN, layers between": lambda: _images(
            attr.DeepLift(_spread_out(cnn)).attribute(x, target=of_x)
        ),
        "deep_lift: MLP": lambda: _numpy(attr.DeepLift(mlp).attribute(rows, target=of_rows)),
        "smoothgrad: CNN, draws": noise_tunnel("smoothgrad"),
        "squaregrad: CNN, draws": noise_tunnel("smoothgrad_sq"),
        "vargrad: CNN, draws": noise_tunnel("vargrad"),
        "guided_backprop: CNN": lambda: _images(attr.GuidedBackprop(cnn).attribute(x, target=of_x)),
        "deconvnet: CNN": lambda: _images(attr.Deconvolution(cnn).attribute(x, target=of_x)),
        "grad_cam: CNN": lambda: _numpy(
            torch.relu(attr.LayerGradCam(cnn, cnn.relu2).attribute(x, target=of_x))
        )[:, 0],
        "hires_cam: CNN": lambda: _numpy(
            attr.LayerGradientXActivation(cnn, cnn.relu2).attribute(x, target=of_x).sum(1)
        ),
        "occlusion: CNN, apart": lambda: occlusion(PATCH)[:, ::PATCH, ::PATCH],
        "occlusion: CNN, overlapping": lambda: occlusion(2),
        "occlusion: MLP": lambda: _numpy(attr.FeatureAblation(mlp).attribute(rows, target=of_rows)),
        "feature_permutation: CNN, to zero": lambda: in_cells(
            attr.FeatureAblation(cnn).attribute(
                x, target=of_x, feature_mask=cells, perturbations_per_eval=49
            )
        ),
        "feature_permutation: MLP, all others": lambda: np.mean(
            [permuted(by) for by in range(len(rows))], axis=0
        ),
        "permutation_shap: MLP, all orders": lambda: _numpy(
            attr.ShapleyValues(mlp).attribute(rows, target=of_rows)
        ),
        "permutation_shap: CNN, draws": repeated(
            lambda: in_cells(
                attr.ShapleyValueSampling(cnn).attribute(
                    x,
                    target=of_x,
                    feature_mask=cells,
                    n_samples=2 * N_ORDERS,
                    perturbations_per_eval=49,
                )
            )
        ),
        "kernel_shap: MLP, draws": repeated(kernel_shap),
        "lime: CNN, the same versions": lime,
    }


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().numpy()
    return array


def _images(tensor: torch.Tensor) -> np.ndarray:
    return _numpy(tensor.permute(0, 2, 3, 1))


class _Nothing(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 1


def _spread_out(model: torch.nn.Sequential) -> torch.nn.Module:
    """Returns a model that computes the same, with a layer that does nothing behind each layer."""
    return torch.nn.Sequential(*[part for layer in model for part in (layer, _Nothing())])


def _linear(kernel: np.ndarray, bias: np.ndarray) -> torch.nn.Module:
    layer = torch.nn.Linear(*kernel.shape)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(kernel.T))
        layer.bias.copy_(torch.tensor(bias))
    return layer


def _mlp(weights: list[np.ndarray]) -> torch.nn.Module:
    first, second, third = (_linear(*weights[index : index + 2]) for index in (0, 2, 4))
    return torch.nn.Sequential(first, torch.nn.Tanh(), second, torch.nn.Softplus(), third).eval()


def _reader(weights: list[np.ndarray]) -> torch.nn.Module:
    embedding = torch.nn.Embedding.from_pretrained(torch.tensor(weights[0]))
    return torch.nn.Sequential(
        embedding,
        torch.nn.Flatten(),
        _linear(*weights[1:3]),
        torch.nn.ReLU(),
        _linear(*weights[3:5]),
    ).eval()
