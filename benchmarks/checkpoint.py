"""Explanation checkpoints merged and written by many ranks: memory, throughput beside raw writing, and what training waits for them.

    python benchmarks/checkpoint.py                      # 100 MB of attributions at 2, 4, 8 and 16 ranks
    python benchmarks/checkpoint.py --megabytes 100 400 2000 --ranks 2 4
    python benchmarks/checkpoint.py --write              # puts the tables into benchmarks/RESULTS.md too

Three tables. In the first, random float16 attributions of 64 x 64 go through both merges; in the same rounds, the root alone writes the
same bytes to one file, with fsync, and copies them in memory. Peaks are of each rank, over what it had before the first row. In the
second, a CNN trains with explanations off, written between epochs, and written beside them. The third is a model of what larger jobs would
take, of constants that the first has measured and of some that are assumed, and says which.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from results import machine, write_section

SIDE = 64
ROW_BYTES = SIDE * SIDE * 2
ROUNDS = 3
MERGES: tuple[Literal["direct", "root"], ...] = ("direct", "root")
EPOCHS = 4
WAYS = ("off", "between epochs", "beside training")

# of larger jobs: assumed, as none was at hand
NETWORK_SECONDS = 5e-6  # for one message
NETWORK_BYTES = 12e9  # a second, into one host
FILESYSTEM_BYTES = 100e9  # a second, of all hosts together
SAMPLE_BYTES = 224 * 224 * 2
EPOCH_BYTES = 128e9


def merge_and_write(megabytes: int) -> None:
    """Runs on every rank; the root prints seconds by way and round, and each rank's growth in MB, as JSON."""
    import numpy as np

    from hvd_xai.checkpoint.schema import Header, RankRows, encode, row_dtype
    from hvd_xai.merge import Spool
    from hvd_xai.recording import Recorder
    from hvd_xai.sinks.checkpoint import Checkpoint
    from hvd_xai.world import World

    world = World.connect()
    n_samples = megabytes * 10**6 // ROW_BYTES
    edges = [n_samples * rank // world.size for rank in range(world.size + 1)]
    ranks = tuple(RankRows(rank, world.hosts[rank], edges[rank], edges[rank + 1]) for rank in range(world.size))
    noise = np.random.default_rng(world.rank).normal(size=(256, SIDE, SIDE)).astype(np.float32)

    def spooled() -> Spool:
        spool = Spool(row_dtype((SIDE, SIDE)))
        for start in range(edges[world.rank], edges[world.rank + 1], len(noise)):
            ids = np.arange(start, min(start + len(noise), edges[world.rank + 1]))
            score = np.zeros(len(ids), np.float32)
            columns = {"sample_id": ids, "target": np.zeros_like(ids), "prediction": np.zeros_like(ids), "score": score}
            spool.append(encode(spool.dtype, noise[: len(ids)], rank=world.rank, **columns))
        return spool

    def record(merge: Literal["direct", "root"], folder: Path) -> float:
        checkpoint = Checkpoint(folder)
        if world.is_root:
            checkpoint.open()
        world.agree("opening")
        spool = spooled()
        recorder = Recorder(world, checkpoint, merge=merge)
        world.agree("between two measurements")
        began = time.perf_counter()
        recorder.merge(_header(n_samples, ranks), spool)
        recorder.settle()
        seconds = time.perf_counter() - began
        recorder.close()
        return seconds

    def _header(n_samples: int, ranks: tuple[RankRows, ...]) -> Header:
        return Header(
            run="benchmark",
            epoch=0,
            step=0,
            method="noise",
            options={},
            n_samples=n_samples,
            sample_shape=(SIDE, SIDE),
            world_size=world.size,
            ranks=ranks,
            weights_digest="",
            probe_digest="",
            versions={},
        )

    block = noise.astype(np.float16).tobytes()

    def raw(folder: Path) -> float:
        began = time.perf_counter()
        with (folder / "raw").open("wb") as file:
            for _ in range(n_samples // len(noise)):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        return time.perf_counter() - began

    def copy() -> float:
        target = bytearray(len(block))
        began = time.perf_counter()
        for _ in range(n_samples // len(noise)):
            target[:] = block
        return time.perf_counter() - began

    spooled().close()
    base = _peak()
    seconds: dict[str, list[float]] = {way: [] for way in (*MERGES, "raw", "copy")}
    growth: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as mine:
        shared = Path(str(world.allgather("naming a folder", mine)[0]))
        for number in range(ROUNDS):
            for merge in MERGES if number % 2 == 0 else MERGES[::-1]:
                seconds[merge].append(record(merge, shared / f"{merge}{number}"))
                if merge not in growth:  # a peak never falls: what comes later shows what it adds
                    growth[merge] = [float(str(peak)) for peak in world.allgather("gathering peaks", _peak() - base)]
            if world.is_root:
                seconds["raw"].append(raw(shared))
                seconds["copy"].append(copy())
            world.agree("between two measurements")
    if world.is_root:
        sys.stdout.write(f"\nRESULT {json.dumps([seconds, growth])}\n")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def training() -> None:
    """Runs on every rank; the root prints the seconds of each epoch, its end included, by way, as JSON."""
    import keras
    import numpy as np

    import hvd_xai.keras as hvd
    from hvd_xai import Explain, Probe
    from hvd_xai.attributions.integrated_gradients import integrated_gradients

    world = hvd.init()
    random = np.random.default_rng(0)
    x, y = random.normal(size=(2048, SIDE, SIDE, 1)).astype("float32"), random.integers(0, 10, 2048)
    probe = Probe(x[:1024], y[:1024].astype("int32"))

    class Clock(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
        def __init__(self) -> None:
            super().__init__()
            self.epochs: list[float] = []
            self._began = 0.0

        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:  # noqa: ARG002
            self._began = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: object = None) -> None:  # noqa: ARG002
            self.epochs.append(time.perf_counter() - self._began)

    def fit(way: str, folder: Path) -> tuple[list[float], list[float]]:
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Conv2D(16, 3, strides=2, activation="relu"), keras.layers.Conv2D(16, 3, strides=2, activation="relu")]
        model = keras.Sequential([keras.Input((SIDE, SIDE, 1)), *layers, keras.layers.Flatten(), keras.layers.Dense(10)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(hvd.DistributedOptimizer(keras.optimizers.SGD(0.01)), loss)
        waits: list[float] = []
        clock = Clock()
        callbacks: list[keras.callbacks.Callback] = [hvd.callbacks.BroadcastGlobalVariablesCallback(), clock]
        if way != "off":
            methods = [partial(integrated_gradients, n_steps=1)]
            explain = Explain(probe, methods, world=world, checkpoint=folder, overlap=way == WAYS[2])
            note = keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: waits.append(explain.summary.seconds["writing"])  # noqa: ARG005
            )
            callbacks += [explain, note]
        model.fit(*hvd.shard(x, y, world=world), batch_size=32, epochs=EPOCHS, verbose=0, callbacks=callbacks)
        return clock.epochs, waits

    measured: dict[str, Any] = {way: [[], []] for way in WAYS}
    with tempfile.TemporaryDirectory() as mine:
        shared = Path(str(world.allgather("naming a folder", mine)[0]))
        for number in range(ROUNDS):
            for way in WAYS:
                epochs, waits = fit(way, shared / f"{way} {number}")
                measured[way][0] += epochs[1:]  # the first compiles
                measured[way][1] += waits[1:]
    if world.is_root:
        sys.stdout.write(f"\nRESULT {json.dumps(measured)}\n")


def launch(size: int, *words: str) -> Any:
    """Starts the ranks and returns what the root measured."""
    yields = ["--mca", "mpi_yield_when_idle", "1"]
    program = ["mpirun", "-np", str(size), "--oversubscribe", "--bind-to", "none", *yields, sys.executable, __file__, *words]
    done = subprocess.run(program, capture_output=True, text=True, timeout=3600, check=False)
    for line in done.stdout.splitlines():
        if "RESULT " in line:
            return json.loads(line.partition("RESULT ")[2])
    raise RuntimeError(f"{' '.join(program)} measured nothing:\n{done.stdout[-2000:]}{done.stderr[-3000:]}")


def merging_table(sizes: Sequence[int], amounts: Sequence[int]) -> tuple[str, dict[str, float]]:
    """Measures merging and writing; returns a Markdown table, and the median MB a second of the root and of one of few ranks."""
    lines = [
        "| MB | ranks | merge | MB/s | raw write + fsync MB/s | memcpy MB/s | of raw | root grows MB | largest other rank grows MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    speeds: dict[str, list[float]] = {way: [] for way in ("root", "rank")}
    for megabytes in amounts:
        for size in sizes:
            seconds, growth = launch(size, "--measure-merge", str(megabytes))
            speed = {way: megabytes / statistics.median(taken) for way, taken in seconds.items()}
            speeds["root"].append(speed["root"])
            if size == min(sizes):
                speeds["rank"].append(speed["direct"] / size)
            for merge in MERGES:
                ratio = statistics.median(raw / taken for raw, taken in zip(seconds["raw"], seconds[merge], strict=True))
                beside = f"{speed['raw']:.0f} | {speed['copy']:.0f} | {ratio:.2f}"
                root, *others = growth[merge]
                lines.append(f"| {megabytes} | {size} | {merge} | {speed[merge]:.0f} | {beside} | {root:.0f} | {max(others):.0f} |")
                sys.stderr.write(lines[-1] + "\n")
    return "\n".join(lines), {way: statistics.median(values) for way, values in speeds.items()}


def training_table() -> str:
    """Measures training; returns a Markdown table."""
    measured = launch(2, "--measure-training")
    lines = ["| explanations | epoch s | waited for files at its end ms | of the epoch % |", "|---|---|---|---|"]
    for way in WAYS:
        epochs, waits = measured[way]
        epoch, wait = statistics.median(epochs), statistics.median(waits) if waits else 0.0
        lines.append(f"| {way} | {epoch:.2f} | {wait * 1e3:.0f} | {100 * wait / epoch:.1f} |")
    return "\n".join(lines)


def model_table(speeds: dict[str, float]) -> str:
    """Returns what one epoch of 128 GB would take at 1,024 and 10,000 ranks, by an alpha-beta model."""
    root, rank = speeds["root"] * 1e6, speeds["rank"] * 1e6
    lines = ["| ranks | merge | data s | index s | in all s |", "|---|---|---|---|---|"]
    n_shards = EPOCH_BYTES / (256 * SAMPLE_BYTES)
    for size in (1024, 10_000):
        index = size * NETWORK_SECONDS + n_shards * 160 / NETWORK_BYTES
        writers = min(size, n_shards)
        data = {"root": EPOCH_BYTES / min(root, NETWORK_BYTES), "direct": EPOCH_BYTES / min(writers * rank, FILESYSTEM_BYTES)}
        for merge in MERGES:
            lines.append(f"| {size:,} | {merge} | {data[merge]:.1f} | {index:.3f} | {data[merge] + index:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4, 8, 16], help="how many ranks")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[100], help="how many attributions, as float16")
    parser.add_argument("--write", action="store_true", help="put the tables into benchmarks/RESULTS.md")
    parser.add_argument("--measure-merge", type=int, metavar="MEGABYTES", help=argparse.SUPPRESS)
    parser.add_argument("--measure-training", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure_merge:
        merge_and_write(options.measure_merge)
    elif options.measure_training:
        training()
    else:
        merging, speeds = merging_table(options.ranks, options.megabytes)
        text = f"""Random float16 attributions of {SIDE} x {SIDE}, medians of {ROUNDS} interleaved rounds; a rank's growth is its peak over
what it had before the first row. {machine()}

{merging}

A CNN on 2 ranks, {ROUNDS} rounds of {EPOCHS} epochs, 1,024 samples explained after each; the first epoch of each left out.

{training_table()}

Modelled: {EPOCH_BYTES / 1e9:.0f} GB an epoch, Zarr shards of 256 samples of 224 x 224. Measured above: {speeds["root"]:.0f} MB/s by the
root, {speeds["rank"]:.0f} MB/s by one of {min(options.ranks)} ranks that write directly. Assumed: {NETWORK_SECONDS * 1e6:.0f} us a message,
{NETWORK_BYTES / 1e9:.0f} GB/s into one host, {FILESYSTEM_BYTES / 1e9:.0f} GB/s into the filesystem.

{model_table(speeds)}"""
        print(text)
        if options.write:
            words = " ".join(["python benchmarks/checkpoint.py", *sys.argv[1:]])
            write_section(Path(__file__).with_name("RESULTS.md"), "Checkpoints", words, text)
