"""Asks mpi4py and Horovod about themselves, each in a process of its own.

Libraries that do not fit together can end the process that imports them, and must not end ours.
"""

import json
import os
import sys
from dataclasses import dataclass
from typing import Any

from hvd_xai.environment.processes import run

IMPORT_SECONDS = 180.0
"""Time limit for an import; TensorFlow on a cold network disk takes a minute."""

# What the process has mapped, whatever the packages believe.
_LIBMPI = "sorted({l.split()[-1] for l in open('/proc/self/maps') if '/libmpi.' in l})"
# The version is known without MPI_Init, which in a process without a launcher may wait or abort.
_MPI4PY = f"""
import json, mpi4py
mpi4py.rc.initialize = False
from mpi4py import MPI
version = MPI.Get_library_version().splitlines()[0].split(',')[0].strip('\\0 ')
print(json.dumps({{'version': version, 'libraries': {_LIBMPI}}}))
"""
_HOROVOD = f"""
import json, horovod.tensorflow as hvd
names = ('mpi', 'gloo', 'nccl', 'cuda', 'rocm', 'ddl', 'ccl')
built = {{name: bool(getattr(hvd, name + '_built')()) for name in names}}
print(json.dumps({{'built_with': built, 'libraries': {_LIBMPI}}}))
"""


@dataclass(frozen=True, slots=True)
class Mpi4py:
    """What mpi4py says of the MPI that it loads.

    Args:
        version: name and version of the MPI library.
        libraries: paths of the libmpi files that the process has loaded.
    """

    version: str
    libraries: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Horovod:
    """What Horovod says of its build.

    Args:
        built_with: whether it was built with `mpi`, `gloo`, `nccl`, `cuda`, `rocm`, `ddl`, `ccl`.
        libraries: paths of the libmpi files that the process has loaded.
    """

    built_with: dict[str, bool]
    libraries: tuple[str, ...]


def ask_mpi4py() -> Mpi4py | str:
    """Imports mpi4py in a process of its own; returns what it says, or why it does not import."""
    answer = _ask(_MPI4PY)
    if isinstance(answer, str):
        return answer
    return Mpi4py(answer["version"], tuple(answer["libraries"]))


def ask_horovod() -> Horovod | str:
    """Imports Horovod in a process of its own; returns what it says, or why it does not import."""
    answer = _ask(_HOROVOD)
    if isinstance(answer, str):
        return answer
    return Horovod(answer["built_with"], tuple(answer["libraries"]))


def quiet_environment() -> dict[str, str]:
    """Returns this process's environment variables, with those that let ranks start as root."""
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", **os.environ}
    # Open MPI refuses to run as root unless both are set; in a container one is root.
    if os.getuid() == 0:
        environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return environment


def _ask(program: str) -> dict[str, Any] | str:
    ended = run(
        [sys.executable, "-c", program], limit=IMPORT_SECONDS, environment=quiet_environment()
    )
    if ended.code is None:
        return f"importing it took more than {IMPORT_SECONDS:.0f} s"
    if ended.code != 0:
        return ended.last_line if ended.output.strip() else f"the process ended with {ended.code}"
    # Libraries may greet on standard output: the answer is its last line.
    answer: dict[str, Any] = json.loads(ended.stdout.strip().splitlines()[-1])
    return answer
