"""Decides which rows of the probe each rank computes: pure arithmetic, the same on every rank."""

import numpy as np

from hvd_xai.probe.probe import Probe
from hvd_xai.storage.arrays import shard_rows

# From this many Zarr shards for each rank on, ranks are cut between Zarr shards: then no rank
# computes more than a sixteenth above the average.
SHARDS_PER_RANK = 16


def shares(probe: Probe, size: int) -> list[int]:
    """Returns the row at which each rank's share of a probe begins, and last the number of rows.

    Args:
        probe: examples to share out; the same on every rank.
        size: number of ranks.

    Returns:
        `size + 1` rows in ascending order; rank `r` has the rows from entry `r` up to entry
        `r + 1`, which may be none.

    Example:
        >>> shares(Probe(np.zeros((10, 28, 28)), np.zeros(10)), 4)
        [0, 2, 5, 7, 10]
    """
    # attributions are stored as float16, mostly of the inputs' shape: their Zarr shards count
    return cut(len(probe), size, shard_rows((len(probe), *probe.inputs.shape[1:]), np.dtype("<f2")))


def cut(n_samples: int, size: int, rows_per_shard: int) -> list[int]:
    """Cuts rows into shares, as even as can be; between Zarr shards where there are many of those.

    A cut between two Zarr shards spares the ranks moving the rest of a shard, which takes some
    milliseconds. Computing is what takes long, so the shares must stay even.

    Args:
        n_samples: number of rows to cut.
        size: number of ranks.
        rows_per_shard: number of rows in a Zarr shard.

    Returns:
        `size + 1` rows, as `shares` returns them.

    Example:
        >>> cut(10, 4, rows_per_shard=256)
        [0, 2, 5, 7, 10]
        >>> cut(10_000, 2, rows_per_shard=256)  # 40 Zarr shards, 20 for each rank
        [0, 5120, 10000]
    """
    n_shards = -(-n_samples // rows_per_shard)
    unit = rows_per_shard if n_shards >= SHARDS_PER_RANK * size else 1
    #    units    0 | 1 | 2 | 3 | 4     n_units = 5, of which the last may be shorter
    #    ranks    0     |   1           rank r begins at unit n_units * r // size
    n_units = -(-n_samples // unit)
    return [min(n_samples, unit * (n_units * rank // size)) for rank in range(size + 1)]
