"""Says which Horovod is built, where its source comes from, with which flags and which cmake hook.

The source is the one on the package index, unedited. Horovod's `HOROVOD_CMAKE` variable names the
cmake to call. Ours is a wrapper of three lines around the real one: it sets the policy without
which CMake 4 refuses Horovod's third parties, and includes `horovod_build.cmake`, which leaves out
the one source file that today's TensorFlow cannot compile.
"""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from hvd_xai.environment.mpi import Mpi
from hvd_xai.environment.processes import run

VERSION = "0.28.1"
HOOK = Path(__file__).with_name("horovod_build.cmake")

_DEFAULTS = {
    "HOROVOD_WITH_TENSORFLOW": "1",
    "HOROVOD_WITHOUT_PYTORCH": "1",
    "HOROVOD_WITHOUT_MXNET": "1",
    "HOROVOD_WITH_MPI": "1",
}
_COMPILER_FLAGS = ("CXX", "CC", "CXXFLAGS", "CFLAGS", "LDFLAGS")
# Launchers and users set many HOROVOD_... variables for a job. These alone are read by the build.
_BUILD_FLAG = re.compile(
    "HOROVOD_(WITH_|WITHOUT_|GPU|NCCL_|NVTX_|(CPU_OPERATIONS|CUDA_HOME|ROCM_HOME"
    "|ALLOW_MIXED_GPU_IMPL|BUILD_ARCH_FLAGS|DEBUG|LOCAL_VERSION)$)"
)


def build_flags() -> dict[str, str]:
    """Returns the environment variables that decide what Horovod's build makes."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _COMPILER_FLAGS or _BUILD_FLAG.match(name)
    }


def pip_command(folder: Path) -> list[str]:
    """Returns the command that builds Horovod's wheel from the source on the package index.

    Args:
        folder: folder that the wheel is put into.
    """
    pip = [sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "--no-build-isolation"]
    # pip's own cache may hold a wheel that was built for another TensorFlow.
    pip += ["--no-cache-dir", "--no-binary", "horovod"]
    return [*pip, "--wheel-dir", str(folder), f"horovod=={VERSION}"]


def build_environment(cmake: Path, jobs: int) -> dict[str, str]:
    """Returns the environment variables of Horovod's build.

    Args:
        cmake: path of the cmake wrapper.
        jobs: number of compilers that make runs at a time.
    """
    environment: dict[str, str] = {
        **_DEFAULTS,
        **os.environ,
        "HOROVOD_CMAKE": str(cmake),
        "MAKEFLAGS": f"-j{jobs}",
    }
    # It would forbid the wheels of the build's tools as well.
    environment.pop("PIP_NO_BINARY", None)
    compiler = shlex.split(os.environ.get("CXX") or shutil.which("c++") or "g++")
    asked = run([*compiler, "-dumpversion"])
    major = asked.stdout.partition(".")[0].strip() if asked.code == 0 else ""
    if major.isdecimal() and int(major) >= 13:
        # Since gcc 13, <string> no longer brings <cstdint>, on which Horovod 0.28.1 relies.
        environment["CXXFLAGS"] = f"{os.environ.get('CXXFLAGS', '')} -include cstdint".strip()
    return environment


def cmake_wrapper(cmake: str, mpi: Mpi, rpath: str) -> str:
    """Returns the text of the shell script that Horovod's build calls in place of cmake.

    Args:
        cmake: path of the real cmake.
        mpi: MPI to link with.
        rpath: folders in which the loader looks for MPI and TensorFlow, separated by semicolons.
    """
    places = {
        "HVD_XAI_RPATH": rpath,
        "MPI_CXX_COMPILER": str(mpi.mpicxx),
        "MPI_C_COMPILER": str(mpi.mpicxx.with_name("mpicc")),
    }
    return _wrap(cmake, str(HOOK), places)


def cmake_wrapper_without_paths() -> str:
    """Returns the wrapper less all that differs between environments, for the key of a wheel."""
    return _wrap("cmake", HOOK.name, {})


def _wrap(cmake: str, hook: str, places: Mapping[str, str]) -> str:
    definitions = {
        "CMAKE_POLICY_VERSION_MINIMUM": "3.5",
        "CMAKE_PROJECT_horovod_INCLUDE": hook,
        **places,
    }
    options = shlex.join(f"-D{name}={value}" for name, value in definitions.items())
    real = shlex.quote(cmake)
    # `cmake --build` takes no definitions.
    return (
        f'#!/bin/sh\nif [ "$1" = --build ]; then exec {real} "$@"; fi\nexec {real} {options} "$@"\n'
    )
