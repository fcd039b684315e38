"""`hvd-xai verify`: whether everything that was committed is whole."""

from typing import Annotated

import typer

from hvd_xai.checkpoint.verify import verify as find_problems
from hvd_xai.cli.console import progress


def verify(
    run: Annotated[
        str, typer.Argument(help="The folder of a run, or its URL: s3://bucket/run.", metavar="RUN")
    ],
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every byte, instead of manifests and sizes only.")
    ] = False,
) -> None:
    """Checks a run's explanation checkpoints; ends with 0 only where everything committed is whole.

    hvd-xai verify runs/demo --deep
    """
    with progress() as bar:
        problems = find_problems(run, deep=deep, progress=bar)
    for problem in problems:
        print(problem)
    how = (
        "every byte was read"
        if deep
        else "manifests and sizes were checked; --deep reads every byte"
    )
    if problems:
        print(f"{run}: {len(problems)} problem{'s' if len(problems) > 1 else ''}; {how}")
        raise typer.Exit(1)
    print(f"{run}: everything committed is whole; {how}")
