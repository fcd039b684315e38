"""Explanations in the formats of others.

`.npz` for NumPy, `.nc` for whatever reads NetCDF, `.parquet` for tables.

All are written in blocks, so that memory stays bounded, and appear whole or not at all.
"""

import io
import json
import math
import secrets
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hvd_xai.checkpoint.epochs import OF_SAMPLE, Stack
from hvd_xai.checkpoint.json_record import plain
from hvd_xai.protocols import Progress, Silent
from hvd_xai.storage.durable import STAGING, fsync_file, writing

if TYPE_CHECKING:
    from typing_extensions import Buffer

BLOCK_BYTES = 16 * 2**20
MAX_COLUMNS = 1000
"""The most features that get columns of their own in a table: Parquet keeps a record of each column
in each block."""


def export(stacks: Sequence[Stack], destination: Path, progress: Progress | None = None) -> None:
    """Writes explanations into one file, whose name's ending says the format.

    - `.npz`: arrays `<method>/<name>`, such as `grad_cam/attributions`; the attributions are
      `[epoch, sample, ...]`, and `<method>/feature` has the names of their last axis where features
      have names.
    - `.nc`: NetCDF 4, a group for each method, with named dimensions and coordinates;
      `xarray.open_datatree` reads it. Needs h5netcdf.
    - `.parquet`: a table with a row for each method, epoch and sample: what each sample has one
      number of, and of its attributions the sum, the largest magnitude and how many are not finite;
      and each, as `attribution_of_<feature>`, of up to 1,000 features that have names. Needs
      pyarrow.

    Args:
        stacks: one a method.
        destination: the file; one that exists is replaced.
        progress: told of every block; nobody if left out.

    Raises:
        ValueError: if the ending is none of these, or there is no such folder.
        CheckpointError: if an explanation is damaged, or the file cannot be written.
    """
    if destination.suffix not in FORMATS:
        raise ValueError(
            f"the file's ending says the format, one of {', '.join(FORMATS)}; got"
            f" '{destination.name}'"
        )
    if not destination.absolute().parent.is_dir():
        raise ValueError(
            f"the folder '{destination.parent}' does not exist; make it, or choose another"
        )
    progress = progress or Silent()
    progress.start(
        f"export {destination.name}",
        sum(len(stack.epochs) * len(stack.sample_ids) for stack in stacks),
    )
    written = destination.with_name(f"{STAGING}{destination.name}-{secrets.token_hex(4)}")
    try:
        with writing(destination):
            FORMATS[destination.suffix](stacks, written, progress)
            fsync_file(written)
            written.replace(destination)
    finally:
        written.unlink(missing_ok=True)


