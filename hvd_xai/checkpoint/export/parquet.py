"""`.parquet`: a table with a row for each method, epoch and sample.

It has the columns of each sample, and of its attributions the sum, the largest magnitude and the
number of values that are not finite; and each attribution of up to 1,000 features that have names,
as `attribution_of_<feature>`. Needs pyarrow.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hvd_xai.checkpoint.epochs import EpochStack
from hvd_xai.checkpoint.export_blocks import iterate_blocks, read_small_arrays, write_options
from hvd_xai.protocols import Progress

SUFFIX = ".parquet"
MAX_COLUMNS = 1000
"""Largest number of features that get columns: Parquet keeps a record of each in each block."""


def write(stacks: Sequence[EpochStack], destination: Path, progress: Progress) -> None:
    """Writes a row for each method, epoch and sample, block by block."""
    import pyarrow
    import pyarrow.parquet

    columns: dict[str, np.dtype] = {}  # of all methods: what one of them lacks is null there
    for stack in stacks:
        columns |= {
            name: values.dtype
            for name, (axis, values) in read_small_arrays(stack).items()
            if axis == "sample"
        }
        columns |= {
            variable.name: variable.dtype
            for variable in stack.variables.values()
            if len(variable.shape) == 2
        }
        columns.pop("attributions", None)
    computed = {
        "attribution_sum": pyarrow.float64(),
        "attribution_largest": pyarrow.float64(),
        "attribution_nonfinite": pyarrow.int64(),
    }
    fields = {"method": pyarrow.string(), "epoch": pyarrow.int64(), "step": pyarrow.int64()}
    fields |= {name: pyarrow.from_numpy_dtype(dtype) for name, dtype in columns.items()}
    of_features = {stack.method: _columns_of_features(stack) for stack in stacks}
    computed |= {name: pyarrow.float32() for names in of_features.values() for name in names}
    options = {stack.method: json.loads(write_options(stack)) for stack in stacks}
    functions = {stack.method: stack.function for stack in stacks}
    metadata = {"hvd_xai_options": json.dumps(options), "hvd_xai_functions": json.dumps(functions)}
    schema = pyarrow.schema({**fields, **computed}, metadata=metadata)
    with pyarrow.parquet.ParquetWriter(destination, schema, compression="zstd") as writer:
        for stack in stacks:
            small = read_small_arrays(stack)
            for index, start, stop in iterate_blocks(stack):
                n_rows, manifest = stop - start, stack.explanations[index].manifest
                values: dict[str, object] = {
                    name: pyarrow.nulls(n_rows, kind)
                    for name, kind in {**fields, **computed}.items()
                }
                values |= {
                    "method": [stack.method] * n_rows,
                    "epoch": [manifest.epoch] * n_rows,
                    "step": [manifest.step] * n_rows,
                }
                values |= {
                    name: of_sample[start:stop]
                    for name, (axis, of_sample) in small.items()
                    if axis == "sample"
                }
                values |= {
                    name: stack.read(name, index, start, stop)
                    for name in stack.variables
                    if name in columns
                }
                attributions = stack.read("attributions", index, start, stop)
                values |= _in_numbers(attributions)
                values |= {
                    name: attributions[:, place]
                    for place, name in enumerate(of_features[stack.method])
                }
                writer.write_table(pyarrow.table(values, schema=schema))
                progress.advance(n_rows)


def _columns_of_features(stack: EpochStack) -> list[str]:
    names = stack.feature_names
    return [f"attribution_of_{name}" for name in names] if len(names) <= MAX_COLUMNS else []


def _in_numbers(attributions: np.ndarray) -> dict[str, np.ndarray]:
    flat = attributions.reshape(len(attributions), math.prod(attributions.shape[1:]))
    finite = np.isfinite(flat)
    values = np.where(finite, flat, 0).astype(np.float64)
    return {
        "attribution_sum": values.sum(axis=1),
        "attribution_largest": np.abs(values).max(axis=1),
        "attribution_nonfinite": (~finite).sum(axis=1),
    }
