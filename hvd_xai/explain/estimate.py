"""What an explanation will take, found out before the work: seconds from a short calibration, rows
and bytes by counting.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from hvd_xai.checkpoint.rows import row_dtype
from hvd_xai.compute.attribute import Compute
from hvd_xai.lookup.resolve import Method
from hvd_xai.probe.probe import Probe
from hvd_xai.ranks.shares import shares
from hvd_xai.ranks.world import World
from hvd_xai.tracing import micro_batches
from hvd_xai.tracing.packed_model import of_rows
from hvd_xai.tracing.precision import Precision

_ENOUGH_SECONDS = 0.5  # of a call, to be measured by it
# times the seconds of one example, which takes a whole micro-batch, padded: less is one micro-batch
# still
_MORE_THAN_ONE = 1.5


@dataclass(frozen=True, slots=True)
class Estimate:
    """What explaining a probe once with a method will take.

    Attributes:
        method: what it is committed under.
        n_rows: examples that are explained, by all ranks together.
        seconds: until the slowest rank has attributed its share; compiling, which is done once,
            merging and writing come on top.
        n_bytes: size of the explanation checkpoint's arrays; on disk they are compressed.
    """

    method: str
    n_rows: int
    seconds: float
    n_bytes: int


def estimate(
    model: keras.Model,
    probe: Probe,
    methods: Sequence[Method],
    *,
    world: World,
    precision: Precision | None = None,
) -> list[Estimate]:
    """Estimates what explaining a probe will take, method by method.

    Collective: every rank must call this.

    Each rank times as many of its examples as tell, all ranks at once, as they will be when it
    counts. The model is left as it is.

    Args:
        model: a built Keras model.
        probe: the examples; the same on every rank.
        methods: as `Plan`.
        world: the ranks.
        precision: as `explain`.

    Returns:
        One estimate a method, in the order given; the same on every rank.

    Raises:
        PeerError: on all ranks, if the probe or a method is not right for the model.
    """
    start, stop = shares(probe, world.size)[world.rank : world.rank + 2]
    estimates = []
    for method in methods:
        with world.together("calibrating"):
            compute = Compute(
                of_rows(model, probe.packing),
                method,
                micro_batch=micro_batches.fitting(probe.inputs.shape[1:]),
                precision=precision,
            )
            mine = (
                probe.inputs[start:stop],
                probe.targets[start:stop],
                probe.sample_ids[start:stop],
            )
            compute.check(*mine)
            seconds = _seconds(compute, *mine) if start < stop else 0.0
        slowest = np.array(world.allgather("gathering calibrations", seconds), np.float64).max()
        row = row_dtype(
            compute.sample_shape, target=probe.targets.dtype, per_sample=compute.per_sample
        )
        estimates.append(
            Estimate(method.name, len(probe), float(slowest), len(probe) * row.itemsize)
        )
    return estimates


def _seconds(compute: Compute, inputs: np.ndarray, targets: np.ndarray, ids: np.ndarray) -> float:
    """Returns the seconds that all examples will take, by those of a few: twice as many each time,
    until they fill a micro-batch.
    """

    def timed(n: int) -> float:
        began = time.perf_counter()
        compute(inputs[:n], targets[:n], ids[:n])
        return time.perf_counter() - began

    timed(1)  # warms up
    n, one = 1, timed(1)
    seconds = one
    while n < len(inputs) and (seconds < _ENOUGH_SECONDS or seconds < _MORE_THAN_ONE * one):
        n = min(2 * n, len(inputs))
        seconds = timed(n)
    return seconds * len(inputs) / n
