"""`.npz` for NumPy: arrays `<method>/<name>`, such as `grad_cam/attributions`.

Attributions are `[epoch, sample, ...]`; `<method>/feature` has the names of their last axis where
features have names.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hvd_xai.checkpoint.epochs import EpochStack
from hvd_xai.checkpoint.export_blocks import iterate_blocks, read_small_arrays
from hvd_xai.protocols import Progress

SUFFIX = ".npz"


def write(stacks: Sequence[EpochStack], destination: Path, progress: Progress) -> None:
    """Writes arrays `<method>/<name>`, row after row into the members of a zip archive."""
    with zipfile.ZipFile(destination, "w") as archive:
        for stack in stacks:
            for name, (_, values) in read_small_arrays(stack).items():
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
                    for index, start, stop in iterate_blocks(stack):
                        file.write(stack.read(name, index, start, stop).tobytes())
                        if name == "attributions":
                            progress.advance(stop - start)
