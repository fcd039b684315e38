import os
from dataclasses import replace
from pathlib import Path

import pytest

from hvd_xai.environment import wheel_cache
from hvd_xai.environment.wheel_cache import (
    cache_dir,
    find_wheel,
    is_kept_wheel,
    is_wheel_of,
    sweep,
    wheel_key,
)
from tests.environment.target_under_test import MPI, TARGET


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HVD_XAI_CACHE", str(tmp_path / "cache"))


def test_a_torn_wheel_is_not_taken(tmp_path: Path) -> None:
    folder = cache_dir() / "wheels" / wheel_key(TARGET)
    folder.mkdir(parents=True)
    (folder / "horovod-0.28.1-cp311-cp311-linux_x86_64.whl").write_bytes(
        b"PK\x03\x04 half of a wheel"
    )
    assert find_wheel(TARGET) is None


def test_the_key_tells_apart_all_that_decides_the_wheel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def key(**changes: object) -> str:
        return wheel_key(replace(TARGET, **changes))  # type: ignore[arg-type]  # the changes are those of the dataclass's fields

    keys = [
        key(),
        key(tensorflow="tensorflow-2.21.0"),
        key(mpi=replace(MPI, version="Open MPI 4.1.4")),
        key(mpi=replace(MPI, source="system")),
    ]
    keys.append(key(rpath="/opt/mpi/lib"))
    monkeypatch.setenv("HOROVOD_GPU_OPERATIONS", "NCCL")
    keys.append(key())
    for name in (
        "HOROVOD_RANK",
        "HOROVOD_TIMELINE",
        "HOROVOD_STALL_CHECK_TIME_SECONDS",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR",
        "HOROVOD_CMAKE",
    ):
        monkeypatch.setenv(name, "1")  # what launchers and runs set is no flag
    assert key() == keys[-1]
    monkeypatch.setenv("HOROVOD_WITHOUT_GLOO", "1")
    keys.append(key())
    (tmp_path / "other.cmake").write_text("# other")
    monkeypatch.setattr(wheel_cache, "HOOK", tmp_path / "other.cmake")
    keys.append(key())
    assert len(set(keys)) == len(keys)
    # another environment, the same wheel
    assert key(mpi=replace(MPI, mpicxx=Path("/elsewhere/mpicxx"))) == keys[-1]


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HVD_XAI_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_dir() == Path.home() / ".cache/hvd_xai"
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_dir() == Path("/elsewhere/hvd_xai")
    monkeypatch.setenv("HVD_XAI_CACHE", "/mine")
    assert cache_dir() == Path("/mine/hvd_xai")


def test_only_old_folders_of_builds_are_swept(tmp_path: Path) -> None:
    for name, age in ((".building-old", 2 * 86400), (".building-new", 60), ("kept", 2 * 86400)):
        (tmp_path / name).mkdir()
        then = (tmp_path / name).stat().st_mtime - age
        os.utime(tmp_path / name, (then, then))
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".building-new", "kept"]


def test_a_package_from_the_cache_is_known_by_its_address() -> None:
    wheel = cache_dir() / "wheels" / wheel_key(TARGET) / "horovod-0.28.1-py3-none-any.whl"
    assert is_wheel_of(wheel.as_uri(), TARGET)
    other = replace(TARGET, tensorflow="tensorflow-2.16.1")
    assert is_kept_wheel(wheel.as_uri())
    assert not is_wheel_of(wheel.as_uri(), other)
    assert not is_kept_wheel("https://files.pythonhosted.org/horovod-0.28.1.tar.gz")
