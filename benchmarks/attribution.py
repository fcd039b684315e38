"""Measures attributions per second beside hand-written floors and the libraries people use.

All get the same nodes and masks.

    python benchmarks/attribution.py                    # prints the tables
    python benchmarks/attribution.py --write            # puts them into benchmarks/RESULTS.md too
    python benchmarks/attribution.py --only occlusion   # the cases whose name has this in it

Each contender is a process of its own, in an environment that has its library, which is made on
first use below ~/.cache/hvd_xai/peers. All are warmed up, then asked in turn, one at a time, so
that what else the machine does falls on all of them. A ratio is the time of the floor (or, where
there is none, of ours) through the contender's, within one round; the median over rounds is shown.
Above 1 is faster. The floor is the same in every case of a method: all nodes, in float32.

The small network is trained on scikit-learn's digits, enlarged to 28 x 28, the table's on its
breast cancer data. `difference` is the largest to our own attributions, relative to the largest of
ours.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from contenders import LARGE, SMALL, TABLE, dense_net, resnet50, small_cnn
from results import machine, write_section

HERE = Path(__file__).parent
# What each environment holds; Xplique asks for an older TensorFlow than it needs, so it comes
# without its dependencies.
ENVIRONMENTS = {
    "tensorflow": [
        [
            "tensorflow-cpu==2.21.0",
            "keras==3.15.1",
            "tf-explain==0.3.1",
            "tf-keras-vis==0.8.7",
            "shap==0.51.0",
            "saliency==0.2.1",
        ],
        [
            "scikit-learn",
            "scikit-image",
            "opencv-python-headless",
            "tensorflow-probability==0.25.0",
            "einops",
            "matplotlib",
        ],
        ["--no-deps", "xplique==2.0.2", "tf-keras==2.21.0"],
    ],
    "torch": [["torch", "captum==0.9.0", "numpy", "scikit-learn"]],
    "pytorch_grad_cam": [["grad-cam==1.5.5"]],
}
HOME = {
    **dict.fromkeys(
        ["xplique", "tf_explain", "tf_keras_vis", "shap", "shap_as_documented", "saliency"],
        "tensorflow",
    ),
    "captum": "torch",
    "pytorch_grad_cam": "pytorch_grad_cam",
}
# case -> examples, rounds, who runs it; the first is what ratios are to
CASES: dict[str, tuple[int, int, list[str]]] = {
    f"{SMALL}: integrated_gradients": (256, 7, ["floor", "hvd_xai", "xplique", "captum"]),
    f"{SMALL}: integrated_gradients to 1 %": (256, 7, ["floor", "hvd_xai"]),
    f"{SMALL}: integrated_gradients in bfloat16": (256, 7, ["floor", "hvd_xai"]),
    f"{SMALL}: grad_cam": (
        256,
        15,
        ["floor", "hvd_xai", "xplique", "tf_explain", "tf_keras_vis", "captum"],
    ),
    f"{SMALL}: occlusion": (64, 9, ["floor", "hvd_xai", "xplique", "captum"]),
    f"{SMALL}: permutation_shap": (8, 5, ["hvd_xai", "shap", "shap_as_documented"]),
    f"{TABLE}: permutation_shap": (64, 5, ["hvd_xai", "shap", "shap_as_documented"]),
    f"{LARGE}: integrated_gradients": (2, 3, ["floor", "hvd_xai"]),
    f"{LARGE}: integrated_gradients in bfloat16": (2, 3, ["floor", "hvd_xai"]),
    # two micro-batches of ours: fewer are padded
    f"{LARGE}: grad_cam": (
        20,
        5,
        ["floor", "hvd_xai", "xplique"],
    ),
}


class Contender:
    """A process that runs one case whenever it is asked."""

    def __init__(self, python: str, folder: Path, case: str, name: str) -> None:
        self.name = name
        environment = (
            {**os.environ, "PYTHONPATH": str(HERE.parent)}
            if name == "hvd_xai"
            else dict(os.environ)
        )
        self._errors = (folder / f"{name}.log").open("w+")
        self._process = subprocess.Popen(
            [python, str(HERE / "contenders.py"), str(folder), case, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
        )
        self.first: float = self._answer()["first"]
        self.measured: list[dict[str, float]] = []

    def run(self) -> None:
        """Runs once and keeps the figures."""
        assert self._process.stdin is not None
        self._process.stdin.write("run\n")
        self._process.stdin.flush()
        self.measured.append(self._answer())

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate(timeout=60)
        self._errors.close()

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, float] = json.loads(line)
                return answer
        self._errors.seek(0)
        raise RuntimeError(f"{self.name} ended:\n{self._errors.read()[-3000:]}")


def python_of(contender: str, peers: Path) -> str:
    """Returns the Python that has a contender's library.

    Makes its environment the first time, and again when the list of its packages has changed.
    """
    if contender not in HOME:
        return sys.executable
    folder = peers / HOME[contender]
    python = folder / "bin" / "python"
    ready = folder / "ready"
    wanted = json.dumps(ENVIRONMENTS[HOME[contender]])
    if not ready.exists() or ready.read_text() != wanted:
        print(f"Making an environment for {contender} in {folder}", file=sys.stderr)
        if not python.exists():
            venv.create(folder, with_pip=True)
        for words in ENVIRONMENTS[HOME[contender]]:
            subprocess.run([python, "-m", "pip", "install", "--quiet", *words], check=True)
        ready.write_text(wanted)
    return str(python)


def trained_cnn() -> tuple[Any, np.ndarray, np.ndarray]:
    """Trains the small network on digits; returns it with 256 unseen images and their labels."""
    import tensorflow as tf
    from sklearn.datasets import load_digits

    digits = load_digits()
    return trained(
        small_cnn,
        np.asarray(tf.image.resize(digits.images[..., None] / 16, (28, 28)), np.float32),
        digits.target,
    )


def trained_dense_net() -> tuple[Any, np.ndarray, np.ndarray]:
    """Trains the table's network on biopsies; returns it with 256 unseen rows and their labels."""
    from sklearn.datasets import load_breast_cancer

    table = load_breast_cancer()
    return trained(
        dense_net,
        ((table.data - table.data.mean(axis=0)) / table.data.std(axis=0)).astype(np.float32),
        table.target,
    )


