"""Starts ranks as a user would, and waits for them with a limit: a hang is a failure, not a
wait."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

Launcher: TypeAlias = Literal["mpirun", "horovodrun", "gloo", "two hosts"]

# Open MPI keeps files under the number of its process, which stay when a job is killed: the next
# job of that number could not start.
_sessions = tempfile.TemporaryDirectory(prefix="sessions-", ignore_cleanup_errors=True)


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that ended by itself."""

    code: int
    output: str
    seconds: float


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
    launcher's variables of our own parent."""
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
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **(extra or {}),
    }


def start(
    launcher: Launcher,
    size: int,
    *program: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.Popen[str]:
    """Starts a job, whose output can be read line by line, in a process group of its own."""
    return subprocess.Popen(
        command(launcher, size, program),
        env=environment(env),
        cwd=cwd or ROOT,
        text=True,
        errors="replace",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def end(job: subprocess.Popen[str]) -> None:
    """Ends what is left of a job."""
    if job.poll() is None:
        os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    if job.stdout is not None:
        job.stdout.close()


def launch(
    launcher: Launcher,
    size: int,
    *program: str,
    limit: float = 240,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Ended:
    """Runs a job to its end; one that does not end within `limit` seconds is killed and fails the
    test, with its output."""
    began = time.monotonic()
    job = start(launcher, size, *program, env=env, cwd=cwd)
    try:
        output, _ = job.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(job.pid, signal.SIGKILL)
        output, _ = job.communicate()
        raise AssertionError(
            f"the job did not end within {limit:.0f} s:\n{output[-4000:]}"
        ) from None
    finally:
        end(job)
    return Ended(job.returncode, output, time.monotonic() - began)
