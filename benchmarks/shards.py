"""Measures writing and reading of Zarr shards, beside zarr-python and TensorStore.

All write and read the same bytes.

    python benchmarks/shards.py            # prints the table
    python benchmarks/shards.py --write    # puts it into benchmarks/RESULTS.md too

84 MB of random float16 attributions of 64 x 64, which do not compress, in blocks of 4 MiB as the
ranks' rows come. Each way is a process of its own, asked in turn. Processor seconds count most:
they are what a training thread beside it has to do without.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from results import machine, write_section

from hvd_xai.storage.arrays import ArrayReader, ArrayWriter, create_array, shard_rows

SHAPE, DTYPE = (10 * 1024, 64, 64), np.dtype("float16")
MEGABYTES = SHAPE[0] * 64 * 64 * 2 / 1e6
ROUNDS = 5
BLOCK = 512
WAYS = ("ours", "zarr-python", "TensorStore")


def opened(way: str, directory: Path) -> Any:
    """Opens the array for writing and reading with a library."""
    if way == "zarr-python":
        import zarr

        return zarr.open_array(directory, mode="r+").with_config(
            {"order": "C", "write_empty_chunks": True}
        )
    import tensorstore

    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{directory}/", "file_io_sync": False},
    }
    return tensorstore.open(spec, open=True).result()


def write(way: str, directory: Path, values: np.ndarray) -> None:
    """Writes the array once, block by block.

    A library is handed a whole Zarr shard at a time, because it rewrites a shard for each write.
    """
    blocks = [values] * (SHAPE[0] // BLOCK)
    if way == "ours":
        writer = ArrayWriter(directory, SHAPE, DTYPE)
        for block in blocks:
            writer.append(block)
        writer.close()
        return
    array, rows = opened(way, directory), shard_rows(SHAPE, DTYPE)
    buffer = np.empty((rows, *SHAPE[1:]), DTYPE)
    for start in range(0, SHAPE[0], rows):
        stop = min(start + rows, SHAPE[0])
        for at in range(0, stop - start, BLOCK):
            buffer[at : at + BLOCK] = values
        if way == "zarr-python":
            array[start:stop] = buffer[: stop - start]
        else:
            array[start:stop].write(buffer[: stop - start]).result()


def read(way: str, directory: Path) -> None:
    """Reads the array once, block by block."""
    array = None if way == "ours" else opened(way, directory)
    reader = ArrayReader(directory, SHAPE, DTYPE) if way == "ours" else None
    for start in range(0, SHAPE[0], BLOCK):
        if reader is not None:
            reader.read(start, start + BLOCK)
        elif way == "zarr-python":
            array[start : start + BLOCK]
        else:
            array[start : start + BLOCK].read().result()


def measure(way: str) -> dict[str, float]:
    """Returns wall and processor seconds of writing and reading, and MB that writing adds."""
    values = np.random.default_rng(0).normal(size=(BLOCK, *SHAPE[1:])).astype(DTYPE)

    def timed(name: str, step: Callable[[], None]) -> dict[str, float]:
        wall, processor = time.perf_counter(), time.process_time()
        step()
        return {
            name: time.perf_counter() - wall,
            f"{name} processor": time.process_time() - processor,
        }

    with tempfile.TemporaryDirectory() as text:
        directories = [Path(text) / str(number) for number in range(2)]
        for directory in directories:
            create_array(directory, SHAPE, DTYPE, ("sample", "y", "x"))
        small = values[:4]  # loads the library
        if way == "ours":
            ArrayWriter(directories[0], SHAPE, DTYPE).append(small)
        else:
            opened(way, directories[0])
        base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found = timed("write", lambda: write(way, directories[1], values))
        found["growth"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 1024
        return {**found, **timed("read", lambda: read(way, directories[1]))}


def table() -> str:
    """Measures all ways in turn; returns a Markdown table."""
    measured: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        for way in WAYS:
            done = subprocess.run(
                [sys.executable, __file__, "--measure", way],
                capture_output=True,
                text=True,
                check=True,
            )
            measured[way].append(json.loads(done.stdout))
    lines = [
        "| by | written MB/s | processor s | peak grows MB | read MB/s | processor s |",
        "|---|---|---|---|---|---|",
    ]
    for way in WAYS:
        median = {
            name: statistics.median(one[name] for one in measured[way]) for name in measured[way][0]
        }
        written = (
            f"{MEGABYTES / median['write']:.0f} | {median['write processor']:.2f} |"
            f" {median['growth']:.0f}"
        )
        lines.append(
            f"| {way} | {written} | {MEGABYTES / median['read']:.0f} |"
            f" {median['read processor']:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--write", action="store_true", help="put the table into benchmarks/RESULTS.md"
    )
    parser.add_argument("--measure", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
    else:
        report = (
            f"{MEGABYTES:.0f} MB of float16 noise, medians of {ROUNDS} interleaved rounds."
            f" {machine()}\n\n{table()}"
        )
        print(report)
        if options.write:
            write_section(
                Path(__file__).with_name("RESULTS.md"),
                "Zarr shards",
                "python benchmarks/shards.py --write",
                report,
            )
