from pathlib import Path

import pytest

from hvd_xai.environment.libraries import (
    Horovod,
    Mpi4py,
    ask_horovod,
    ask_mpi4py,
    quiet_environment,
)


def test_mpi4py_names_its_mpi_and_the_file_that_it_loads() -> None:
    told = ask_mpi4py()
    assert isinstance(told, Mpi4py), told
    assert any(word in told.version for word in ("Open MPI", "MPICH", "Intel"))
    assert all(Path(file).exists() for file in told.libraries)


def test_horovod_names_what_it_was_built_with() -> None:
    told = ask_horovod()
    assert isinstance(told, Horovod), told
    assert {"mpi", "gloo", "nccl"} <= set(told.built_with)


def test_a_library_that_ends_the_process_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mpi4py.py").write_text("import os\nos.abort()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert ask_mpi4py() == "the process ended with -6"
    (tmp_path / "mpi4py.py").write_text("raise ImportError('libmpi.so.40: cannot open')\n")
    assert ask_mpi4py() == "ImportError: libmpi.so.40: cannot open"


def test_the_users_environment_stands_before_our_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    assert quiet_environment()["TF_CPP_MIN_LOG_LEVEL"] == "0"
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    assert quiet_environment()["TF_CPP_MIN_LOG_LEVEL"] == "3"
