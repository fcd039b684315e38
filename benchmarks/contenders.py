"""Runs one contender of attribution.py in a process and an environment of its own.

It reads a case, then runs it as often as it is asked.

    python contenders.py FOLDER CASE CONTENDER

Says `ready`, then for each line that it reads runs once and answers with one line of JSON: wall and
processor seconds, and peak memory. The attributions of the last run are left in FOLDER. It imports
nothing of hvd_xai but where the contender is hvd_xai, so that any environment that has the
contender's library can run it.
"""

import json
import os
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np

N_STEPS = 50
PATCH = 4
N_PERMUTATIONS = 10
SMALL, LARGE, TABLE = "small CNN", "ResNet50", "table"
LAYER = {SMALL: "conv2", LARGE: "conv5_block3_out", TABLE: ""}
CLASSES = 10

Run = Callable[[], np.ndarray]


def small_cnn() -> Any:
    """Builds conv32-pool-conv64-pool-dense64-dense10 on 28 x 28."""
    import keras

    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(32, 3, activation="relu", name="conv1"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(64, 3, activation="relu", name="conv2"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu", name="dense1"),
            keras.layers.Dense(CLASSES, name="logits"),
        ]
    )


def torch_cnn(weights: list[np.ndarray]) -> Any:
    """Builds the same in PyTorch, images channels first, from the weights of the Keras model."""
    import torch

    class ChannelsLast(torch.nn.Module):
        def forward(self, maps: Any) -> Any:
            return maps.permute(0, 2, 3, 1)

    layers = {
        "conv1": torch.nn.Conv2d(1, 32, 3),
        "relu1": torch.nn.ReLU(),
        "pool1": torch.nn.MaxPool2d(2),
        "conv2": torch.nn.Conv2d(32, 64, 3),
        "relu2": torch.nn.ReLU(),
        "pool2": torch.nn.MaxPool2d(2),
        "channels_last": ChannelsLast(),
        "flatten": torch.nn.Flatten(),
        "dense1": torch.nn.Linear(1600, 64),
        "relu3": torch.nn.ReLU(),
        "logits": torch.nn.Linear(64, CLASSES),
    }
    with torch.no_grad():
        for name, kernel, bias in zip(
            ("conv1", "conv2", "dense1", "logits"), weights[::2], weights[1::2], strict=True
        ):
            layers[name].weight.copy_(
                torch.tensor(kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T)
            )
            layers[name].bias.copy_(torch.tensor(bias))
    return torch.nn.Sequential(OrderedDict(layers)).eval()


def resnet50() -> Any:
    """Builds ResNet50 at 224 x 224, with logits."""
    import keras

    return keras.applications.ResNet50(weights=None, classes=CLASSES, classifier_activation=None)


def dense_net() -> Any:
    """Builds three dense layers on the 30 columns of a table, with logits of two classes."""
    import keras

    layers = keras.layers
    hidden = [layers.Dense(64, activation="relu"), layers.Dense(64, activation="relu")]
    return keras.Sequential([keras.Input((30,)), *hidden, layers.Dense(2, name="logits")])


BUILDERS: dict[str, Callable[[], Any]] = {SMALL: small_cnn, LARGE: resnet50, TABLE: dense_net}


class Case:
    """What is run: a model, examples and targets, from a folder that attribution.py filled.

    Args:
        folder: holds `weights` and `examples`.
        name: `model: method`.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.size, _, self.method = name.partition(": ")
        held = np.load(folder / f"{self.size}.npz")
        n_examples = int(held[f"n {self.method}"])
        self.inputs, self.targets = held["inputs"][:n_examples], held["targets"][:n_examples]
        self.layer = LAYER[self.size]

    def model(self) -> Any:
        """Builds the Keras model with the case's weights."""
        model = BUILDERS[self.size]()
        model.load_weights(self.folder / f"{self.size}.weights.h5")
        return model

    @property
    def one_hot(self) -> np.ndarray:
        """Targets as rows."""
        return np.eye(CLASSES, dtype=np.float32)[self.targets]


def hvd_xai(case: Case) -> Run:
    """Ours, through the engine that `Explain` uses."""
    from functools import partial

    from hvd_xai.compute.attribute import Compute
    from hvd_xai.lookup.methods import load_method
    from hvd_xai.tracing import micro_batches

    name, _, how = case.method.partition(" ")
    options = {
        "integrated_gradients": {"tolerance": 0.01} if how == "to 1 %" else {"n_steps": N_STEPS},
        "grad_cam": {"layer": case.layer},
        "occlusion": {"patch": PATCH, "stride": PATCH},
        "permutation_shap": {
            "patch": None if case.size == TABLE else PATCH,
            "n_permutations": N_PERMUTATIONS,
        },
    }[name]
    function = partial(load_method(name), **options)
    precision = "bfloat16" if how == "in bfloat16" else None
    compute = Compute(
        case.model(),
        function,
        micro_batch=micro_batches.propose_size(case.inputs.shape[1:]),
        precision=precision,
    )
    ids = np.arange(len(case.inputs))
    shown = (
        (slice(None), slice(None, None, PATCH), slice(None, None, PATCH))
        if name == "occlusion"
        else slice(None)
    )
    return lambda: compute(case.inputs, case.targets, ids).attributions[shown]


