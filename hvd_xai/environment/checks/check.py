"""What a check returns, and what several checks need to know about this machine."""

import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from hvd_xai.environment.libraries import (
    Horovod,
    Mpi4py,
    ask_horovod,
    ask_mpi4py,
    quiet_environment,
)
from hvd_xai.environment.packages import find_distribution
from hvd_xai.environment.processes import Ended, run

REBUILD = "hvd-xai install-horovod --force"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor's table.

    Args:
        name: thing that was looked at.
        status: `failed` if ranks cannot work like this, `warning` if they can but should not.
        found: what was found.
        advice: what to do about it; empty if nothing.

    Example:
        >>> Check("horovod", "failed", "not installed", "hvd-xai install-horovod").status
        'failed'
    """

    name: str
    status: Literal["ok", "warning", "failed"]
    found: str
    advice: str = ""


class Machine:
    """What the libraries and programs of this machine say about themselves; each is asked once.

    Args:
        host_file: path of the host file, if the user has one.
        temporary_files: folder in which Open MPI keeps the files of its jobs; the system's if None.

    Example:
        >>> machine = Machine()
        >>> machine.ask_version(Path("/no/such/program")).code
        127
    """

    def __init__(
        self, host_file: Path = Path("mpi_hosts"), temporary_files: Path | None = None
    ) -> None:
        self.host_file = host_file
        self.temporary_files = temporary_files or Path(tempfile.gettempdir())
        self._versions: dict[Path, Ended] = {}

    @cached_property
    def mpi4py(self) -> Mpi4py | str | None:
        """mpi4py's answer, the reason why it does not import, or None if it is not installed."""
        return ask_mpi4py() if find_distribution("mpi4py") else None

    @cached_property
    def horovod(self) -> Horovod | str | None:
        """Horovod's answer, the reason why it does not import, or None if it is not installed."""
        return ask_horovod() if find_distribution("horovod") else None

    def ask_version(self, program: Path) -> Ended:
        """Returns what a program prints for `--version`.

        Args:
            program: path of the program.
        """
        if program not in self._versions:
            command = [str(program), "--version"]
            self._versions[program] = run(command, limit=120.0, environment=quiet_environment())
        return self._versions[program]
