"""Starts ranks as a user would, and waits for them as long as they get on."""

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from tests.processes import Ended, Limits, Running, run

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

Launcher: TypeAlias = Literal["mpirun", "horovodrun", "gloo", "two hosts"]

_SPIN_SECONDS = 0.2

# Open MPI keeps files under the number of its process, which stay when a job is killed: the next
# job of that number could not start.
_sessions = tempfile.TemporaryDirectory(prefix="sessions-", ignore_cleanup_errors=True)


def command(launcher: Launcher, size: int, program: Sequence[str]) -> list[str]:
    """Returns the command line that starts `size` ranks of a program on this machine."""
    if launcher == "mpirun":
        return [
            str(BIN / "mpirun"),
            "-np",
            str(size),
            "--oversubscribe",
            "--mca",
            "mpi_yield_when_idle",
            "1",
            *program,
        ]
    hosts = ["-np", str(size), "-H", f"localhost:{size}"]
    if launcher == "two hosts":  # as Horovod counts them: each rank is the first on its host
        return [
            str(BIN / "horovodrun"),
            "--gloo",
            "-np",
            str(size),
            "-H",
            f"localhost:{size - size // 2},127.0.0.1:{size // 2}",
            *program,
        ]
    if launcher == "gloo":
        return [str(BIN / "horovodrun"), "--gloo", *hosts, *program]
    # Open MPI 5 does not know the spelling of the binding arguments that Horovod 0.28 passes by
    # itself
    return [
        str(BIN / "horovodrun"),
        "--binding-args=--bind-to none --map-by slot:oversubscribe",
        *hosts,
        *program,
    ]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Returns what one job runs under: the folder of this Python first on the path, and no
    launcher's variables of our own parent.
    """
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OMPI_COMM", "PMIX", "HOROVOD", "PRTE"))
    }
    ours["PATH"] = f"{BIN}{os.pathsep}{ours.get('PATH', '')}"
    ours["PYTHONPATH"] = str(ROOT)
    ours["PRTE_MCA_prte_tmpdir_base"] = tempfile.mkdtemp(dir=_sessions.name)
    return {
        **ours,
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        # this one sleeps for a second in each MPI_Init, looking for networks
        "OMPI_MCA_mtl": "^ofi",
        "OMPI_MCA_btl": "^ofi",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **(extra or {}),
    }


def start(
    launcher: Launcher,
    size: int,
    *program: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    limits: Limits | None = None,
) -> Running:
    """Starts a job, to be used in a with block, at whose end all that is left of it is killed."""
    return Running(
        command(launcher, size, program),
        env=environment(env),
        cwd=cwd or ROOT,
        limits=limits or Limits(),
    )


def launch(
    launcher: Launcher,
    size: int,
    *program: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    limits: Limits | None = None,
) -> Ended:
    """Runs a job to its end; one that goes over its limits is killed and fails the test, with its
    output.
    """
    with start(launcher, size, *program, env=env, cwd=cwd, limits=limits) as job:
        return job.end()


def slowness() -> float:
    """Returns how many times longer than on idle cores a process takes now, at least 1.

    Deadlines that a test must see pass are multiplied by it.
    """
    spin = f"import time\nwhile time.process_time() < {_SPIN_SECONDS}: pass"
    return max(1.0, run([sys.executable, "-S", "-c", spin]).seconds / (2 * _SPIN_SECONDS))