def floor(case: Case) -> Run:
    """A tf.function written by hand for this one case: no more work than must be done."""
    import tensorflow as tf

    model = case.model()
    x, targets = tf.constant(case.inputs), tf.constant(case.targets)
    kind = case.method.partition(" ")[0]
    if kind == "integrated_gradients":
        n_examples = 4 if case.size == SMALL else 1
        per_call = N_STEPS if case.size == SMALL else 10
        alphas = tf.constant((np.arange(N_STEPS, dtype=np.float32) + 0.5) / N_STEPS)

        @tf.function
        def gradients(images: Any, of: Any, nodes: Any) -> Any:
            path = tf.reshape(
                nodes[None, :, None, None, None] * images[:, None], [-1, *images.shape[1:]]
            )
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(path)
                score = tf.reduce_sum(
                    tf.gather(model(path, training=False), tf.repeat(of, per_call), batch_dims=1)
                )
            gradient = tape.gradient(score, path)
            return tf.reduce_sum(
                tf.reshape(gradient, [images.shape[0], per_call, *images.shape[1:]]), axis=1
            )

        def run() -> np.ndarray:
            parts = []
            for start in range(0, len(case.inputs), n_examples):
                images, of = x[start : start + n_examples], targets[start : start + n_examples]
                total = sum(
                    gradients(images, of, alphas[node : node + per_call])
                    for node in range(0, N_STEPS, per_call)
                )
                parts.append((images * total / N_STEPS).numpy())
            return np.concatenate(parts)

        return run
    if kind == "grad_cam":
        import keras

        both = keras.Model(model.inputs, [model.get_layer(case.layer).output, model.outputs[0]])
        n_examples = 64 if case.size == SMALL else 10

        @tf.function
        def maps(images: Any, of: Any) -> Any:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(images)
                activations, outputs = both(images, training=False)
                score = tf.reduce_sum(tf.gather(outputs, of, batch_dims=1))
            gradient = tape.gradient(score, activations)
            return tf.nn.relu(
                tf.reduce_sum(
                    tf.reduce_mean(gradient, axis=(1, 2), keepdims=True) * activations, axis=-1
                )
            )

        return lambda: np.concatenate(
            [
                maps(x[start : start + n_examples], targets[start : start + n_examples]).numpy()
                for start in range(0, len(x), n_examples)
            ]
        )
    if kind == "occlusion":
        masks = tf.constant(
            np.kron(1 - np.eye(49).reshape(49, 7, 7), np.ones((PATCH, PATCH)))[..., None].astype(
                np.float32
            )
        )

        @tf.function
        def differences(images: Any, of: Any) -> Any:
            occluded = tf.reshape(images[:, None] * masks, [-1, 28, 28, 1])
            scores = tf.gather(model(occluded, training=False), tf.repeat(of, 49), batch_dims=1)
            whole = tf.gather(model(images, training=False), of, batch_dims=1)
            return tf.reshape(whole[:, None] - tf.reshape(scores, [-1, 49]), [-1, 7, 7])

        return lambda: np.concatenate(
            [
                differences(x[at : at + 4], targets[at : at + 4]).numpy()
                for at in range(0, len(x), 4)
            ]
        )
    raise ValueError(f"no floor is written for {case.method}")


def xplique(case: Case) -> Run:
    """Xplique with its defaults."""
    from xplique import attributions as methods

    model = case.model()
    explainer = {
        "integrated_gradients": lambda: methods.IntegratedGradients(model, steps=N_STEPS),
        "grad_cam": lambda: methods.GradCAM(model, conv_layer=case.layer),
        "occlusion": lambda: methods.Occlusion(
            model, patch_size=PATCH, patch_stride=PATCH, occlusion_value=0.0
        ),
    }[case.method]()
    shown = (
        (slice(None), slice(None, None, PATCH), slice(None, None, PATCH))
        if case.method == "occlusion"
        else slice(None)
    )
    return lambda: np.asarray(explainer.explain(case.inputs, case.one_hot))[shown]


def tf_explain(case: Case) -> Run:
    """tf-explain's Grad-CAM without its picture; it takes one class at a time."""
    import keras
    from tf_explain.core.grad_cam import GradCAM

    model = case.model()
    functional = keras.Model(model.inputs, model.outputs[0])

    def run() -> np.ndarray:
        maps = np.empty(
            (len(case.inputs), *functional.get_layer(case.layer).output.shape[1:3]), np.float32
        )
        for target in np.unique(case.targets):
            rows = np.flatnonzero(case.targets == target)
            outputs, gradients = GradCAM.get_gradients_and_filters(
                functional, case.inputs[rows], case.layer, int(target), False
            )
            maps[rows] = np.asarray(GradCAM.generate_ponderated_output(outputs, gradients))
        return maps

    return run


