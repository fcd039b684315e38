"""Finds what Horovod is built for and built with, and says what of it is missing."""

import os
import re
import shlex
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from hvd_xai.environment.mpi import Mpi, MpiChoice, find_mpi
from hvd_xai.environment.packages import TENSORFLOWS, find_distribution
from hvd_xai.environment.processes import count_cores, run

_CPP17 = (
    "#include <string_view>\nint main() { if constexpr (sizeof(std::string_view) > 0) return 0; }"
)
_BYTES_PER_COMPILER = 2 * 2**30


@dataclass(frozen=True, slots=True)
class Target:
    """What Horovod is built for.

    Args:
        tensorflow: name and version of TensorFlow's distribution, such as `tensorflow_cpu-2.21.0`.
        mpi: MPI that Horovod is linked with.
        rpath: folders in which the loader looks for MPI and TensorFlow, separated by semicolons.
    """

    tensorflow: str
    mpi: Mpi
    rpath: str


def find_target(mpi: MpiChoice = "auto") -> tuple[Target | None, list[str]]:
    """Returns what to build for, or None and sentences that say how to install what is missing.

    Args:
        mpi: MPI to link with.
    """
    missing = []
    tensorflow = find_distribution(*TENSORFLOWS)
    spec = find_spec("tensorflow")
    origin = spec.origin if spec is not None else None
    if tensorflow is None or origin is None:
        missing.append("TensorFlow is missing: pip install 'hvd_xai[cpu]', or 'hvd_xai[gpu]'.")
    elif tuple(map(int, tensorflow.version.split(".")[:2])) < (2, 16):
        missing.append(
            f"TensorFlow {tensorflow.version} is older than 2.16, the first for Keras 3: pip"
            " install -U tensorflow."
        )
    if find_spec("mpi4py") is None:
        missing.append("mpi4py is missing: pip install 'hvd_xai[train]'.")
    found = find_mpi(mpi)
    if isinstance(found, str):
        missing.append(found)
    if missing or tensorflow is None or origin is None or isinstance(found, str):
        return None, missing
    here, there = Path(sysconfig.get_path("platlib")), Path(origin).parent
    # Beside Horovod in site-packages TensorFlow is found by a relative path, so that one built
    # wheel serves every environment; installed elsewhere, by its absolute one.
    folder = "$ORIGIN/../../tensorflow" if there.parent == here else str(there)
    rpath = ";".join([*found.rpath, folder])
    return Target(f"{tensorflow.name}-{tensorflow.version}", found, rpath), []


def missing_tools() -> list[str]:
    """Returns sentences that say which tools of the build are missing, and how to install them."""
    missing = []
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        missing.append("A C++ compiler is missing: apt-get install g++.")
    else:
        command = [*shlex.split(compiler), "-std=c++17", "-fsyntax-only", "-x", "c++", "-"]
        if run(command, text=_CPP17).code != 0:
            missing.append(
                f"The C++ compiler '{compiler}' does not compile C++17: apt-get install g++ (9 or"
                " newer), or set CXX."
            )
    if shutil.which("make") is None:
        missing.append("make is missing: apt-get install make.")
    if find_cmake() is None:
        missing.append("cmake 3.19 or newer is missing: pip install cmake.")
    needed = ("pip", "setuptools", "packaging", "cloudpickle", "psutil", "yaml")
    absent = [name for name in needed if find_spec(name) is None]
    if absent:
        missing.append(
            f"Python packages are missing, {', '.join(absent)}: pip install 'hvd_xai[train]'."
        )
    return missing


def find_cmake() -> str | None:
    """Finds a cmake that is new enough: this environment's own, or else the one on the PATH."""
    for candidate in (str(Path(sys.executable).with_name("cmake")), shutil.which("cmake")):
        if candidate is None:
            continue
        version = re.search(r"version (\d+)\.(\d+)", run([candidate, "--version"]).stdout)
        if version and (int(version[1]), int(version[2])) >= (3, 19):
            return candidate
    return None


def default_jobs() -> int:
    """Returns how many compilers to run at a time: one a core, if each has 2 GiB of memory."""
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    # In a container the machine's memory is not ours: the control group's limit counts.
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text("ascii").strip()).isdecimal():
        available = min(available, int(text))
    return max(1, min(count_cores(), available // _BYTES_PER_COMPILER))
