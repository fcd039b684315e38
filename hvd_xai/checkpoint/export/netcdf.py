"""`.nc`: NetCDF 4 with a group for each method, named dimensions and coordinates.

`xarray.open_datatree` reads it. Needs h5netcdf.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hvd_xai.checkpoint.epochs import EpochStack
from hvd_xai.checkpoint.export_blocks import iterate_blocks, read_small_arrays, write_options
from hvd_xai.protocols import Progress

if TYPE_CHECKING:
    from typing_extensions import Buffer

SUFFIX = ".nc"


def write(stacks: Sequence[EpochStack], destination: Path, progress: Progress) -> None:
    """Writes a group for each method, chunk by chunk."""
    import h5netcdf
    import h5py

    with _Disk(destination) as disk, h5netcdf.File(disk, "w") as file:
        for stack in stacks:
            group = file.create_group(stack.method)
            group.attrs.update(
                Conventions="CF-1.11",
                method=stack.method,
                function=stack.function,
                options=write_options(stack),
                **stack.score_attributes,
            )
            small = read_small_arrays(stack)
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
                    _to_netcdf_dtype(variable.dtype),
                    chunks=chunks,
                    compression="gzip",
                    shuffle=True,
                )
                made.attrs["coordinates"] = "step sample_id label target"
            for index, start, stop in iterate_blocks(stack):
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


def _to_netcdf_dtype(dtype: np.dtype) -> np.dtype:
    """Returns the dtype as NetCDF has it, which knows no booleans."""
    return np.dtype(np.int8) if dtype.kind == "b" else dtype
