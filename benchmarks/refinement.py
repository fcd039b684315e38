"""Measures how many nodes integrated gradients take to a tolerance, and how far off they are.

The networks are small, with and without kinks.

    python benchmarks/refinement.py            # prints the table
    python benchmarks/refinement.py --write    # puts it into benchmarks/RESULTS.md too

The networks are those of attribution.py's small one, with other activations and pooling, trained in
the same way on scikit-learn's digits enlarged to 28 x 28; the class logits of 256 others are
explained. `error` is the relative L2 distance of an example's attributions to those of 2,000 nodes,
on average over examples. A refined path costs scores besides gradients: 10 of them, where 50 fixed
nodes take 2.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from results import machine, write_section
from sklearn.datasets import load_digits

from hvd_xai.attributions.integrated_gradients import integrated_gradients
from hvd_xai.compute.attribute import Compute, Computed

N_EXPLAINED = 256
N_FIXED, N_REFERENCE = 50, 2000
TOLERANCES = (0.05, 0.01, 0.003)
NETWORKS = {
    "relu, max-pooling": ("relu", keras.layers.MaxPooling2D),
    "relu, average pooling": ("relu", keras.layers.AveragePooling2D),
    "gelu, average pooling": ("gelu", keras.layers.AveragePooling2D),
}


def network(activation: str, pooling: Any) -> keras.Model:
    """Builds conv32-pool-conv64-pool-dense64-dense10 on 28 x 28."""
    layers = keras.layers
    hidden = [
        layers.Conv2D(32, 3, activation=activation),
        pooling(2),
        layers.Conv2D(64, 3, activation=activation),
        pooling(2),
    ]
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            *hidden,
            layers.Flatten(),
            layers.Dense(64, activation=activation),
            layers.Dense(10),
        ]
    )


def error(got: Computed, want: Computed) -> float:
    """Returns the relative L2 distance, on average over examples."""
    flat, reference = (computed.attributions.reshape(N_EXPLAINED, -1) for computed in (got, want))
    return float(
        (np.linalg.norm(flat - reference, axis=1) / np.linalg.norm(reference, axis=1)).mean()
    )


def measure(name: str, images: np.ndarray, labels: np.ndarray) -> list[str]:
    """Returns the rows of a network."""
    keras.utils.set_random_seed(0)
    model = network(*NETWORKS[name])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images[N_EXPLAINED:], labels[N_EXPLAINED:], epochs=5, batch_size=64, verbose=0)

    def explain(**options: Any) -> Computed:
        compute = Compute(model, partial(integrated_gradients, **options))
        return compute(images[:N_EXPLAINED], labels[:N_EXPLAINED], np.arange(N_EXPLAINED))

    reference = explain(n_steps=N_REFERENCE)
    gain = np.abs(
        reference.attributions.sum(axis=(1, 2, 3)) - reference.per_sample["convergence_delta"]
    )

    def row(nodes: str, computed: Computed, n_nodes: np.ndarray, converged: str) -> str:
        gap = (np.abs(computed.per_sample["convergence_delta"]) / gain).mean()
        spent = f"{n_nodes.mean():.1f} | {n_nodes.max()} | {N_FIXED / n_nodes.mean():.2f}"
        return (
            f"| {name} | {nodes} | {spent} | {converged} | {gap:.1e} |"
            f" {error(computed, reference):.1e} |"
        )

    lines = []
    for tolerance in TOLERANCES:
        refined = explain(tolerance=tolerance)
        converged = f"{100 * refined.per_sample['converged'].mean():.1f}"
        lines.append(
            row(f"tolerance {tolerance:g}", refined, refined.per_sample["n_nodes"], converged)
        )
    lines += [
        row(f"{n_steps} fixed", explain(n_steps=n_steps), np.array([n_steps]), "-")
        for n_steps in (9, 27, N_FIXED)
    ]
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--write", action="store_true", help="put the table into benchmarks/RESULTS.md"
    )
    options = parser.parse_args()
    digits = load_digits()
    images = np.asarray(tf.image.resize(digits.images[..., None] / 16, (28, 28)), np.float32)
    labels = digits.target.astype("int64")
    lines = [
        (
            f"| network | nodes | mean gradients | most | times fewer than {N_FIXED} | converged %"
            " | mean gap | error |"
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in NETWORKS:
        lines += measure(name, images, labels)
    report = "\n".join([machine(), "", *lines])
    print(report)
    if options.write:
        write_section(
            Path(__file__).with_name("RESULTS.md"),
            "Refinement",
            "python benchmarks/refinement.py --write",
            report,
        )
