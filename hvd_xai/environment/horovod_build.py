"""Builds Horovod for the TensorFlow and the MPI that are installed, and installs it.

The wheel is kept in the user's cache, under a name that says what it was built for, so that the
next environment with the same versions has it in seconds.
"""

import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hvd_xai.environment import build_log, wheel_cache
from hvd_xai.environment.horovod_release import (
    VERSION,
    build_environment,
    cmake_wrapper,
    pip_command,
)
from hvd_xai.environment.libraries import ask_horovod
from hvd_xai.environment.mpi import MpiChoice
from hvd_xai.environment.packages import find_distribution
from hvd_xai.environment.prerequisites import (
    Target,
    default_jobs,
    find_cmake,
    find_target,
    missing_tools,
)
from hvd_xai.environment.processes import run, started
from hvd_xai.errors import BuildError
from hvd_xai.protocols import Progress, Silent

_INSTALL_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Installed:
    """What `install` did.

    Args:
        how: `kept` if Horovod stayed as it was, `cached` if a wheel that was built before was
            installed, `built` if it was built now.
        built_with: whether the installed Horovod has `mpi`, `gloo`, `nccl` and so on.
        seconds: time that all of it took.
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
    """Installs Horovod for this environment's TensorFlow and MPI, unless a working one is there.

    A Horovod that somebody else installed and that works is kept.

    Args:
        mpi: MPI to link with.
        force: whether to build anew, whatever is installed or in the cache.
        jobs: number of compilers at a time; if None, one a core, as long as each has 2 GiB of
            memory.
        progress: where to show how far the build is.

    Raises:
        BuildError: if something that the build needs is missing (before anything is downloaded), or
            the build fails (with the compiler's first error).
    """
    began = time.monotonic()
    target, missing = find_target(mpi)
    if target is not None and not force:
        built_with = _ask_kept(target, chosen=mpi != "auto")
        if built_with:
            return Installed("kept", built_with, time.monotonic() - began)
    wheel = wheel_cache.find_wheel(target) if target and not force else None
    # A wheel from the cache is installed without a compiler: only a build asks for one.
    if wheel is None:
        missing += missing_tools()
    if target is None or missing:
        raise BuildError(f"Horovod cannot be built yet. {' '.join(missing)}")
    how: Literal["cached", "built"] = "cached" if wheel else "built"
    wheel = wheel or build(target, jobs=jobs or default_jobs(), progress=progress or Silent())
    _pip_install(wheel)
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
        BuildError: if Horovod cannot be imported, or has neither MPI nor Gloo.
    """
    answer = ask_horovod()
    if isinstance(answer, str):
        raise BuildError(f"Horovod is installed, but cannot be imported: {answer.rstrip('.')}.")
    if not (answer.built_with["mpi"] or answer.built_with["gloo"]):
        raise BuildError("Horovod is installed, but was built with neither MPI nor Gloo.")
    return answer.built_with


def build(target: Target, *, jobs: int, progress: Progress) -> Path:
    """Builds the wheel for a target and puts it into the cache.

    The finished wheel is renamed into place, so that builds at the same time do not disturb each
    other.

    Args:
        target: TensorFlow and MPI to build for.
        jobs: number of compilers at a time.
        progress: where to show how far the build is.

    Returns:
        The path of the wheel in the cache.

    Raises:
        BuildError: if the cache cannot be written, or the build fails; with the first error, what
            to do, and where the log is.
    """
    key = wheel_cache.wheel_key(target)
    cache = wheel_cache.cache_dir()
    wheels, logs = cache / "wheels", cache / "logs"
    try:
        for folder in (wheels, logs):
            folder.mkdir(parents=True, exist_ok=True)
        wheel_cache.sweep(wheels)
        # Beside the place of the finished wheel, so that the rename stays on one file system.
        work = Path(tempfile.mkdtemp(prefix=wheel_cache.BUILDING, dir=wheels))
    except OSError as error:
        raise BuildError(
            f"The cache {cache} cannot be written: {error}. Set HVD_XAI_CACHE to a folder that can."
        ) from None
    log = logs / f"{key}{work.name.replace(wheel_cache.BUILDING, '.')}.log"
    try:
        cmake = work / "cmake"
        cmake.write_text(cmake_wrapper(find_cmake() or "cmake", target.mpi, target.rpath), "utf-8")
        cmake.chmod(0o755)
        what = f"Horovod {VERSION} for {target.tensorflow} and {target.mpi.version}"
        progress.start(f"Building {what}, {jobs} at a time", 100)
        _compile(work, log, build_environment(cmake, jobs), progress)
        built = next(work.glob("horovod-*.whl"))
        kept = wheels / key / built.name
        kept.parent.mkdir(exist_ok=True)
        built.replace(kept)
        log.unlink()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return kept


def _ask_kept(target: Target, *, chosen: bool) -> dict[str, bool] | None:
    """Returns what the installed Horovod was built with, None if it is not to stay.

    Ours stays if it was built for this very target; somebody else's stays if it works and the user
    chose no MPI.
    """
    found = find_distribution("horovod")
    if found is None:
        return None
    # pip records where a package that is not from an index came from (PEP 610).
    origin = str(json.loads(found.read_text("direct_url.json") or "{}").get("url", ""))
    if wheel_cache.is_kept_wheel(origin):
        stays = wheel_cache.is_wheel_of(origin, target)
    else:
        stays = not chosen
    try:
        return check() if stays else None
    except BuildError:
        return None


def _compile(work: Path, log: Path, environment: Mapping[str, str], progress: Progress) -> None:
    shown = 0
    with (
        log.open("w", encoding="utf-8") as lines,
        started(pip_command(work), environment) as process,
    ):
        for line in process.stdout or ():
            lines.write(line)
            # make's "[ 42%] Building CXX object ...". CMake runs several makes, each from 0 on: the
            # bar never goes back.
            done = re.match(r"\s*\[ *(\d+)%\]", line)
            if done and int(done[1]) > shown:
                progress.advance(int(done[1]) - shown)
                shown = int(done[1])
    if process.returncode != 0:
        text = log.read_text("utf-8")
        raise BuildError(
            f"Horovod's build failed: {build_log.first_error(text)} {build_log.advice(text)}"
            f"The whole log: {log}"
        )


def _pip_install(wheel: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall"]
    ended = run([*pip, "--no-index", str(wheel)], limit=_INSTALL_SECONDS)
    if ended.code != 0:
        said = build_log.first_error(ended.stderr + ended.stdout)
        raise BuildError(f"pip could not install Horovod's wheel: {said}")
