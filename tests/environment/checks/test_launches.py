import os
from pathlib import Path

import pytest

from hvd_xai.environment.checks import launches
from hvd_xai.environment.checks.check import Machine
from hvd_xai.environment.libraries import Horovod, Mpi4py


@pytest.fixture
def machine() -> Machine:
    machine = Machine()
    machine.mpi4py = Mpi4py("Open MPI v5.0.11", ())
    machine.horovod = Horovod({"mpi": True, "gloo": True}, ())
    return machine


def _offer(launcher: str, script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a launcher on the PATH that knows its version and does what a script says."""
    version = 'if [ "$1" = --version ]; then echo "mpirun (Open MPI) 5.0.11"; exit; fi'
    (folder / launcher).write_text(f"#!/bin/sh\n{version}\n{script}\n")
    (folder / launcher).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_a_launch_that_fails_says_how(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _offer("mpirun", "echo no slots; exit 3", tmp_path, monkeypatch)
    check = launches.two_ranks_over_mpi(machine)
    assert check is not None
    assert (check.status, check.found) == ("failed", "exit code 3: no slots")
    assert f"{tmp_path}/mpirun --oversubscribe -np 2 python -c" in check.advice


def test_the_complaint_of_a_rank_stands_before_that_of_the_launcher(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "echo 'AssertionError: Horovod sees 1 ranks' >&2; echo job aborted >&2; exit 1"
    _offer("horovodrun", script, tmp_path, monkeypatch)
    check = launches.two_ranks_over_gloo(machine)
    assert check is not None
    assert check.found == "exit code 1: AssertionError: Horovod sees 1 ranks"


def test_a_launch_that_hangs_is_a_failed_one(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launches, "SECONDS", 0.5)
    _offer("mpirun", "sleep 300", tmp_path, monkeypatch)
    check = launches.two_ranks_over_mpi(machine)
    assert check is not None
    assert (check.status, check.found) == ("failed", "no answer in 0.5 s")


def test_a_rank_alone_is_no_agreement(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _offer("mpirun", "echo rank 0 agrees", tmp_path, monkeypatch)
    check = launches.two_ranks_over_mpi(machine)
    assert check is not None
    assert check.status == "failed"


def test_nothing_is_launched_where_parts_are_missing(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _offer("mpirun", f"touch {tmp_path}/launched", tmp_path, monkeypatch)
    machine.mpi4py = Mpi4py("MPICH Version: 4.0.2", ())  # mpirun is a foreign one
    assert launches.two_ranks_over_mpi(machine) is None
    machine.horovod = Horovod({"mpi": False, "gloo": False}, ())
    assert launches.two_ranks_over_mpi(machine) is None
    assert launches.two_ranks_over_gloo(machine) is None
    assert not (tmp_path / "launched").exists()
