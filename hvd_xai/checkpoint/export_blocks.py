"""What every export format reads of explanations: blocks of rows, small arrays, and options."""

import json
import math
from collections.abc import Iterator

import numpy as np

from hvd_xai.checkpoint.epochs import OF_SAMPLE, EpochStack
from hvd_xai.checkpoint.json_record import plain

BLOCK_BYTES = 16 * 2**20


def iterate_blocks(stack: EpochStack) -> Iterator[tuple[int, int, int]]:
    """Goes through all rows of a stack in blocks: the epoch's index, and rows `start` to `stop`."""
    row_bytes = sum(
        variable.dtype.itemsize * math.prod(variable.shape[2:])
        for variable in stack.variables.values()
    )
    size, n_samples = max(1, BLOCK_BYTES // row_bytes), len(stack.sample_ids)
    for index in range(len(stack.epochs)):
        for start in range(0, n_samples, size):
            yield index, start, min(start + size, n_samples)


def read_small_arrays(stack: EpochStack) -> dict[str, tuple[str, np.ndarray]]:
    """Returns the arrays that are read whole: by name, the axis of each and its values."""
    return {
        "epoch": ("epoch", np.array(stack.epochs, np.int64)),
        "step": (
            "epoch",
            np.array([explanation.manifest.step for explanation in stack.explanations], np.int64),
        ),
        "sample_id": ("sample", stack.sample_ids),
        **{name: ("sample", stack.of_samples(name)) for name in OF_SAMPLE},
        **({"feature": ("feature", np.array(stack.feature_names))} if stack.feature_names else {}),
    }


def write_options(stack: EpochStack) -> str:
    """Writes the method's options as JSON."""
    return json.dumps(plain(stack.explanations[0].manifest.options), sort_keys=True)
