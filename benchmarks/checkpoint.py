"""Measures how many ranks merge and write explanation checkpoints, and how training waits for it.

Memory and throughput stand beside those of raw writing.

    python benchmarks/checkpoint.py                # 100, 500 and 2,000 MB at 2, 4, 8 and 16 ranks
    python benchmarks/checkpoint.py --megabytes 100 --ranks 2 4
    python benchmarks/checkpoint.py --write        # puts the tables into benchmarks/RESULTS.md too

Three tables. In the first, random float16 attributions of 64 x 64, which do not compress, go
through one merge and then, in processes of their own, through the other; in the same rounds the
root alone writes as many bytes to one file, with fsync, and copies them in memory. In the second, a
CNN trains with explanations off, written between epochs, and written beside them, an epoch of each
in turn. The third is a model of what larger jobs would take, of constants that the first has
measured and of some that are assumed, and says which.
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
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, ParamSpec

from results import machine, write_section

Args = ParamSpec("Args")

SIDE = 64
ROW_BYTES = SIDE * SIDE * 2
ROUNDS = 3
MERGES: tuple[Literal["direct", "root"], ...] = ("direct", "root")
EPOCHS = 8
N_EXAMPLES, N_EXPLAINED = 16_384, 2048
WAYS = ("off", "between epochs", "beside training")

# of larger jobs: assumed, as none was at hand
FILESYSTEM_BYTES = 100e9  # a second, of all hosts together
SAMPLE_BYTES = 224 * 224 * 2
EPOCH_BYTES = 128e9
ENTRY_BYTES = 160  # of a Zarr shard in the index that is gathered


def merge_and_write(merge: Literal["direct", "root"], megabytes: int) -> None:
    """Merges and writes rows on every rank; the root prints what it took, as JSON.

    It prints seconds by way and round, each rank's growth in MB, and the cost of messages.
    """
    import numpy as np

    from hvd_xai.checkpoint.manifest import Header, RankRows
    from hvd_xai.checkpoint.rows import encode, row_dtype
    from hvd_xai.checkpoint.run_directory import RunDirectory
    from hvd_xai.ranks.world import World
    from hvd_xai.recording.recorder import Recorder, Recording
    from hvd_xai.recording.row_buffer import RowBuffer

    world = World.connect()
    noise = np.random.default_rng(world.rank).normal(size=(256, SIDE, SIDE)).astype(np.float32)
    block = noise.astype(np.float16).tobytes()

    def spooled(edges: Sequence[int]) -> RowBuffer:
        buffer = RowBuffer(row_dtype((SIDE, SIDE)))
        for start in range(edges[world.rank], edges[world.rank + 1], len(noise)):
            ids = np.arange(start, min(start + len(noise), edges[world.rank + 1]))
            score = np.zeros(len(ids), np.float32)
            columns = {
                "sample_id": ids,
                "target": np.zeros_like(ids),
                "prediction": np.zeros_like(ids),
                "score": score,
            }
            buffer.append(encode(buffer.dtype, noise[: len(ids)], rank=world.rank, **columns))
        return buffer

    def header(edges: Sequence[int]) -> Header:
        ranks = tuple(
            RankRows(rank, world.hosts[rank], edges[rank], edges[rank + 1])
            for rank in range(world.size)
        )
        named: dict[str, Any] = {
            "run": "benchmark",
            "epoch": 0,
            "step": 0,
            "method": "noise",
            "options": {},
            "versions": {},
        }
        digests = {"weights_digest": "", "probe_digest": ""}
        return Header(
            **named,
            **digests,
            n_samples=edges[-1],
            sample_shape=(SIDE, SIDE),
            world_size=world.size,
            ranks=ranks,
        )

    def record(n_samples: int, folder: Path) -> float:
        edges = [n_samples * rank // world.size for rank in range(world.size + 1)]
        directory = RunDirectory(folder)
        if world.is_root:
            directory.open()
        world.agree("opening")
        buffer = spooled(edges)
        recorder = Recorder(world, directory, recording=Recording(merge=merge))
        world.agree("between two measurements")
        began = time.perf_counter()
        recorder.merge(header(edges), buffer)
        recorder.settle()
        seconds = time.perf_counter() - began
        recorder.close()
        return seconds

    def gather(n_bytes: int) -> None:
        world.gather_rows("timing messages", np.zeros(n_bytes, np.uint8), [n_bytes] * world.size)

    seconds: dict[str, list[float]] = {way: [] for way in ("merge", "raw", "copy")}
    with tempfile.TemporaryDirectory() as mine:
        shared = Path(str(world.allgather("naming a folder", mine)[0]))
        record(world.size, shared / "first")  # loads all that is needed
        base = _peak()
        for number in range(ROUNDS):
            seconds["merge"].append(record(megabytes * 10**6 // ROW_BYTES, shared / f"{number}"))
            if world.is_root:
                seconds["raw"].append(_timed(_write, shared / "raw", block, megabytes))
                seconds["copy"].append(_timed(_copy, block, megabytes))
            world.agree("between two measurements")
        growth = [float(str(peak)) for peak in world.allgather("gathering peaks", _peak() - base)]
    messages = {
        n_bytes: statistics.median(_timed(gather, n_bytes) for _ in range(21))
        for n_bytes in (1, 2**22)
    }
    if world.is_root:
        sys.stdout.write(f"\nRESULT {json.dumps([seconds, growth, list(messages.values())])}\n")


def _write(path: Path, block: bytes, megabytes: int) -> None:
    with path.open("wb") as file:
        for _ in range(megabytes * 10**6 // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())


def _copy(block: bytes, megabytes: int) -> None:
    target = bytearray(len(block))
    for _ in range(megabytes * 10**6 // len(block)):
        target[:] = block


def _timed(step: Callable[Args, object], *args: Args.args, **kwargs: Args.kwargs) -> float:
    began = time.perf_counter()
    step(*args, **kwargs)
    return time.perf_counter() - began


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def training() -> None:
    """Trains and explains on every rank; the root prints what it took, as JSON.

    For each way, it prints each epoch's seconds without explaining, and the seconds of waiting at
    its end.
    """
    import keras
    import numpy as np
    import tensorflow as tf

    import hvd_xai.keras as hvd
    from hvd_xai import Explain, Probe, Recording
    from hvd_xai.attributions.integrated_gradients import integrated_gradients

    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(os.environ["OMPI_COMM_WORLD_LOCAL_RANK"]) % len(cores)]})
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    world = hvd.init()
    random = np.random.default_rng(0)
    x, y = (
        random.normal(size=(N_EXAMPLES, SIDE, SIDE, 1)).astype("float32"),
        random.integers(0, 10, N_EXAMPLES),
    )
    probe = Probe(x[:N_EXPLAINED], y[:N_EXPLAINED].astype("int32"))

    class Clock(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
        def __init__(self, when: str) -> None:
            super().__init__()
            self.times: list[float] = []
            setattr(self, when, lambda epoch, logs: self.times.append(time.perf_counter()))

    def fit(way: str, folder: Path) -> tuple[list[float], list[float]]:
        keras.utils.set_random_seed(0)
        layers = [
            keras.layers.Conv2D(16, 3, strides=2, activation="relu"),
            keras.layers.Conv2D(16, 3, strides=2, activation="relu"),
        ]
        model = keras.Sequential(
            [keras.Input((SIDE, SIDE, 1)), *layers, keras.layers.Flatten(), keras.layers.Dense(10)]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(hvd.DistributedOptimizer(keras.optimizers.SGD(0.01)), loss)
        began, ended, explained, waits = (
            Clock("on_epoch_begin"),
            Clock("on_epoch_end"),
            Clock("on_epoch_end"),
            [],
        )
        callbacks: list[keras.callbacks.Callback] = [
            hvd.callbacks.BroadcastGlobalVariablesCallback(),
            began,
            ended,
        ]
        if way != "off":
            methods = [partial(integrated_gradients, n_steps=1)]
            explain = Explain(
                probe, methods, world=world, run=folder, recording=Recording(overlap=way == WAYS[2])
            )
            note = keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: waits.append(explain.summary.seconds["writing"])
            )
            callbacks += [explain, note]
        model.fit(
            *hvd.shard(x, y, world=world),
            batch_size=32,
            epochs=EPOCHS,
            verbose=0,
            callbacks=[*callbacks, explained],
        )
        whole, explaining = np.diff(began.times), np.subtract(explained.times, ended.times)[:-1]
        return (whole - explaining).tolist(), waits[:-1]

    measured: dict[str, Any] = {way: [[], []] for way in WAYS}
    with tempfile.TemporaryDirectory() as mine:
        shared = Path(str(world.allgather("naming a folder", mine)[0]))
        for number in range(ROUNDS):
            for way in WAYS[number:] + WAYS[:number]:  # each is first once
                epochs, waits = fit(way, shared / f"{way} {number}")
                measured[way][0] += epochs[1:]  # the first compiles
                measured[way][1] += waits[1:]
    if world.is_root:
        sys.stdout.write(f"\nRESULT {json.dumps(measured)}\n")


def launch(size: int, *words: str) -> Any:
    """Starts the ranks and returns what the root measured."""
    yields = ["--mca", "mpi_yield_when_idle", "1"]
    program = [
        "mpirun",
        "-np",
        str(size),
        "--oversubscribe",
        "--bind-to",
        "none",
        *yields,
        sys.executable,
        __file__,
        *words,
    ]
    done = subprocess.run(program, capture_output=True, text=True, timeout=3600, check=False)
    for line in done.stdout.splitlines():
        if "RESULT " in line:
            return json.loads(line.partition("RESULT ")[2])
    raise RuntimeError(
        f"{' '.join(program)} measured nothing:\n{done.stdout[-2000:]}{done.stderr[-3000:]}"
    )


def merging_table(sizes: Sequence[int], amounts: Sequence[int]) -> tuple[str, dict[str, float]]:
    """Measures merging and writing; returns a Markdown table, and the speed of one rank.

    The speed is in bytes per second, by merge, and of messages.
    """
    lines = [
        (
            "| MB | ranks | merge | MB/s | raw write + fsync MB/s | memcpy MB/s | of raw | root"
            " grows MB | largest other rank grows MB |"
        ),
        "|---|---|---|---|---|---|---|---|---|",
    ]
    measured: dict[str, list[float]] = {name: [] for name in (*MERGES, "message", "byte")}
    for megabytes in amounts:
        for size in sizes:
            for merge in MERGES:
                seconds, (root, *others), (short, long) = launch(
                    size, "--measure-merge", merge, str(megabytes)
                )
                speed = {
                    way: megabytes / statistics.median(taken) for way, taken in seconds.items()
                }
                ratio = statistics.median(
                    raw / taken for raw, taken in zip(seconds["raw"], seconds["merge"], strict=True)
                )
                beside = f"{speed['raw']:.0f} | {speed['copy']:.0f} | {ratio:.2f}"
                lines.append(
                    f"| {megabytes} | {size} | {merge} | {speed['merge']:.0f} | {beside} |"
                    f" {root:.0f} | {max(others):.0f} |"
                )
                sys.stderr.write(lines[-1] + "\n")
                if size == min(sizes):  # no more ranks than cores, where that can be
                    measured[merge].append(
                        speed["merge"] * 1e6 / (size if merge == "direct" else 1)
                    )
                    measured["message"].append(short / (size - 1))
                    measured["byte"].append((long - short) / (size - 1) / 2**22)
    return "\n".join(lines), {name: statistics.median(values) for name, values in measured.items()}


def training_table(measured: dict[str, tuple[list[float], list[float]]]) -> str:
    """Returns a Markdown table of what `training` measured."""
    lines = [
        (
            "| explanations | epoch s, median | epoch s, fastest | waiting for files at its end s,"
            " median |"
        ),
        "|---|---|---|---|",
    ]
    for way in WAYS:
        epochs, waits = measured[way]
        lines.append(
            f"| {way} | {statistics.median(epochs):.2f} | {min(epochs):.2f} |"
            f" {statistics.median(waits) if waits else 0:.4f} |"
        )
    return "\n".join(lines)


def model_table(measured: dict[str, float]) -> str:
    """Returns what one epoch would take at 1,024 and 10,000 ranks.

    A message takes alpha seconds, and beta seconds for each byte.
    """
    from hvd_xai.recording.row_buffer import ROUND_BYTES

    alpha, beta = measured["message"], measured["byte"]
    n_shards = EPOCH_BYTES / (256 * SAMPLE_BYTES)
    lines = [
        "| ranks | merge | messages s | bytes sent s | bytes written s | in all s |",
        "|---|---|---|---|---|---|",
    ]
    for size in (1024, 10_000):
        writers = min(size, n_shards)
        rounds = -(-EPOCH_BYTES // ROUND_BYTES)
        parts = {
            # the root hears of every rank in the index, and in each round of those few whose rows
            # are in it: one at least
            "root": (
                size * alpha + rounds * alpha,
                EPOCH_BYTES * beta,
                EPOCH_BYTES / measured["root"],
            ),
            "direct": (
                size * alpha,
                n_shards * ENTRY_BYTES * beta,
                EPOCH_BYTES / min(writers * measured["direct"], FILESYSTEM_BYTES),
            ),
        }
        for merge in MERGES:
            lines.append(
                f"| {size:,} | {merge} | {' | '.join(f'{part:.3g}' for part in parts[merge])} |"
                f" {sum(parts[merge]):.3g} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--ranks", type=int, nargs="+", default=[2, 4, 8, 16], help="how many ranks"
    )
    parser.add_argument(
        "--megabytes",
        type=int,
        nargs="+",
        default=[100, 500, 2000],
        help="how many attributions, as float16",
    )
    parser.add_argument(
        "--write", action="store_true", help="put the tables into benchmarks/RESULTS.md"
    )
    parser.add_argument(
        "--measure-merge", nargs=2, metavar=("MERGE", "MEGABYTES"), help=argparse.SUPPRESS
    )
    parser.add_argument("--measure-training", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure_merge:
        merge_and_write(options.measure_merge[0], int(options.measure_merge[1]))
    elif options.measure_training:
        training()
    else:
        merging, measured = merging_table(options.ranks, options.megabytes)
        few, alpha, beta = min(options.ranks), measured["message"], measured["byte"]
        megabytes = N_EXPLAINED * ROW_BYTES / 1e6
        text = "\n".join(
            [
                f"Random float16 attributions of {SIDE} x {SIDE}, medians of {ROUNDS} rounds. A"
                " rank's growth is its peak over what it was after a merge of one row a rank."
                f" {machine()}",
                "",
                merging,
                "",
                "A CNN on 2 ranks of one core each, which training and the thread that writes"
                f" share: {ROUNDS} interleaved rounds of {EPOCHS} epochs of {N_EXAMPLES:,}"
                f" examples, of which {N_EXPLAINED:,} are explained after each"
                f" ({megabytes:.0f} MB). An epoch ends where the next one begins; attributing"
                " and merging are left out, and so are the first and the last epoch of each round.",
                "",
                training_table(launch(2, "--measure-training")),
                "",
                f"Modelled: {EPOCH_BYTES / 1e9:.0f} GB an epoch, Zarr shards of 256 samples of 224"
                f" x 224. Measured above, at {few} ranks: {alpha * 1e6:.0f} us a message (alpha)"
                f" and {1e-9 / beta:.1f} GB/s between ranks (1 / beta);"
                f" {measured['root'] / 1e6:.0f} MB/s merged and written by the root,"
                f" {measured['direct'] / 1e6:.0f} MB/s by each rank that writes directly. Assumed:"
                f" {FILESYSTEM_BYTES / 1e9:.0f} GB/s into the filesystem.",
                "",
                model_table(measured),
            ]
        )
        print(text)
        if options.write:
            words = " ".join(["python benchmarks/checkpoint.py", *sys.argv[1:]])
            write_section(Path(__file__).with_name("RESULTS.md"), "Checkpoints", words, text)
