"""`hvd-xai verify`: checks that every committed explanation is whole."""

from typing import Annotated

import typer

from hvd_xai.checkpoint.verify import verify as find_problems
from hvd_xai.cli.console import progress, say


def verify(
    run: Annotated[
        str, typer.Argument(help="A run directory, or its URL: s3://bucket/run.", metavar="RUN")
    ],
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every byte, not only manifests and sizes.")
    ] = False,
) -> None:
    """Checks that all committed explanations are whole.

    The exit code is 0 only if they are.

    hvd-xai verify runs/demo

    hvd-xai verify runs/demo --deep

    hvd-xai verify s3://bucket/run
    """
    with progress() as bar:
        problems = find_problems(run, deep=deep, progress=bar)
    for problem in problems:
        say(str(problem))
    how = (
        "every byte was read"
        if deep
        else "manifests and sizes were checked; --deep reads every byte"
    )
    if problems:
        say(f"{run}: {len(problems)} problem{'s' if len(problems) > 1 else ''}; {how}")
        raise typer.Exit(1)
    say(f"{run}: everything committed is whole; {how}")
