"""Compares our attributions with those of other libraries.

All get the same model, examples and options, as far as they can be set alike.

    python benchmarks/cross_check.py                 # prints the table
    python benchmarks/cross_check.py --write         # puts it into benchmarks/RESULTS.md too

Each peer runs in the environment that attribution.py makes for it. How to read the table stands
above it; why a peer differs is in cross_checks/reasons.py.
"""

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from attribution import HERE, python_of, trained_cnn
from cross_checks import probe
from cross_checks.reasons import REASONS
from results import machine, write_section

from hvd_xai.lookup.methods import shipped_methods

PEERS = ("captum", "shap", "xplique", "tf_keras_vis", "tf_explain", "saliency", "pytorch_grad_cam")
N_EXAMPLES, N_BACKGROUND, N_VERSIONS, N_DESIGNS = 4, 20, 255, 32
SETTING = (
    f"{N_EXAMPLES} examples each: digits and a CNN, wines and a smooth MLP, random tokens and a"
    f" model of their embeddings; {probe.N_STEPS} points of a path, or {probe.N_STEPS_UNTIL_EQUAL}"
    " where it says many. A difference is the largest, relative to our largest attribution. What"
    f" is random was drawn {probe.N_REPETITIONS} times; beside it stand the largest standard error"
    " of the difference, and the root mean square of all differences in standard errors, which is"
    " about 1 where both estimate the same, and strays as the differences of an example hang"
    " together."
)


def prepare(folder: Path) -> None:
    """Trains the models, draws what must be the same for everybody, and leaves all in a folder."""
    import tensorflow as tf
    from scipy.ndimage import gaussian_filter

    from hvd_xai.attributions import sobol
    from hvd_xai.primitives import coalitions

    cnn, images, labels = trained_cnn()
    mlp, table, classes = trained_mlp()
    reader = probe.reader()
    generator = np.random.default_rng(0)
    reader.set_weights(
        [generator.normal(size=weight.shape).astype("float32") for weight in reader.get_weights()]
    )
    images, labels = images[:N_EXAMPLES], labels[:N_EXAMPLES]
    framed = np.pad(tf.image.resize(images, (8, 8)).numpy(), ((0, 0), (10, 10), (10, 10), (0, 0)))
    n_cells = probe.N_CELLS**2
    versions = (
        coalitions.uniform(0, tf.range(N_EXAMPLES, dtype=tf.int64), (N_VERSIONS, n_cells)).numpy()
        < 0.5
    )
    arrays = {
        "images": images,
        "images targets": labels,
        "framed": gaussian_filter(framed, (0, 1.5, 1.5, 0)),
        "framed targets": labels,
        "table": table[:N_EXAMPLES],
        "table targets": classes[:N_EXAMPLES],
        "background": table[N_EXAMPLES : N_EXAMPLES + N_BACKGROUND],
        "tokens": (
            generator.integers(1, probe.VOCABULARY, (N_EXAMPLES, probe.N_TOKENS)).astype("int32")
        ),
        "tokens targets": generator.integers(0, probe.N_CLASSES, N_EXAMPLES),
        "versions": versions,
        "design": sobol._latin_hypercube(0, N_DESIGNS, 2 * n_cells),
    }
    for name, model in (("cnn", cnn), ("mlp", mlp), ("reader", reader)):
        arrays |= {
            f"{name} weight {index}": weight for index, weight in enumerate(model.get_weights())
        }
    np.savez(folder / "probe.npz", **arrays)


