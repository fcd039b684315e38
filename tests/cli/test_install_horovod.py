from pathlib import Path

import pytest
from typer.testing import CliRunner

from hvd_xai.cli.main import build
from hvd_xai.errors import BuildError


def test_an_installed_horovod_is_told_of() -> None:
    done = CliRunner().invoke(build(), ["install-horovod"])
    assert done.exit_code == 0
    assert "Horovod 0.28.1 was there" in done.stdout
    assert "MPI" in done.stdout


def test_what_is_missing_is_said_and_nothing_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HVD_XAI_CACHE", str(tmp_path / "cache"))
    done = CliRunner().invoke(build(), ["install-horovod", "--mpi", "system"])
    assert isinstance(done.exception, BuildError)
    assert "No MPI is found" in str(done.exception)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("words", [["--mpi", "other"], ["--jobs", "0"], ["--jobs", "many"]])
def test_a_wrong_option_is_wrong_usage(words: list[str]) -> None:
    assert CliRunner().invoke(build(), ["install-horovod", *words]).exit_code == 2
