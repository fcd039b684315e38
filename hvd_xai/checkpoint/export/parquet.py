"""`.parquet`: a table with a row for each method, epoch and sample.

It has the columns of each sample, and of its attributions the sum, the largest magnitude and the
number of values that are not finite; and each attribution of up to 1,000 features that have names,
as `attribution_of_<feature>`, with its standard error, where the method has one, as
`standard_error_of_<feature>`. Needs pyarrow.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hvd_xai.checkpoint.epochs import EpochStack
from hvd_xai.checkpoint.export_blocks import iterate_blocks, read_small_arrays, write_options
from hvd_xai.checkpoint.rows import STANDARD_ERRORS
from hvd_xai.protocols import Progress

if TYPE_CHECKING:
    import pyarrow

SUFFIX = ".parquet"
MAX_COLUMNS = 1000
"""Largest number of features that get columns: Parquet keeps a record of each in each block."""


def write(stacks: Sequence[EpochStack], destination: Path, progress: Progress) -> None:
    """Writes a row for each method, epoch and sample, block by block."""
    import pyarrow
    import pyarrow.parquet

    columns = _stored_columns(stacks)
    schema = _schema(stacks, columns)
    with pyarrow.parquet.ParquetWriter(destination, schema, compression="zstd") as writer:
        for stack in stacks:
            small = read_small_arrays(stack)
            for index, start, stop in iterate_blocks(stack):
                # What a method lacks is null in its rows.
                values = {
                    field.name: pyarrow.nulls(stop - start, field.type) for field in schema
                } | {
                    name: of_sample[start:stop]
                    for name, (axis, of_sample) in small.items()
                    if axis == "sample"
                }
                values |= {
                    name: stack.read(name, index, start, stop)
                    for name in stack.variables
                    if name in columns
                }
                values |= _computed(stack, index, start, stop)
                writer.write_table(pyarrow.table(values, schema=schema))
                progress.advance(stop - start)


def _stored_columns(stacks: Sequence[EpochStack]) -> dict[str, np.dtype]:
    """Returns name and dtype of what any method has one stored value a sample of."""
    columns: dict[str, np.dtype] = {}
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
    return columns


def _schema(stacks: Sequence[EpochStack], columns: dict[str, np.dtype]) -> "pyarrow.Schema":
    """Returns the table's columns, in their order, with the methods' options beside them."""
    import pyarrow

    fields = {"method": pyarrow.string(), "epoch": pyarrow.int64(), "step": pyarrow.int64()}
    fields |= {name: pyarrow.from_numpy_dtype(dtype) for name, dtype in columns.items()}
    fields |= {
        "attribution_sum": pyarrow.float64(),
        "attribution_largest": pyarrow.float64(),
        "attribution_nonfinite": pyarrow.int64(),
    }
    for stack in stacks:
        names = [name for of_array in _columns_of_features(stack).values() for name in of_array]
        fields |= dict.fromkeys(names, pyarrow.float32())
    options = {stack.method: json.loads(write_options(stack)) for stack in stacks}
    functions = {stack.method: stack.function for stack in stacks}
    metadata = {
        "hvd_xai_options": json.dumps(options),
        "hvd_xai_functions": json.dumps(functions),
        "hvd_xai_scores": json.dumps({stack.method: stack.score_attributes for stack in stacks}),
    }
    return pyarrow.schema(fields, metadata=metadata)


def _computed(stack: EpochStack, index: int, start: int, stop: int) -> dict[str, object]:
    """Returns the columns of a block that are not stored: what it is of, and its attributions."""
    manifest, n_rows = stack.explanations[index].manifest, stop - start
    attributions = stack.read("attributions", index, start, stop)
    of_features: dict[str, np.ndarray] = {}
    for array, names in _columns_of_features(stack).items():
        values = stack.read(array, index, start, stop)
        of_features |= {name: values[:, place] for place, name in enumerate(names)}
    return {
        "method": [stack.method] * n_rows,
        "epoch": [manifest.epoch] * n_rows,
        "step": [manifest.step] * n_rows,
        **_in_numbers(attributions),
        **of_features,
    }


def _columns_of_features(stack: EpochStack) -> dict[str, list[str]]:
    """Returns, for each array that has a value for each feature, the names of its columns."""
    names = stack.feature_names
    if len(names) > MAX_COLUMNS:
        return {}
    beginnings = {"attributions": "attribution_of", STANDARD_ERRORS: "standard_error_of"}
    return {
        array: [f"{beginning}_{name}" for name in names]
        for array, beginning in beginnings.items()
        if array in stack.variables
    }


def _in_numbers(attributions: np.ndarray) -> dict[str, np.ndarray]:
    flat = attributions.reshape(len(attributions), math.prod(attributions.shape[1:]))
    finite = np.isfinite(flat)
    values = np.where(finite, flat, 0).astype(np.float64)
    return {
        "attribution_sum": values.sum(axis=1),
        "attribution_largest": np.abs(values).max(axis=1),
        "attribution_nonfinite": (~finite).sum(axis=1),
    }
