import os
from pathlib import Path

import pytest

from hvd_xai.environment.prerequisites import default_jobs, find_cmake, find_target, missing_tools


def test_missing_tools_are_named_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    said = " ".join(missing_tools())
    assert "apt-get install g++" in said
    assert "apt-get install make" in said


def test_a_compiler_without_cpp17_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "false")
    assert any("'false' does not compile C++17" in line for line in missing_tools())


def test_jobs_are_at_least_one_and_at_most_the_cores() -> None:
    assert 1 <= default_jobs() <= (os.cpu_count() or 1)


def test_the_target_is_this_environment() -> None:
    target, missing = find_target("wheel")
    assert target is not None, missing
    assert target.tensorflow.startswith("tensorflow")
    # Horovod finds MPI and TensorFlow from where it lies
    assert all(folder.startswith("$ORIGIN/../../") for folder in target.rpath.split(";"))


def test_an_old_cmake_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "python").touch()
    (tmp_path / "cmake").write_text("#!/bin/sh\necho cmake version 3.18.4\n")
    (tmp_path / "cmake").chmod(0o755)
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_cmake() is None
    (tmp_path / "cmake").write_text("#!/bin/sh\necho cmake version 3.19.0\n")
    assert find_cmake() == str(tmp_path / "cmake")