def tf_keras_vis(case: Case) -> Run:
    """tf-keras-vis's Grad-CAM, neither normalised nor enlarged."""
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.utils.scores import CategoricalScore

    explainer = Gradcam(case.model(), clone=True)
    score = CategoricalScore(case.targets.tolist())
    return lambda: np.asarray(
        explainer(
            score, case.inputs, penultimate_layer=case.layer, expand_cam=False, normalize_cam=False
        )
    )


def shap(case: Case, *, as_documented: bool = False) -> Run:
    """Runs shap's PermutationExplainer, which explains one example at a time.

    It is given a compiled function, and all rows of an order at once.
    """
    import shap as library
    import tensorflow as tf

    model = case.model()

    @tf.function(reduce_retracing=True)
    def compiled(inputs: Any) -> Any:
        return model(inputs, training=False)

    def predict(inputs: np.ndarray) -> np.ndarray:
        if as_documented:
            return model.predict(inputs, verbose=0)
        return compiled(tf.constant(inputs, tf.float32)).numpy()

    def explain(function: Callable[[np.ndarray], np.ndarray], inputs: np.ndarray) -> np.ndarray:
        n_features = inputs.shape[1]
        explainer = library.PermutationExplainer(function, np.zeros((1, n_features)))
        at_once = {} if as_documented else {"batch_size": 2 * n_features + 1}
        return explainer(
            inputs, max_evals=N_PERMUTATIONS * (2 * n_features + 1), silent=True, **at_once
        ).values

    def of_patches(image: np.ndarray, target: int) -> np.ndarray:
        def masked(present: np.ndarray) -> np.ndarray:
            grid = np.kron(present.reshape(-1, 7, 7), np.ones((PATCH, PATCH)))[..., None].astype(
                np.float32
            )
            return predict(grid * image)[:, target]

        return explain(masked, np.ones((1, 49))).reshape(7, 7)

    def of_columns() -> np.ndarray:
        return np.take_along_axis(
            explain(predict, case.inputs), case.targets[:, None, None], axis=2
        )[..., 0]

    if case.size == TABLE:
        return of_columns
    return lambda: np.stack(
        [
            of_patches(image, int(target))
            for image, target in zip(case.inputs, case.targets, strict=True)
        ]
    )


def shap_as_documented(case: Case) -> Run:
    """Runs shap as its documentation shows it: with `model.predict` and its defaults."""
    return shap(case, as_documented=True)


def captum(case: Case) -> Run:
    """Captum with its defaults; where the default is one row at a time, as many as ours."""
    import torch
    from captum import attr

    held = np.load(case.folder / f"{case.size}.npz")
    net = torch_cnn([held[f"weight {index}"] for index in range(8)])
    x, targets = torch.tensor(case.inputs).permute(0, 3, 1, 2), torch.tensor(case.targets)
    if case.method == "integrated_gradients":
        explainer = attr.IntegratedGradients(net)
        return lambda: (
            explainer.attribute(x, target=targets, n_steps=N_STEPS)
            .permute(0, 2, 3, 1)
            .detach()
            .numpy()
        )
    if case.method == "grad_cam":
        cam = attr.LayerGradCam(net, net.relu2)
        return lambda: torch.relu(cam.attribute(x, target=targets))[:, 0].detach().numpy()
    if case.method == "occlusion":
        window = (1, PATCH, PATCH)
        occlusion = attr.Occlusion(net)

        def run() -> np.ndarray:
            maps = occlusion.attribute(
                x, window, strides=window, target=targets, perturbations_per_eval=4
            )
            return maps[:, 0, ::PATCH, ::PATCH].detach().numpy()

        return run
    raise ValueError(f"captum is not measured for {case.method}")


RUNS = (hvd_xai, floor, xplique, tf_explain, tf_keras_vis, shap, shap_as_documented, captum)
CONTENDERS = {function.__name__: function for function in RUNS}


def peak_mib() -> float:
    """Returns this program's peak resident memory in MiB.

    `getrusage` would count the process that started it, too.
    """
    status = Path("/proc/self/status").read_text()
    return (
        next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
        / 1024
    )


def main() -> None:
    """Serves runs until its input ends."""
    folder, name, contender = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    run = CONTENDERS[contender](Case(folder, name))
    began = time.perf_counter()
    run()
    first = time.perf_counter() - began
    run()
    print(json.dumps({"first": first}), flush=True)
    for _ in sys.stdin:
        wall, processor = time.perf_counter(), time.process_time()
        attributions = run()
        answer = {
            "wall": time.perf_counter() - wall,
            "processor": time.process_time() - processor,
            "peak": peak_mib(),
        }
        np.save(folder / f"{name} {contender}.npy", attributions)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
