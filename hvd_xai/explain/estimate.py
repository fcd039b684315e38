"""Estimates the seconds, rows and bytes of an explanation before it is computed."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from hvd_xai.checkpoint.rows import row_dtype
from hvd_xai.compute.attribute import Compute
from hvd_xai.explain.share import ProbeShare
from hvd_xai.lookup.resolve import Method
from hvd_xai.probe.probe import Probe
from hvd_xai.ranks.world import World
from hvd_xai.tracing import micro_batches
from hvd_xai.tracing.packed_model import accept_packed
from hvd_xai.tracing.precision import Precision

# A shorter call is too short to measure.
_ENOUGH_SECONDS = 0.5
# A single example is padded to a whole micro-batch. If several examples take less than this many
# times as long, they still fit into one micro-batch, and do not tell how long a second one takes.
_MORE_THAN_ONE = 1.5


@dataclass(frozen=True, slots=True)
class Estimate:
    """Holds the expected time and size of explaining a probe once with one method.

    Attributes:
        method: name that the method is committed under.
        n_rows: number of examples that all ranks explain together.
        seconds: seconds until the slowest rank has attributed its share; compiling, which is done
            once, merging and writing come on top.
        n_bytes: size of the explanation checkpoint's arrays; they are compressed on disk.

    Example:
        >>> Estimate("saliency", n_rows=100, seconds=0.5, n_bytes=4096).seconds
        0.5
    """

    method: str
    n_rows: int
    seconds: float
    n_bytes: int


def estimate(
    model: "keras.Model",
    probe: Probe,
    methods: Sequence[Method],
    *,
    world: World,
    precision: Precision | None = None,
) -> list[Estimate]:
    """Estimates time and size of explaining a probe. Collective: every rank must call this.

    Each rank times the methods on some of its own examples. All ranks do so at once, so that they
    compete for the hardware as they will in earnest. The model does not change.

    Args:
        model: built Keras model.
        probe: examples to explain; the same on every rank.
        methods: resolved methods.
        world: ranks that share the work.
        precision: `bfloat16` to explain in it; None for the model's own precision.

    Returns:
        One estimate for each method, in the order of the methods; the same on every rank.

    Raises:
        PeerError: on all ranks, if the probe or a method does not fit the model.

    Example:
        >>> from hvd_xai.lookup.resolve import resolve
        >>> (found,) = estimate(model, probe, resolve(["saliency"]), world=world)
        >>> found.method, found.n_rows
        ('saliency', 4)
    """
    share = ProbeShare.cut(probe, world)
    estimates = []
    for method in methods:
        with world.together("calibrating"):
            compute = Compute(
                accept_packed(model, probe.packing),
                method,
                micro_batch=micro_batches.propose_size(probe.inputs.shape[1:]),
                precision=precision,
            )
            with method.named_in_errors():
                compute.check(*share.examples())
            seconds = _time(compute, *share.examples()) if len(share) else 0.0
        slowest = max(world.allgather("gathering calibrations", seconds))
        row = row_dtype(
            compute.sample_shape, target=probe.targets.dtype, per_sample=compute.per_sample
        )
        estimates.append(Estimate(method.name, len(probe), slowest, len(probe) * row.itemsize))
    return estimates


def _time(compute: Compute, inputs: np.ndarray, targets: np.ndarray, ids: np.ndarray) -> float:
    """Estimates the seconds that all examples will take from a few of them.

    It doubles the number of examples until they need more than one micro-batch.
    """

    def timed(n: int) -> float:
        began = time.perf_counter()
        compute(inputs[:n], targets[:n], ids[:n])
        return time.perf_counter() - began

    # The first call compiles.
    timed(1)
    n, first = 1, timed(1)
    seconds = first
    while n < len(inputs) and (seconds < _ENOUGH_SECONDS or seconds < _MORE_THAN_ONE * first):
        n = min(2 * n, len(inputs))
        seconds = timed(n)
    return seconds * len(inputs) / n
