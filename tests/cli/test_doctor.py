import json
import os
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hvd_xai.cli import doctor as module
from hvd_xai.cli.doctor import Check
from hvd_xai.cli.main import build
from hvd_xai.environment.horovod_build import _distribution


def doctor(*words: str) -> tuple[int, dict[str, dict[str, str]]]:
    done = CliRunner().invoke(build(), ["doctor", "--json", *words])
    return done.exit_code, {check["name"]: check for check in json.loads(done.stdout)}


@pytest.fixture
def complete() -> None:
    if _distribution("horovod") is None:
        pytest.skip("no Horovod")


@pytest.mark.launched
@pytest.mark.usefixtures("complete")
def test_this_machine_is_well_and_two_ranks_agree() -> None:
    code, checks = doctor()
    assert code == 0, checks
    assert {"one MPI", "two ranks, mpirun", "two ranks, horovodrun --gloo"} <= set(checks)


@pytest.mark.usefixtures("complete")
def test_quick_leaves_the_launches_out() -> None:
    code, checks = doctor("--quick")
    assert code == 0, checks
    assert not [name for name in checks if "two ranks" in name]


@pytest.mark.usefixtures("complete")
def test_a_foreign_mpirun_fails_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mpirun = tmp_path / "mpirun"
    mpirun.write_text("#!/bin/sh\necho HYDRA build details: Version: 4.0.2\n")
    mpirun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    code, checks = doctor("--quick")
    assert code == 1
    assert checks["mpirun"]["status"] == "failed"
    assert "first on the PATH" in checks["mpirun"]["advice"]


def test_the_table_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module._show(
        [
            Check("python", "ok", "3.11"),
            Check("horovod", "failed", "not installed", "hvd-xai install-horovod"),
        ]
    )
    shown = capsys.readouterr().out
    assert "-> hvd-xai install-horovod" in shown
    assert "1 of 2 checks failed" in shown


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
    ],
)
def test_a_host_file_is_of_the_one_form_that_both_launchers_read(
    text: str, status: str, tmp_path: Path
) -> None:
    (tmp_path / "mpi_hosts").write_text(text)
    [check] = module._hosts(tmp_path / "mpi_hosts")
    assert check.status == status
    assert bool(check.advice) == (status == "failed")


def test_the_shipped_host_file_is_right() -> None:
    [check] = module._hosts(Path(__file__).parents[2] / "mpi_hosts")
    assert check.status == "ok"


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
    assert module._belongs(launcher, library) is same


def test_two_mpis_in_one_process_fail() -> None:
    assert module._same_mpi(["/a/libmpi.so.40"], ["/b/libmpi.so.40"]).status == "failed"
    assert module._same_mpi([], []).status == "failed"
    assert module._same_mpi(["/a/libmpi.so.40"], ["/a/libmpi.so.40"]).status == "ok"


@pytest.mark.parametrize(
    ("mpi", "gloo", "status"),
    [(True, True, "ok"), (False, True, "warning"), (False, False, "failed")],
)
def test_a_build_without_mpi_is_noticed(mpi: bool, gloo: bool, status: str) -> None:
    if Path("/proc/driver/nvidia/gpus").is_dir():
        pytest.skip("on GPUs, a build without NCCL is a warning of its own")
    assert module._built({"mpi": mpi, "gloo": gloo, "nccl": False}).status == status


def test_another_keras_backend_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    [check] = module._keras_backend()
    assert check.status == "failed"
    monkeypatch.delenv("KERAS_BACKEND")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert not list(module._keras_backend())
    (tmp_path / "keras.json").write_text('{"backend": "torch"}')
    [check] = module._keras_backend()
    assert check.found == "torch"


def test_a_launch_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SECONDS", 0.5)
    assert module._run(["sh", "-c", "echo begun; sleep 60"]) == (None, "begun\n")


def test_a_launch_that_fails_says_how() -> None:
    check = module._launch("two ranks", ["sh", "-c", "echo no slots; exit 3"])
    assert (check.status, check.found) == ("failed", "exit code 3: no slots")
    assert "sh -c" in check.advice


def test_files_of_killed_jobs_are_told(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    (tmp_path / f"ompi.{gone.pid}").mkdir()
    (tmp_path / f"ompi.{os.getpid()}").mkdir()
    (tmp_path / "ompi.conf").mkdir()
    (tmp_path / f"ompi.host.{gone.pid}").mkdir()  # the number of a user
    (check,) = module._leftovers(tmp_path)
    assert (check.status, check.found) == ("warning", f"1 in {tmp_path}")
    assert check.advice.endswith(f"rm -r {tmp_path}/ompi.{gone.pid}")
    (tmp_path / f"ompi.{gone.pid}").rmdir()
    assert not list(module._leftovers(tmp_path))