def trained(
    build: Callable[[], Any], inputs: np.ndarray, labels: np.ndarray
) -> tuple[Any, np.ndarray, np.ndarray]:
    """Builds a network and trains it on all but the first 256 examples; returns it and those."""
    import keras

    keras.utils.set_random_seed(0)
    labels = labels.astype(np.int64)
    model = build()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(inputs[256:], labels[256:], epochs=5, batch_size=64, verbose=0)
    return model, inputs[:256], labels[:256]


def prepare(folder: Path) -> None:
    """Leaves models and examples in a folder.

    ResNet50 is not trained, because its cost does not depend on its weights.
    """
    images = np.random.default_rng(0).uniform(-1, 1, (20, 224, 224, 3)).astype(np.float32)
    cases = {
        SMALL: trained_cnn(),
        TABLE: trained_dense_net(),
        LARGE: (resnet50(), images, np.arange(20) % 10),
    }
    for size, (network, inputs, targets) in cases.items():
        network.save_weights(folder / f"{size}.weights.h5")
        weights = (
            {f"weight {index}": weight for index, weight in enumerate(network.get_weights())}
            if size == SMALL
            else {}
        )
        counts = {
            f"n {case.partition(': ')[2]}": n
            for case, (n, _, _) in CASES.items()
            if case.startswith(size)
        }
        np.savez(folder / f"{size}.npz", inputs=inputs, targets=targets, **weights, **counts)


def measure(case: str, folder: Path, peers: Path) -> str:
    """Returns the Markdown table of a case."""
    n_examples, n_rounds, names = CASES[case]
    contenders = [Contender(python_of(name, peers), folder, case, name) for name in names]
    for _ in range(n_rounds):
        for contender in contenders:
            contender.run()
    for contender in contenders:
        contender.close()
    ours = np.load(folder / f"{case} hvd_xai.npy")
    lines = [
        f"**{case}**, {n_examples} examples, {n_rounds} rounds",
        "",
        (
            "| contender | examples / s | wall ratio | processor s | processor ratio | first call s"
            " | peak MiB | difference |"
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    for contender in contenders:
        rounds = list(zip(contenders[0].measured, contender.measured, strict=True))
        wall, processor = (
            statistics.median(base[what] / own[what] for base, own in rounds)
            for what in ("wall", "processor")
        )
        seconds, of_processor, peak = (
            statistics.median(one[what] for one in contender.measured)
            for what in ("wall", "processor", "peak")
        )
        theirs = np.load(folder / f"{case} {contender.name}.npy")
        same = theirs.reshape(ours.shape) if theirs.size == ours.size else None
        difference = (
            "-" if same is None else f"{np.abs(same - ours).max() / np.abs(ours).max():.1e}"
        )
        lines.append(
            f"| {contender.name} | {n_examples / seconds:.4g} | {wall:#.3g} | {of_processor:.3g} |"
            f" {processor:#.3g} | {contender.first:.1f} | {peak:.0f} | {difference} |"
        )
        print(lines[-1], file=sys.stderr)
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--write", action="store_true", help="put the tables into benchmarks/RESULTS.md"
    )
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="only the cases whose name has this in it"
    )
    parser.add_argument(
        "--peers",
        type=Path,
        default=Path.home() / ".cache/hvd_xai/peers",
        metavar="FOLDER",
        help="for the environments",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        prepare(folder)
        tables = [measure(case, folder, options.peers) for case in CASES if options.only in case]
    report = "\n\n".join(
        [f"Interleaved rounds, a process for each contender. {machine()}", *tables]
    )
    print(report)
    if options.write:
        write_section(
            HERE / "RESULTS.md", "Attribution", "python benchmarks/attribution.py --write", report
        )
