"""Measures steps per second of Keras `fit` with our DistributedOptimizer.

Beside it runs a hand-written loop around Horovod's own grouped allreduce.

    python benchmarks/training.py            # prints the table
    python benchmarks/training.py --write    # puts it into benchmarks/RESULTS.md too

In each round, every rank takes the same steps in four ways, one after the other:

    fit          Keras fit, DistributedOptimizer
    loop         a Python loop around a tf.function: gradients, hvd.grouped_allreduce, apply
    plain fit    Keras fit, the same optimizer undistributed
    plain loop   the loop without the allreduce

What `fit` costs beside a loop is Keras's: plain fit - plain loop. The ratio that counts is loop /
(fit - (plain fit - plain loop)): 1 means that distributing through our optimizer costs what calling
Horovod by hand does. Medians over rounds; ranks are pinned to a core each.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from results import machine, write_section

WAYS = ("fit", "loop", "plain fit", "plain loop")
BATCH, STEPS, ROUNDS = 64, 40, 5


def measure(compression: str) -> None:
    """Runs on every rank; the root prints the seconds of a step by way and round as JSON."""
    import keras
    import numpy as np
    import tensorflow as tf

    import hvd_xai.keras as hvd

    local_rank = int(
        os.environ.get("OMPI_COMM_WORLD_LOCAL_RANK", os.environ.get("HOROVOD_LOCAL_RANK", "0"))
    )
    os.sched_setaffinity(
        0, {sorted(os.sched_getaffinity(0))[local_rank % len(os.sched_getaffinity(0))]}
    )
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    world = hvd.init()
    import horovod.tensorflow as horovod

    compressor = getattr(hvd.Compression, compression)
    random = np.random.default_rng(world.rank)
    x = tf.constant(random.normal(size=(BATCH * STEPS, 28, 28, 1)).astype("float32"))
    y = tf.constant(random.integers(0, 10, BATCH * STEPS))
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH, drop_remainder=True).prefetch(2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def build() -> keras.Model:
        keras.utils.set_random_seed(0)
        return keras.Sequential(
            [
                keras.Input((28, 28, 1)),
                keras.layers.Conv2D(32, 3, activation="relu"),
                keras.layers.MaxPooling2D(),
                keras.layers.Conv2D(64, 3, activation="relu"),
                keras.layers.MaxPooling2D(),
                keras.layers.Flatten(),
                keras.layers.Dense(128, activation="relu"),
                keras.layers.Dense(10),
            ]
        )

    def fit(optimizer: keras.optimizers.Optimizer) -> Callable[[], float]:
        model = build()
        model.compile(optimizer, loss, jit_compile=False)
        clock = _Clock()

        def run() -> float:
            model.fit(data, epochs=1, verbose=0, callbacks=[clock])
            return clock.seconds / STEPS

        return run

    class _Clock(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
        seconds = 0.0
        _began = 0.0

        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            self._began = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            self.seconds = time.perf_counter() - self._began

    def loop(*, distributed: bool) -> Callable[[], float]:
        model, optimizer = build(), keras.optimizers.Adam()
        optimizer.build(model.trainable_variables)
        values = [variable.value for variable in model.trainable_variables]

        @tf.function
        def step(batches: tf.data.Iterator) -> tf.Tensor:
            inputs, targets = next(batches)  # inside the graph, as Keras does it
            with tf.GradientTape() as tape:
                total = loss(targets, model(inputs, training=True))
            gradients = tape.gradient(total, values)
            if distributed:
                gradients = horovod.grouped_allreduce(
                    gradients, op=horovod.Average, compression=compressor
                )
            optimizer.apply(gradients, model.trainable_variables)
            return total

        def run() -> float:
            began = time.perf_counter()
            batches = iter(data)
            for _ in range(STEPS):
                total = step(batches)
            total.numpy()
            return (time.perf_counter() - began) / STEPS

        return run

    ways = {
        "fit": fit(hvd.DistributedOptimizer(keras.optimizers.Adam(), compression=compressor)),
        "loop": loop(distributed=True),
        "plain fit": fit(keras.optimizers.Adam()),
        "plain loop": loop(distributed=False),
    }
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(ROUNDS + 2):
        for way, run in ways.items():
            world.agree("between two measurements")
            taken = run()
            if number >= 2:  # two rounds warm up
                seconds[way].append(taken)
    if world.is_root:
        sys.stdout.write(f"\nRESULT {json.dumps(seconds)}\n")


def launch(launcher: str, size: int, compression: str) -> dict[str, list[float]]:
    """Starts the ranks and returns what the root measured."""
    program = [sys.executable, __file__, "--measure", compression]
    if launcher == "MPI":
        words = ["mpirun", "-np", str(size), "--oversubscribe", "--bind-to", "none", *program]
    else:
        words = ["horovodrun", "--gloo", "-np", str(size), "-H", f"localhost:{size}", *program]
    done = subprocess.run(words, capture_output=True, text=True, timeout=900, check=False)
    for line in done.stdout.splitlines():
        if "RESULT " in line:
            measured: dict[str, list[float]] = json.loads(line.partition("RESULT ")[2])
            return measured
    raise RuntimeError(
        f"{' '.join(words)} measured nothing:\n{done.stdout[-2000:]}{done.stderr[-3000:]}"
    )


def table() -> str:
    """Measures every set-up and returns a Markdown table."""
    lines = [
        (
            "| ranks | over | compression | fit ms | loop ms | plain fit ms | plain loop ms | loop"
            " / fit | loop / (fit - Keras's own) |"
        ),
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for launcher, size, compression in [
        ("MPI", 1, "none"),
        ("MPI", 2, "none"),
        ("MPI", 2, "fp16"),
        ("Gloo", 2, "none"),
        ("Gloo", 2, "fp16"),
    ]:
        seconds = launch(launcher, size, compression)
        rounds = list(zip(*(seconds[way] for way in WAYS), strict=True))
        raw = statistics.median(loop / fit for fit, loop, _, _ in rounds)
        fair = statistics.median(
            loop / (fit - (plain_fit - plain_loop)) for fit, loop, plain_fit, plain_loop in rounds
        )
        medians = " | ".join(f"{statistics.median(seconds[way]) * 1e3:.1f}" for way in WAYS)
        lines.append(
            f"| {size} | {launcher} | {compression} | {medians} | {raw:.3f} | {fair:.3f} |"
        )
        sys.stderr.write(lines[-1] + "\n")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--write", action="store_true", help="put the table into benchmarks/RESULTS.md"
    )
    parser.add_argument("--measure", metavar="COMPRESSION", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure)
    else:
        text = (
            f"Median milliseconds of a step, {ROUNDS} interleaved rounds of {STEPS} steps, batch"
            f" {BATCH} a rank, a CNN of 225,034 weights, Adam; one core a rank."
            f" {machine()}\n\n{table()}"
        )
        print(text)
        if options.write:
            write_section(
                Path(__file__).with_name("RESULTS.md"),
                "Training",
                "python benchmarks/training.py --write",
                text,
            )
