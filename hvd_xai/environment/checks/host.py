"""Checks of this host: its host file, its cores and user, and what killed jobs left on it."""

import os
import re
from pathlib import Path

from hvd_xai.environment.checks.check import Check, Machine
from hvd_xai.environment.processes import count_cores

_N_SHOWN = 8
"""Hosts that are named; a cluster may have thousands."""


def host_file(machine: Machine) -> Check | None:
    """Checks that the host file has the one form that both mpirun and horovodrun read."""
    path = machine.host_file
    if not path.is_file():
        return None
    # Not splitlines: the launchers end a line at a line feed alone, and read what else may stand
    # there, such as Windows' carriage return, as part of the number.
    lines = path.read_bytes().decode("utf-8", "replace").removesuffix("\n").split("\n")
    lines = [] if lines == [""] else lines
    wrong = (
        number
        for number, line in enumerate(lines, 1)
        if not re.fullmatch(r"[\w.-]+ slots=[1-9]\d{0,4}", line, re.ASCII)
    )
    bad = next(wrong, None)
    if bad is None and lines:
        more = f" and {len(lines) - _N_SHOWN} more" if len(lines) > _N_SHOWN else ""
        return Check(path.name, "ok", ", ".join(lines[:_N_SHOWN]) + more)
    found = f"line {bad} is {lines[bad - 1][:80]!r}" if bad else "it is empty"
    advice = (
        "Only lines like 'host1 slots=2', no blank line and no comment: horovodrun and mpirun"
        " both read that."
    )
    return Check(path.name, "failed", found, advice)


def cores_and_user(machine: Machine) -> Check:
    """Checks that mpirun starts two ranks here without further options."""
    cores = count_cores()
    hints = []
    if cores < 2:
        hints.append("More ranks than cores: mpirun needs --oversubscribe.")
    as_root = {"OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"}
    if os.getuid() == 0 and not as_root <= set(os.environ):
        hints.append(
            "As root, mpirun needs: export OMPI_ALLOW_RUN_AS_ROOT=1"
            " OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"
        )
    found = f"{cores} cores, user {os.getuid()}"
    return Check("cores and user", "warning" if hints else "ok", found, " ".join(hints))


def leftovers(machine: Machine) -> Check | None:
    """Checks that no killed job left files with which a later mpirun may fail to start."""
    folder = machine.temporary_files
    if not Path("/proc/self").exists():
        return None
    # mpirun keeps its files in `ompi.<its process id>`, and refuses to start where they exist.
    # `ompi.<host>.<user id>` looks alike; all jobs without mpirun share it, so it must stay.
    numbers = {path: path.name.removeprefix("ompi.") for path in folder.glob("ompi.*")}
    left = sorted(
        str(path)
        for path, number in numbers.items()
        if number.isdecimal() and not Path("/proc", number).exists()
    )
    if not left:
        return None
    return Check(
        "leftovers of Open MPI",
        "warning",
        f"{len(left)} in {folder}",
        f"Files of killed jobs, for which a later mpirun can fail to start: rm -r {' '.join(left)}",
    )
