"""Measures peak memory of the root and of another rank while the attributions grow.

They are explained, merged, written and shown.

    python benchmarks/memory.py              # prints the table
    python benchmarks/memory.py --write      # puts it into benchmarks/RESULTS.md too

The probe is one image repeated without being copied, so what grows is the attributions alone. Flat
lines are the law: no rank holds them all.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from results import machine, write_section

SIDE = 64
N_SAMPLES = (12_000, 24_000, 48_000)


def measure() -> None:
    """Runs on every rank; the root prints a row for each number of samples as JSON."""
    import keras
    import numpy as np

    import hvd_xai.keras as hvd
    from hvd_xai import Probe
    from hvd_xai.attributions.integrated_gradients import integrated_gradients
    from hvd_xai.checkpoint.run_directory import RunDirectory
    from hvd_xai.explain.once import explain
    from hvd_xai.sinks.tensorboard import TensorBoard

    world = hvd.init()
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(1, 3, strides=4), keras.layers.Flatten(), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((SIDE, SIDE, 1)), *layers])
    image = np.random.default_rng(0).normal(size=(SIDE, SIDE, 1)).astype("float32")
    with tempfile.TemporaryDirectory() as run:
        for n_samples in (1_000, *N_SAMPLES):  # the first loads and compiles all there is
            probe = Probe(
                np.broadcast_to(image, (n_samples, SIDE, SIDE, 1)), np.zeros(n_samples, "int32")
            )
            summary = explain(
                model,
                probe,
                [partial(integrated_gradients, n_steps=1)],
                world=world,
                run=RunDirectory(run, mode="overwrite"),
                sinks=[TensorBoard()],
            )
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            peaks = world.allgather("gathering peaks", peak)
            if world.is_root and n_samples in N_SAMPLES:
                sys.stdout.write(f"\nRESULT {json.dumps([n_samples, peaks, summary.seconds])}\n")


def table(size: int) -> str:
    """Measures on `size` ranks and returns a Markdown table."""
    words = ["mpirun", "-np", str(size), "--oversubscribe", sys.executable, __file__, "--measure"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=900, check=False)
    lines = [
        "| samples | attributions MB (float16) | root MB | largest other rank MB | attributing s |"
        " merging s | writing s |"
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for line in done.stdout.splitlines():
        if "RESULT " in line:
            n_samples, peaks, seconds = json.loads(line.partition("RESULT ")[2])
            spent = " | ".join(
                f"{seconds[stage]:.1f}" for stage in ("attributing", "merging", "writing")
            )
            lines.append(
                f"| {n_samples} | {n_samples * SIDE**2 * 2 / 1e6:.0f} | {peaks[0]:.0f} |"
                f" {max(peaks[1:]):.0f} | {spent} |"
            )
    if len(lines) != 2 + len(N_SAMPLES):
        raise RuntimeError(
            f"{' '.join(words)} measured too little:\n{done.stdout[-2000:]}{done.stderr[-3000:]}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--write", action="store_true", help="put the table into benchmarks/RESULTS.md"
    )
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure()
    else:
        text = (
            "Peak resident memory of 2 ranks, TensorFlow included, in one process for all rows."
            f" {machine()}\n\n{table(2)}"
        )
        print(text)
        if options.write:
            write_section(
                Path(__file__).with_name("RESULTS.md"),
                "Memory",
                "python benchmarks/memory.py --write",
                text,
            )
