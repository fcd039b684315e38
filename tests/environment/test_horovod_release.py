"""The hook is tried on a small project with the real cmake."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from hvd_xai.environment.horovod_release import (
    build_environment,
    build_flags,
    cmake_wrapper,
    pip_command,
)
from hvd_xai.environment.prerequisites import find_cmake
from tests.environment.target_under_test import MPI, TARGET


def test_the_hook_drops_one_file_and_sets_the_rpath(tmp_path: Path) -> None:
    cmake = find_cmake()
    assert cmake is not None
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.13)\nproject(horovod CXX)\nadd_library(tensorflow SHARED"
        " mpi_ops.cc xla_mpi_ops.cc)\nset_target_properties(tensorflow PROPERTIES OUTPUT_NAME"
        " made)\n"
    )
    (tmp_path / "mpi_ops.cc").write_text("int f() { return 1; }\n")
    (tmp_path / "xla_mpi_ops.cc").write_text("#error this needs headers that are gone\n")
    wrapper = tmp_path / "hvd cmake"  # a space in a path must not matter
    mpi = replace(MPI, mpicxx=tmp_path / "mpicxx")
    wrapper.write_text(cmake_wrapper(cmake, mpi, TARGET.rpath))
    wrapper.chmod(0o755)
    subprocess.run(
        [wrapper, "-S", tmp_path, "-B", tmp_path / "b"],
        check=True,
        capture_output=True,
        timeout=120,
    )
    subprocess.run(
        [wrapper, "--build", tmp_path / "b"], check=True, capture_output=True, timeout=120
    )
    assert (
        b"$ORIGIN/../../../..:$ORIGIN/../../tensorflow\0"
        in (tmp_path / "b/libmade.so").read_bytes()
    )


def test_only_what_the_build_reads_is_a_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    before = build_flags()
    for name in ("HOROVOD_RANK", "HOROVOD_TIMELINE", "HOROVOD_CMAKE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HOROVOD_GPU_OPERATIONS", "NCCL")
    assert build_flags() == before | {"HOROVOD_GPU_OPERATIONS": "NCCL"}


@pytest.mark.parametrize(("version", "has_header"), [("12", False), ("13", True), ("14.2", True)])
def test_a_new_compiler_is_given_the_header_that_horovod_relies_on(
    version: str, has_header: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_text(f"#!/bin/sh\necho {version}\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("CXXFLAGS", "-O1")
    monkeypatch.setenv("PIP_NO_BINARY", ":all:")
    environment = build_environment(tmp_path / "cmake", jobs=3)
    assert environment["CXXFLAGS"] == ("-O1 -include cstdint" if has_header else "-O1")
    assert environment["MAKEFLAGS"] == "-j3"
    assert "PIP_NO_BINARY" not in environment
    assert os.environ["PIP_NO_BINARY"] == ":all:"


def test_the_users_choice_stands_before_our_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOROVOD_WITHOUT_PYTORCH", "0")
    environment = build_environment(tmp_path / "cmake", jobs=1)
    assert environment["HOROVOD_WITHOUT_PYTORCH"] == "0"
    assert environment["HOROVOD_WITH_MPI"] == "1"


def test_the_source_is_that_of_one_release(tmp_path: Path) -> None:
    command = pip_command(tmp_path)
    assert command[-1] == "horovod==0.28.1"
    assert command[command.index("--no-binary") + 1] == "horovod"