def _rows(stack: Stack) -> Iterator[tuple[int, int, int]]:
    """Goes through all rows of a stack in blocks: the epoch's index, and the rows `start` to
    `stop`.
    """
    row_bytes = sum(
        variable.dtype.itemsize * math.prod(variable.shape[2:])
        for variable in stack.variables.values()
    )
    size, n_samples = max(1, BLOCK_BYTES // row_bytes), len(stack.sample_ids)
    for index in range(len(stack.epochs)):
        for start in range(0, n_samples, size):
            yield index, start, min(start + size, n_samples)


def _of_stack(stack: Stack) -> dict[str, tuple[str, np.ndarray]]:
    """Returns what is small and not read in blocks: the axis it belongs to, and its values."""
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


def _to_npz(stacks: Sequence[Stack], destination: Path, progress: Progress) -> None:
    with zipfile.ZipFile(destination, "w") as archive:
        for stack in stacks:
            for name, (_, values) in _of_stack(stack).items():
                with archive.open(f"{stack.method}/{name}.npy", "w") as file:
                    np.lib.format.write_array(file, values, allow_pickle=False)
            for name, variable in stack.variables.items():
                with archive.open(f"{stack.method}/{name}.npy", "w", force_zip64=True) as file:
                    header = {
                        "descr": variable.dtype.str,
                        "fortran_order": False,
                        "shape": variable.shape,
                    }
                    np.lib.format.write_array_header_1_0(file, header)
                    for index, start, stop in _rows(stack):
                        file.write(stack.read(name, index, start, stop).tobytes())
                        if name == "attributions":
                            progress.advance(stop - start)


def _to_netcdf(stacks: Sequence[Stack], destination: Path, progress: Progress) -> None:
    import h5netcdf
    import h5py

    with _Disk(destination) as disk, h5netcdf.File(disk, "w") as file:
        for stack in stacks:
            group = file.create_group(stack.method)
            group.attrs.update(
                Conventions="CF-1.11",
                method=stack.method,
                function=stack.function,
                options=_options(stack),
            )
            small = _of_stack(stack)
            for variable in stack.variables.values():
                for axis, length in zip(variable.axes, variable.shape, strict=True):
                    if axis not in group.dimensions:
                        group.dimensions[axis] = length
            for name, (axis, values) in small.items():
                dtype = h5py.string_dtype() if values.dtype.kind == "U" else values.dtype
                group.create_variable(name, (axis,), dtype)[:] = values.astype(dtype)
            for name, variable in stack.variables.items():
                # one sample a chunk, as in the checkpoint, for maps; numbers are kept together
                whole = len(variable.shape) == 2
                chunks = (1, min(variable.shape[1], 2**16) if whole else 1, *variable.shape[2:])
                made = group.create_variable(
                    name,
                    variable.axes,
                    _of_netcdf(variable.dtype),
                    chunks=chunks,
                    compression="gzip",
                    shuffle=True,
                )
                made.attrs["coordinates"] = "step sample_id label target"
            for index, start, stop in _rows(stack):
                for name in stack.variables:
                    group.variables[name][index, start:stop] = stack.read(name, index, start, stop)
                disk.check()
                progress.advance(stop - start)
    disk.check()


class _Disk(io.FileIO):
    """A file that takes all writes, and says by `check` what failed.

    HDF5 crashes the process where it cannot write what it holds.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self._error: OSError | None = None

    def write(self, content: "Buffer", /) -> int:
        """Writes all of it, or nothing any more once that has failed."""
        whole = left = memoryview(content).cast("B")
        try:
            while len(left) and self._error is None:
                left = left[super().write(left) :]
        except OSError as error:
            self._error = error
        return len(whole)

    def truncate(self, size: int | None = None, /) -> int:
        """Cuts it off, or lets it grow."""
        try:
            return super().truncate(size)
        except OSError as error:
            self._error = self._error or error
            return self.tell() if size is None else size

    def check(self) -> None:
        """Raises the `OSError` of a write that failed, if one did."""
        if self._error is not None:
            raise self._error


def _of_netcdf(dtype: np.dtype) -> np.dtype:
    """Returns the dtype as NetCDF has it, which knows no booleans."""
    return np.dtype(np.int8) if dtype.kind == "b" else dtype


def _to_parquet(stacks: Sequence[Stack], destination: Path, progress: Progress) -> None:
    import pyarrow
    import pyarrow.parquet

    columns: dict[str, np.dtype] = {}  # of all methods: what one of them lacks is null there
    for stack in stacks:
        columns |= {
            name: values.dtype
            for name, (axis, values) in _of_stack(stack).items()
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
    options = {stack.method: json.loads(_options(stack)) for stack in stacks}
    functions = {stack.method: stack.function for stack in stacks}
    metadata = {"hvd_xai_options": json.dumps(options), "hvd_xai_functions": json.dumps(functions)}
    schema = pyarrow.schema({**fields, **computed}, metadata=metadata)
    with pyarrow.parquet.ParquetWriter(destination, schema, compression="zstd") as writer:
        for stack in stacks:
            small = _of_stack(stack)
            for index, start, stop in _rows(stack):
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


def _columns_of_features(stack: Stack) -> list[str]:
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


def _options(stack: Stack) -> str:
    return json.dumps(plain(stack.explanations[0].manifest.options), sort_keys=True)


FORMATS: dict[str, Callable[[Sequence[Stack], Path, Progress], None]] = {
    ".npz": _to_npz,
    ".nc": _to_netcdf,
    ".parquet": _to_parquet,
}
"""By the ending of the file's name."""
