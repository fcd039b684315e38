"""Compares what the ranks' models compute, which may differ though their weights are equal.

Weights are compared by themselves. A layer may hold more: tensors made of its weights, tables,
numbers in plain attributes.
"""

import logging
import os
import platform
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from hvd_xai.errors import mark_agreed
from hvd_xai.primitives.layers import tap
from hvd_xai.probe.probe import Probe
from hvd_xai.provenance import digest, weights_digest
from hvd_xai.ranks.world import World
from hvd_xai.tracing.compiled import read_signature

log = logging.getLogger(__name__)

# A row of an image has 150,000 values; the outputs of all layers are held for a moment.
MOST_ROWS, MOST_VALUES = 16, 2**18
# How many values of an output, evenly spread over it, are compared where the bits may differ.
N_SENT = 2**10
# Largest difference that other hardware makes, relative to the largest value of a layer's output:
# in float32, whose products GPUs take at 10 bits, and in 16 bits.
ROUNDING, ROUNDING_16_BITS = 2e-3, 5e-2


class _Output(NamedTuple):
    """What one call of a layer returned, or the model in the end."""

    path: str
    digest: str
    rounding: float
    values: np.ndarray


def compare_early(model: "keras.Model", probe: Probe, world: World) -> str:
    """Compares the ranks' outputs before training, if their weights are equal already.

    Collective: every rank must call this. Where weights differ, they may be broadcast later.

    Returns:
        The digest of the weights that outputs were compared with; empty if they were not.

    Raises:
        ValueError: on every rank, with the first layer whose outputs differ.
    """
    if world.size == 1:
        return ""
    with world.together("digesting the weights"):
        weights = weights_digest(model)
    if len(set(world.allgather("comparing the weights before training", weights))) > 1:
        return ""
    check_same_outputs(model, probe, world)
    return weights


def check_same_outputs(
    model: "keras.Model", probe: Probe, world: World, *, hardware: str | None = None
) -> None:
    """Raises on every rank unless all ranks' models give the same outputs for the same rows.

    Collective: every rank must call this.

    On equal hardware outputs must be equal to the bit, and elsewhere, as on any GPU, to rounding. A
    model whose outputs are random cannot be compared: a warning says so.

    Args:
        model: this rank's model, with the same weights on every rank.
        probe: examples, of which the first few are run through the model.
        world: ranks whose models are compared.
        hardware: text that is equal on ranks that compute the same bits; found out if None.

    Raises:
        ValueError: on every rank, with the first layer whose outputs differ.
    """
    if world.size == 1 or not len(probe):
        return
    with world.together("running the model on rows of the probe"):
        here = _hardware() if hardware is None else hardware
        mine = _run(model, probe)
    told = [(output.digest, len(output.values)) for output in mine]
    met = world.allgather("comparing the model's outputs", (here, told))
    differ = _places_of_difference([outputs for _, outputs in met])
    if not differ:
        return
    # Only now, since it is seldom: whoever differs from itself cannot be held against others.
    with world.together("running the model once more"):
        is_random = [output.digest for output in _run(model, probe)] != [
            output.digest for output in mine
        ]
    if any(world.allgather("comparing with the model's outputs of before", is_random)):
        if world.is_root:
            log.warning(
                "model '%s' gives other outputs each time for the same rows, so that explanations"
                " depend on the rank that computes them. Let its random layers rest in inference.",
                model.name,
            )
        return
    alike = all(place and place == met[0][0] for place, _ in met)
    comparable = all([n for _, n in outputs] == [n for _, n in met[0][1]] for _, outputs in met)
    if not alike and comparable:
        differ = _beyond_rounding(mine, differ, world)
    if not differ:
        return
    # Keras numbers the layers of a process, so that names may differ: the root's is told.
    first = mine[differ[0]].path if differ[0] < len(mine) else model.name
    path = world.from_root("naming the layer", first)
    raise mark_agreed(
        ValueError(
            "the ranks hold the same weights, and yet their models give different outputs for the"
            f" same rows of the probe. The first layer whose outputs differ is '{path}': it"
            " computes with something that is no weight and that each rank has made for itself."
            " Make it alike on every rank, before fit."
        )
    )


def _places_of_difference(ranks: Sequence[Sequence[object]]) -> list[int]:
    """Returns the places in the ranks' lists at which not all have the same."""
    places = enumerate(zip_longest(*ranks))
    return [place for place, held in places if any(one != held[0] for one in held)]


def _run(model: "keras.Model", probe: Probe) -> list[_Output]:
    """Returns what each call of a layer returns for a few rows, and last what the model does."""
    n_values = max(1, int(np.prod(probe.inputs.shape[1:])))
    n_rows = max(2, min(MOST_ROWS, MOST_VALUES // n_values))
    rows, targets = probe.inputs[:n_rows], probe.targets[:n_rows]
    _, dtype, _ = read_signature(rows, targets)
    with tap(model) as calls:
        outputs = model(tf.convert_to_tensor(rows.astype(dtype)), training=False)
    called = [(call.path, call.output) for call in calls]
    last = [(model.name, output) for output in tf.nest.flatten(outputs)]
    return [
        _summary(path, output)
        for path, output in [*called, *last]
        if isinstance(output, tf.Tensor) and output.dtype in _NUMBERS
    ]


_NUMBERS = {tf.float64, tf.float32, tf.float16, tf.bfloat16, tf.int64, tf.int32, tf.uint8, tf.bool}


def _summary(path: str, output: "tf.Tensor") -> _Output:
    is_16_bits = output.dtype in {tf.float16, tf.bfloat16}
    array = (tf.cast(output, tf.float32) if is_16_bits else output).numpy()
    flat = array.reshape(-1)
    spread = flat[:: max(1, len(flat) // N_SENT)][:N_SENT]
    rounding = ROUNDING_16_BITS if is_16_bits else ROUNDING
    return _Output(path, digest(array), rounding, spread.astype(np.float64))


def _beyond_rounding(mine: list[_Output], places: list[int], world: World) -> list[int]:
    """Returns those of the places at which the ranks' values differ by more than rounding.

    Collective: every rank must call this, with outputs of the same shapes.
    """
    sent = np.concatenate([mine[place].values for place in places])
    gathered = world.gather_rows("comparing the model's outputs", sent, [len(sent)] * world.size)
    if gathered is None:
        return world.from_root("telling which outputs differ", None)
    ranks = gathered.reshape(world.size, -1)
    beyond, start = [], 0
    for place in places:
        #   ranks [rank, value]:  | output of place 0 | output of place 1 | ...
        stop = start + len(mine[place].values)
        part, start = ranks[:, start:stop], stop
        largest = np.nanmax(np.abs(part), initial=0.0)
        allowed = mine[place].rounding * largest
        if not np.allclose(part, part[:1], rtol=0, atol=allowed, equal_nan=True):
            beyond.append(place)
    return world.from_root("telling which outputs differ", beyond)


def _hardware() -> str:
    """Returns what decides the bits that this rank computes; empty if they may differ each time."""
    if tf.config.get_visible_devices("GPU"):
        # Libraries for GPUs choose among their algorithms by trying them out.
        return ""
    cores = Path("/proc/cpuinfo")
    text = cores.read_text(errors="replace") if cores.exists() else ""
    model = next((line for line in text.splitlines() if line.startswith("model name")), "")
    threads = (
        tf.config.threading.get_intra_op_parallelism_threads(),
        os.environ.get("OMP_NUM_THREADS"),
        len(os.sched_getaffinity(0)),
    )
    return f"{platform.machine()} {model} {threads} {tf.__version__}" if model else ""
