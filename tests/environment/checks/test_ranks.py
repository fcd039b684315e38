import os
from pathlib import Path

import pytest

from hvd_xai.environment.checks import ranks
from hvd_xai.environment.checks.check import Machine
from hvd_xai.environment.libraries import Horovod, Mpi4py


def _machine(
    mpi4py: tuple[str, ...] = (), horovod: tuple[str, ...] = (), **built_with: bool
) -> Machine:
    """Returns a machine whose mpi4py and Horovod load the given files."""
    machine = Machine()
    machine.mpi4py = Mpi4py("Open MPI v5.0.11", mpi4py)
    machine.horovod = Horovod({"mpi": True, "gloo": True, "nccl": True, **built_with}, horovod)
    return machine


@pytest.mark.parametrize(
    ("mpi4py", "horovod", "status"),
    [
        (("/a/libmpi.so.40",), ("/b/libmpi.so.40",), "failed"),
        ((), (), "failed"),
        (("/a/libmpi.so.40",), ("/a/libmpi.so.40",), "ok"),
    ],
)
def test_two_mpis_in_one_process_fail(
    mpi4py: tuple[str, ...], horovod: tuple[str, ...], status: str
) -> None:
    check = ranks.one_mpi(_machine(mpi4py, horovod))
    assert check is not None
    assert check.status == status


def test_one_mpi_is_no_question_for_a_horovod_without_it() -> None:
    assert ranks.one_mpi(_machine(("/a/libmpi.so.40",), (), mpi=False)) is None


@pytest.mark.parametrize(
    ("mpi", "gloo", "status"),
    [(True, True, "ok"), (False, True, "warning"), (False, False, "failed")],
)
def test_a_build_without_mpi_is_noticed(mpi: bool, gloo: bool, status: str) -> None:
    check = ranks.build_of_horovod(_machine(mpi=mpi, gloo=gloo))
    assert check is not None
    assert check.status == status


def test_a_library_that_does_not_import_says_why() -> None:
    machine = Machine()
    machine.mpi4py = "ImportError: libmpi.so.40: cannot open"
    machine.horovod = None  # not installed, which another check says
    check = ranks.mpi_of_mpi4py(machine)
    assert check is not None
    assert (check.status, check.found) == ("failed", "ImportError: libmpi.so.40: cannot open")
    assert ranks.build_of_horovod(machine) is None
    assert ranks.one_mpi(machine) is None


@pytest.mark.parametrize(
    ("script", "advice"),
    [
        ("echo HYDRA build details: Version: 4.0.2", "first on the PATH"),
        ("echo mpirun 5.0.11: no libpmix; exit 1", "install it again"),
        ("echo 'mpirun (Open MPI) 5.0.11'", ""),
    ],
)
def test_an_mpirun_that_is_foreign_or_broken_fails_with_what_to_do(
    script: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mpirun = tmp_path / "mpirun"
    mpirun.write_text(f"#!/bin/sh\n{script}\n")
    mpirun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    check = ranks.mpirun(_machine())
    assert check.status == ("failed" if advice else "ok")
    assert advice in check.advice
