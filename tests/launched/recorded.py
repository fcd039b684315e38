"""Records three epochs on ranks, of which something befalls the second.

`recorded.py WHAT RANK RUN`.

WHAT is where RANK kills itself, or what it does to itself before the second epoch's rows are
merged, when the others wait for it: "raise", "exit0", "kill" or "stop". With "large", the second
epoch has 64 times as much to write. With "together", what RANK meets is raised by all ranks while
they still write; with "alone", RANK alone raises it, while the root commits.
"""

import itertools
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hvd_xai.checkpoint.manifest import Header, RankRows
from hvd_xai.checkpoint.rows import encode, row_dtype
from hvd_xai.checkpoint.run_directory import RunDirectory
from hvd_xai.checkpoint.writer import Writer
from hvd_xai.recording import recorder as recorder_module
from hvd_xai.recording import written_part
from hvd_xai.recording.recorder import Recorder, Recording
from hvd_xai.recording.row_buffer import RowBuffer
from hvd_xai.sinks.checkpoint import Checkpoint
from hvd_xai.storage import arrays
from hvd_xai.storage.staging import Staging
from tests.launched.befalling import befall
from tests.launched.mpi_world import connect

N_SAMPLES = 64
SIDE = 16
PLACES: dict[str, tuple[object, str]] = {
    "beginning": (Writer, "append"),
    "merging": (recorder_module, "merge"),
    "writing": (written_part, "write_shards"),
    "committing": (Writer, "commit"),
    "publishing": (Staging, "publish"),
    "showing": (Checkpoint, "__call__"),
}
SLOW: dict[str, tuple[object, str]] = {
    "together": (written_part, "write_shards"),
    "alone": (Writer, "commit"),
}


def rows_of(epoch: int, side: int) -> np.ndarray:
    """Returns the rows of all ranks: noise, which hardly compresses."""
    noise = np.random.default_rng(epoch).normal(size=(N_SAMPLES, side, side)).astype(np.float32)
    ids = np.arange(N_SAMPLES)
    score = np.zeros(N_SAMPLES, np.float32)
    return encode(
        row_dtype((side, side)),
        noise,
        rank=0,
        sample_id=ids,
        target=ids,
        prediction=ids,
        score=score,
    )


def header_of(epoch: int, side: int, edges: list[int]) -> Header:
    """Returns what is known of an epoch's checkpoint beforehand."""
    return Header(
        run="test",
        epoch=epoch,
        step=epoch,
        method="noise",
        options={},
        n_samples=N_SAMPLES,
        sample_shape=(side, side),
        world_size=len(edges) - 1,
        ranks=tuple(
            RankRows(rank, "here", start, stop)
            for rank, (start, stop) in enumerate(itertools.pairwise(edges))
        ),
        weights_digest="",
        probe_digest="",
        versions={},
    )


def interpose(place: object, name: str, epoch: list[int], what: Callable[[], None]) -> None:
    """Makes this process do something when it comes to a function in the second epoch."""
    function: Callable[..., Any] = getattr(place, name)

    def interposed(*args: Any, **kwargs: Any) -> Any:
        if epoch == [1]:
            what()
        return function(*args, **kwargs)

    setattr(place, name, interposed)


def fail() -> None:
    """Raises as WHAT says, once it is known in the second epoch."""
    if what == "together":
        with world.together("testing"):
            if world.rank == who:
                raise RuntimeError("a rank has had enough")
    while not all(pending.is_gathered for pending in recorder._pending):
        recorder.advance()
    if world.rank == who:
        raise RuntimeError("a rank has had enough")
    time.sleep(60)  # as if it trained


what, who, run = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
logging.basicConfig(level=logging.WARNING)
arrays.CHUNK_BYTES, arrays.SHARD_BYTES = 2**9, 2**13  # Zarr shards of 16 rows
world = connect()
now = [0]
if world.rank == who and what in PLACES:
    interpose(*PLACES[what], now, lambda: befall("kill", run))
if what in SLOW:
    interpose(*SLOW[what], now, lambda: time.sleep(1))
directory = RunDirectory(run)
with world.together("opening"):
    if world.is_root:
        directory.open()
recorder = Recorder(world, directory, [Checkpoint(run)], Recording("direct", on_error="warn"))
for epoch in range(3):
    now[0] = epoch
    side = SIDE * (8 if what == "large" and epoch == 1 else 1)
    edges = [N_SAMPLES * rank // world.size for rank in range(world.size + 1)]
    header, rows = header_of(epoch, side, edges), rows_of(epoch, side)
    buffer = RowBuffer(rows.dtype)
    buffer.append(rows[edges[world.rank] : edges[world.rank + 1]])
    if what in ("raise", "exit0", "kill", "stop") and world.rank == who and epoch == 1:
        befall(what, run)
    try:
        recorder.merge(header, buffer)
    except Exception as error:  # noqa: BLE001
        buffer.close()
        recorder.lose(header, error)
    if what in SLOW and epoch == 1:
        fail()
    recorder.settle()
recorder.close()
sys.stdout.write("ended well\n")
