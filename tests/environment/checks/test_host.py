import os
import subprocess
from pathlib import Path

import pytest

from hvd_xai.environment.checks.check import Machine
from hvd_xai.environment.checks.host import cores_and_user, host_file, leftovers


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("localhost slots=2\n", "ok"),
        ("a slots=2\nb-1.example.org slots=16\n", "ok"),
        ("a slots=2\n\nb slots=2\n", "failed"),
        ("# hosts\na slots=2\n", "failed"),
        ("a:2\n", "failed"),
        ("a slots=0\n", "failed"),
        ("a slots=2 max_slots=4\n", "failed"),
        ("", "failed"),
        ("\n", "failed"),
        # what an editor leaves: Windows' line ends, a byte order mark, a page break
        ("a slots=2\r\nb slots=2\r\n", "failed"),
        ("\ufeffa slots=2\n", "failed"),
        ("a slots=2\x0cb slots=2\n", "failed"),
        # digits of another script, and more ranks than any host has
        ("a slots=\u0662\n", "failed"),
        ("a slots=99999999999999999999\n", "failed"),
    ],
)
def test_a_host_file_is_of_the_one_form_that_both_launchers_read(
    text: str, status: str, tmp_path: Path
) -> None:
    (tmp_path / "mpi_hosts").write_bytes(text.encode())
    check = host_file(Machine(host_file=tmp_path / "mpi_hosts"))
    assert check is not None
    assert check.status == status
    assert bool(check.advice) == (status == "failed")


def test_of_many_hosts_the_first_are_named(tmp_path: Path) -> None:
    (tmp_path / "mpi_hosts").write_text("".join(f"host{n} slots=8\n" for n in range(5000)))
    check = host_file(Machine(host_file=tmp_path / "mpi_hosts"))
    assert check is not None
    assert check.found.endswith("host7 slots=8 and 4992 more")


def test_the_shipped_host_file_is_right() -> None:
    check = host_file(Machine(host_file=Path(__file__).parents[3] / "mpi_hosts"))
    assert check is not None
    assert check.status == "ok"


def test_without_a_host_file_there_is_nothing_to_check(tmp_path: Path) -> None:
    assert host_file(Machine(host_file=tmp_path / "mpi_hosts")) is None


def test_files_of_killed_jobs_are_told(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    (tmp_path / f"ompi.{gone.pid}").mkdir()
    (tmp_path / f"ompi.{os.getpid()}").mkdir()
    (tmp_path / "ompi.conf").mkdir()
    (tmp_path / f"ompi.host.{gone.pid}").mkdir()  # the number of a user
    machine = Machine(temporary_files=tmp_path)
    check = leftovers(machine)
    assert check is not None
    assert (check.status, check.found) == ("warning", f"1 in {tmp_path}")
    assert check.advice.endswith(f"rm -r {tmp_path}/ompi.{gone.pid}")
    (tmp_path / f"ompi.{gone.pid}").rmdir()
    assert leftovers(machine) is None


def test_root_is_told_what_mpirun_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.delenv("OMPI_ALLOW_RUN_AS_ROOT", raising=False)
    assert "OMPI_ALLOW_RUN_AS_ROOT=1" in cores_and_user(Machine()).advice
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    assert "OMPI_ALLOW_RUN_AS_ROOT=1" not in cores_and_user(Machine()).advice
