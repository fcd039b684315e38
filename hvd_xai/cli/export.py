"""`hvd-xai export`: a run's explanations as one file, for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from hvd_xai.checkpoint.exported import export as write
from hvd_xai.checkpoint.reader import open_explanations
from hvd_xai.cli import options
from hvd_xai.cli.console import progress, say
from hvd_xai.cli.selection import select_epochs
from hvd_xai.errors import CheckpointError


def export(
    run: options.Run,
    to: Annotated[
        Path,
        typer.Option(
            help=(
                "The file to write: .npz, .nc (NetCDF) or .parquet (a table of samples, with the"
                " sums of their attributions, and each"
                " attribution where features have names)."
            ),
            metavar="FILE",
        ),
    ],
    epoch: Annotated[
        list[int] | None, typer.Option(help="Only this epoch. Can be given again.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Only this method. Can be given again.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace FILE if it is there.")
    ] = False,
) -> None:
    """Writes a run's explanations into one file, in bounded memory.

    hvd-xai export runs/demo --to demo.npz

    hvd-xai export runs/demo --to demo.nc --method integrated_gradients

    hvd-xai export s3://bucket/runs/demo --to last.parquet --epoch 4
    """
    if to.exists() and not overwrite:
        raise CheckpointError(f"{to} exists. Give another name, or replace it with --overwrite.")
    explanations = open_explanations(run)
    wanted = select_epochs(explanations, epoch or [], method or [])
    stacks = [explanations.stack(name, numbers) for name, numbers in wanted.items()]
    with progress() as bar:
        write(stacks, to, bar)
    say(str(to))
