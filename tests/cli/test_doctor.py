import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hvd_xai.cli.doctor import show
from hvd_xai.cli.main import build
from hvd_xai.environment.checks.check import Check


def doctor(*words: str) -> tuple[int, dict[str, dict[str, str]]]:
    done = CliRunner().invoke(build(), ["doctor", "--json", *words])
    return done.exit_code, {check["name"]: check for check in json.loads(done.stdout)}


@pytest.mark.launched
def test_this_machine_is_well_and_two_ranks_agree() -> None:
    code, checks = doctor()
    assert code == 0, checks
    assert {"one MPI", "two ranks, mpirun", "two ranks, horovodrun --gloo"} <= set(checks)


def test_quick_leaves_the_launches_out() -> None:
    code, checks = doctor("--quick")
    assert code == 0, checks
    assert "one MPI" in checks
    assert not [name for name in checks if "two ranks" in name]


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


def test_the_table_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    missing = Check("horovod", "failed", "not installed", "hvd-xai install-horovod")
    show([Check("python", "ok", "3.11"), missing, Check("mpirun", "warning", "5.0")])
    shown = capsys.readouterr().out
    assert "-> hvd-xai install-horovod" in shown
    assert "1 of 3 checks failed, 1 with a warning." in shown