def trained_mlp() -> tuple[Any, np.ndarray, np.ndarray]:
    """Trains the model of a table on wines; returns it with shuffled wines and their classes."""
    import keras
    from sklearn.datasets import load_wine

    keras.utils.set_random_seed(0)
    wines = load_wine()
    order = np.random.default_rng(0).permutation(len(wines.data))
    features = wines.data[order, : probe.N_FEATURES]
    features = ((features - features.mean(0)) / features.std(0)).astype("float32")
    classes = wines.target[order].astype("int64")
    model = probe.mlp()
    model.compile(
        keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    model.fit(features, classes, epochs=30, verbose=0)
    return model, features, classes


def run(name: str, folder: Path, peers: Path) -> dict[str, np.ndarray]:
    """Runs the checks of one, and returns its attributions by check."""
    words = [python_of(name, peers), "-m", "cross_checks", name, str(folder)]
    environment = (
        {**os.environ, "PYTHONPATH": str(HERE.parent)} if name == "hvd_xai" else dict(os.environ)
    )
    done = subprocess.run(
        words, cwd=HERE, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{name} ended:\n{done.stderr[-3000:]}")
    print("\n".join(line for line in done.stdout.splitlines() if line.startswith(f"{name}, ")))
    with np.load(folder / f"{name}.npz") as held:
        return {check: held[check] for check in held.files}


def row(check: str, peer: str, ours: np.ndarray, theirs: np.ndarray) -> str:
    """Returns a line of the table."""
    error = in_errors = ""
    if check.endswith("draws"):
        variances = [
            draws.var(axis=0, ddof=1) / len(draws) for draws in (ours, theirs) if len(draws) > 1
        ]
        standard = np.sqrt(np.sum(variances, axis=0))
        ours, theirs = ours.mean(axis=0), theirs.mean(axis=0)
        error = f"{standard.max() / np.abs(ours).max():.1e}"
        is_random = standard > 1e-6 * np.abs(ours).max()
        in_errors = (
            f"{np.sqrt(np.mean(((ours - theirs)[is_random] / standard[is_random]) ** 2)):.2f}"
        )
    difference = np.abs(ours - theirs.reshape(ours.shape)).max() / np.abs(ours).max()
    why = REASONS.get((check, peer), "")
    return (
        f"| {check.removesuffix(', draws')} | {peer} | {difference:.1e} | {error} | {in_errors} |"
        f" {why} |"
    )


def table(folder: Path, peers: Path) -> str:
    """Runs everybody, and returns the Markdown table."""
    ours = run("hvd_xai", folder, peers)
    of_peers = {peer: run(peer, folder, peers) for peer in PEERS}
    unknown = {
        (peer, check)
        for peer, theirs in of_peers.items()
        for check in theirs
        if check.removeprefix("failed ") not in ours
    }
    if unknown or {check for check, _ in REASONS} - set(ours):
        raise RuntimeError(
            f"no check of ours has these names: {unknown}, or one that stands in reasons.py"
        )
    lines = [
        "| method: on what | peer | difference | standard error | in standard errors | why |",
        "|---|---|---|---|---|---|",
    ]
    for check, attributions in ours.items():
        for peer, theirs in of_peers.items():
            if check in theirs:
                lines.append(row(check, peer, attributions, theirs[check]))
            elif f"failed {check}" in theirs:
                lines.append(
                    f"| {check.removesuffix(', draws')} | {peer} | fails | | |"
                    f" {theirs[f'failed {check}']} |"
                )
    compared = {check.partition(":")[0] for theirs in of_peers.values() for check in theirs}
    alone = ", ".join(f"`{method}`" for method in shipped_methods() if method not in compared)
    return "\n".join([*lines, "", f"No peer offers {alone}."])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--write", action="store_true", help="put the table into benchmarks/RESULTS.md"
    )
    parser.add_argument(
        "--peers",
        type=Path,
        default=Path.home() / ".cache/hvd_xai/peers",
        metavar="FOLDER",
        help="for the environments",
    )
    options = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as text:
        prepare(Path(text))
        lines = table(Path(text), options.peers)
    report = f"{SETTING} {machine()}\n\n{lines}"
    print(report)
    print(f"{time.perf_counter() - began:.0f} s")
    if options.write:
        write_section(
            HERE / "RESULTS.md", "Cross-check", "python benchmarks/cross_check.py --write", report
        )
