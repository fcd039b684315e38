"""Checks that launch two ranks; each takes seconds, so `hvd-xai doctor --quick` leaves them out."""

import re
import sys
from collections.abc import Sequence

from hvd_xai.environment.checks.check import Check, Machine
from hvd_xai.environment.checks.ranks import horovodrun, mpirun
from hvd_xai.environment.libraries import Horovod, Mpi4py, quiet_environment
from hvd_xai.environment.processes import find_program, run

SECONDS = 120.0
"""Time limit for a launch; one that waits for a rank for ever is a failed one."""

# Ranks send different numbers of rows: with equal ones a gather that mixes ranks up could pass.
_TWO_RANKS = """
import sys, numpy as np
gloo = sys.argv[1] == 'gloo'
if not gloo:
    from mpi4py import MPI
import tensorflow as tf, horovod.tensorflow as hvd
hvd.init()
rank = hvd.rank()
assert hvd.size() == 2, f'Horovod sees {hvd.size()} ranks'
total = float(hvd.allreduce(tf.constant([rank + 1.0]), op=hvd.Sum)[0])
assert total == 3.0, f'1 + 2 = {total} through Horovod'
mine = np.full((rank + 1, 2), rank + 1.0)
if gloo:
    rows = hvd.allgather(tf.constant(mine)).numpy()
else:
    assert MPI.COMM_WORLD.Get_size() == 2, f'mpi4py sees {MPI.COMM_WORLD.Get_size()} ranks'
    rows = np.zeros((3, 2))
    MPI.COMM_WORLD.Gatherv(mine, (rows, [2, 4]) if rank == 0 else None)
assert rank or rows[:, 0].tolist() == [1.0, 2.0, 2.0], f'the rows came as {rows[:, 0].tolist()}'
print(f'rank {rank} agrees')
"""
_BY_HAND = "python -c 'import horovod.tensorflow as hvd; hvd.init(); print(hvd.rank(), hvd.size())'"


def two_ranks_over_mpi(machine: Machine) -> Check | None:
    """Checks that mpirun starts two ranks that agree, through Horovod and through mpi4py."""
    path = find_program("mpirun")
    if path is None or not _can_carry("mpi", machine) or mpirun(machine).status == "failed":
        return None
    # Open MPI counts cores, not hardware threads, as slots; MPICH does not know the option.
    is_open_mpi = "Open MPI" in machine.ask_version(path).output
    oversubscribe = ["--oversubscribe"] if is_open_mpi else []
    return _launch("two ranks, mpirun", [str(path), *oversubscribe, "-np", "2"], "mpi")


def two_ranks_over_gloo(machine: Machine) -> Check | None:
    """Checks that horovodrun starts two ranks that agree without MPI."""
    path = find_program("horovodrun")
    if path is None or not _can_carry("gloo", machine) or horovodrun(machine).status == "failed":
        return None
    return _launch("two ranks, horovodrun --gloo", [str(path), "--gloo", "-np", "2"], "gloo")


def _can_carry(over: str, machine: Machine) -> bool:
    """Returns whether the libraries of a launch are installed; their own checks report any gap."""
    return (
        isinstance(machine.mpi4py, Mpi4py)
        and isinstance(machine.horovod, Horovod)
        and machine.horovod.built_with[over]
    )


def _launch(name: str, launcher: Sequence[str], over: str) -> Check:
    command = [*launcher, sys.executable, "-c", _TWO_RANKS, over]
    ended = run(command, limit=SECONDS, environment=quiet_environment())
    if ended.code == 0 and len(re.findall(r"rank \d agrees", ended.output)) == 2:
        gather = "allgather" if over == "gloo" else "mpi4py's Gatherv"
        return Check(name, "ok", f"Horovod's allreduce and {gather} agree")
    # The launcher has the last word, about its own abort; the rank's complaint stands above it.
    lines = [line.strip() for line in ended.output.splitlines()]
    said = next((line for line in lines if "AssertionError" in line), ended.last_line)
    found = (
        f"no answer in {SECONDS:g} s" if ended.code is None else f"exit code {ended.code}: {said}"
    )
    advice = f"Mend what failed above first; else see what it says: {' '.join(launcher)} {_BY_HAND}"
    return Check(name, "failed", found, advice)
