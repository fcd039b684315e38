"""Starts ranks as a user would, and waits for them as long as they get on."""

import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from tests.processes import Ended, Limits, Running, run

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

Launcher: TypeAlias = Literal["mpirun", "horovodrun", "horovodrun --gloo", "gloo", "two hosts"]
COMMANDS = str(Path(__file__).with_name("commands.py"))
HOROVODRUN = (sys.executable, str(Path(__file__).with_name("horovodrun.py")))

_SPIN_SECONDS = 0.2

# Open MPI keeps files under the number of its process, which stay when a job is killed: the next
# job of that number could not start.
_sessions = tempfile.TemporaryDirectory(prefix="sessions-", ignore_cleanup_errors=True)


def command(launcher: Launcher, size: int, program: Sequence[str]) -> list[str]:
    """Returns the command line that starts `size` ranks of a program on this machine."""
    if launcher == "mpirun":
        options = ["-np", str(size), "--oversubscribe", "--mca", "mpi_yield_when_idle", "1"]
        return [str(BIN / "mpirun"), *options, *program]
    n = ["-np", str(size)]
    on_one = ["-H", f"localhost:{size}"]
    # as Horovod counts them: each rank is the first on its host
    on_two = ["-H", f"localhost:{size - size // 2},127.0.0.1:{size // 2}"]
    if launcher == "two hosts":
        return [*HOROVODRUN, "--gloo", *n, *on_two, *program]
    if launcher == "gloo":
        return [*HOROVODRUN, "--gloo", *n, *on_one, *program]
    if launcher == "horovodrun --gloo":
        return [str(BIN / "horovodrun"), "--gloo", *n, *on_one, *program]
    # Open MPI 5 does not know the spelling of the binding arguments that Horovod 0.28 passes by
    # itself
    binding = "--binding-args=--bind-to none --map-by slot:oversubscribe"
    return [str(BIN / "horovodrun"), binding, *n, *on_one, *program]


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


@dataclass(frozen=True, slots=True)
class Said:
    """What one rank said in one command, and the code that the command ended with; None if it did
    not end.
    """

    text: str
    code: str | None


@dataclass(frozen=True, slots=True)
class Commands:
    """Commands that one set of ranks ran: how the job ended, and by command what each rank said."""

    ended: Ended
    said: dict[str, list[Said]]

    def text(self, name: str) -> str:
        """Returns what the ranks said in a command, which must have ended well on all of them."""
        assert [said.code for said in self.said[name]] == ["0"] * len(self.said[name]), (
            f"{name}: {self.said[name]}, {self.ended.output[-3000:]}"
        )
        return "".join(said.text for said in self.said[name])


def launch_commands(
    launcher: Launcher,
    size: int,
    folder: Path,
    commands: Mapping[str, Sequence[str]],
    cwd: Path | None = None,
) -> Commands:
    """Starts ranks and runs commands on them, one after the other: `commands.py` says how."""
    listed = Path(tempfile.mkdtemp(dir=folder)) / "commands.json"
    listed.write_text(json.dumps(commands))
    env = {"HVD_XAI_DEADLINE": "600"}
    ended = launch(launcher, size, sys.executable, COMMANDS, str(listed), env=env, cwd=cwd)
    written = [listed.with_name(f"{listed.name}.{rank}") for rank in range(size)]
    assert all(path.is_file() for path in written), ended.output[-4000:]
    outputs = [path.read_text() for path in written]
    return Commands(ended, {name: [_said(name, text) for text in outputs] for name in commands})


def _said(name: str, output: str) -> Said:
    begun = output.partition(f"=== begins {name}\n")[2]
    text, ends, rest = begun.partition(f"\n=== ended {name} with ")
    return Said(text, rest.partition("\n")[0] if ends else None)


def slowness() -> float:
    """Returns how many times longer than on idle cores a process takes now, at least 1.

    Deadlines that a test must see pass are multiplied by it.
    """
    spin = f"import time\nwhile time.process_time() < {_SPIN_SECONDS}: pass"
    return max(1.0, run([sys.executable, "-S", "-c", spin]).seconds / (2 * _SPIN_SECONDS))
