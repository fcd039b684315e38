"""`hvd-xai doctor`: says whether this machine can train and explain on ranks, and what to do."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from hvd_xai.cli.console import make_console, progress, say
from hvd_xai.environment.checks.check import Check
from hvd_xai.environment.checks.examine import examine
from hvd_xai.log import printable_lines

_MARKS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "failed": ("FAILED", "bold red")}


def doctor(
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out the launches of two ranks.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Checks whether ranks can work on this machine.

    Looks at the versions, at Horovod's build, and at whether mpi4py, Horovod and the launchers use
    the same MPI; then starts two ranks with mpirun and with horovodrun. Where a check fails, it
    says what to do, and the exit code is 1.

    hvd-xai doctor

    hvd-xai doctor --quick --json
    """
    with progress() as bar:
        checks = list(examine(quick=quick, progress=bar))
    if as_json:
        say(*json.dumps([asdict(check) for check in checks], indent=2).splitlines())
    else:
        show(checks)
    if any(check.status == "failed" for check in checks):
        raise typer.Exit(1)


def show(checks: list[Check]) -> None:
    """Prints the checks as a table, with what to do below each that needs it."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(min_width=16)
    table.add_column(overflow="fold")
    for check in checks:
        found = Text(printable_lines(check.found))
        if check.advice:
            found.append(f"\n-> {printable_lines(check.advice)}", "bold")
        table.add_row(Text(*_MARKS[check.status]), Text(check.name), found)
    console = make_console()
    console.print(table)
    n_failed = sum(check.status == "failed" for check in checks)
    n_warned = sum(check.status == "warning" for check in checks)
    failed = f"{n_failed} of {len(checks)} checks failed"
    verdict = failed if n_failed else f"All {len(checks)} checks passed"
    console.print(f"{verdict}{f', {n_warned} with a warning' if n_warned else ''}.")
