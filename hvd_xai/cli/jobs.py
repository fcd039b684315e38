"""What the commands that run on all ranks share: how they start, and what they say at the end."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hvd_xai.checkpoint.reader import open_explanations
from hvd_xai.checkpoint.run_directory import Mode
from hvd_xai.cli.console import program, rank
from hvd_xai.log import configure, quiet_start

if TYPE_CHECKING:
    import keras

    from hvd_xai.explain.estimate import Estimate
    from hvd_xai.ranks.world import World

_EXAMPLE = 17
"""Row of the sample that the closing lines show, if there are so many."""
_HEADING = ("each explained epoch", "rows", "seconds", "bytes")


def run_mode(*, resume: bool, overwrite: bool) -> Mode:
    """Returns what to do with a run that exists, as two flags of the command line say.

    Args:
        resume: whether to go on with it.
        overwrite: whether to remove it.

    Raises:
        typer.BadParameter: if both flags are given.
    """
    if resume and overwrite:
        raise typer.BadParameter("give --resume or --overwrite, not both")
    return "resume" if resume else "overwrite" if overwrite else "new"


def start_ranks() -> "World":
    """Starts this process as a rank: loads TensorFlow and Horovod, and has the log name the rank.

    Collective: every rank must call this.
    """
    # Importing these takes seconds and needs TensorFlow, which --help must not wait for.
    with quiet_start(is_root=rank() == 0):
        import hvd_xai.keras as hvd
    world = hvd.init()
    configure(world.rank, world.size, world.host)
    return world


def load_saved_model(
    path: Path, custom_objects: Sequence[str], *, is_trusted: bool
) -> "keras.Model":
    """Loads the model that a command line names.

    Args:
        path: `.keras` file of the model.
        custom_objects: files, or `package.module:name`, of the classes that it needs.
        is_trusted: whether code that the file carries may run.

    Raises:
        RecipeError: if the classes cannot be loaded.
        ValueError: if the model cannot be loaded.
    """
    from hvd_xai.compute.saved_model import read_model
    from hvd_xai.lookup.modules import load_objects

    objects = [load_objects(spec) for spec in custom_objects]
    known = {name: value for found in objects for name, value in found.items()}
    return read_model(path, known, is_trusted=is_trusted)


def costs(estimates: "Sequence[Estimate]") -> list[str]:
    """Returns the lines of a table of what explaining an epoch will take, by method and in all.

    Args:
        estimates: one estimate for each method.
    """
    if not estimates:
        return ["nothing will be explained: no callback does"]
    totals = [(one.method, one.n_rows, one.seconds, one.n_bytes) for one in estimates]
    if len(totals) > 1:
        _, n_rows, seconds, n_bytes = zip(*totals, strict=True)
        totals.append(("together", sum(n_rows), sum(seconds), sum(n_bytes)))
    rows = [
        _HEADING,
        *(
            (method, f"{n_rows}", f"{seconds:.2g}", f"{n_bytes:,}")
            for method, n_rows, seconds, n_bytes in totals
        ),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for method, *numbers in rows:
        cells = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join([method.ljust(widths[0]), *cells]))
    return ["", *lines, ""]


def closing(output: Path) -> list[str]:
    """Returns the lines that say where a run is, and how to look at an epoch and a sample of it.

    Args:
        output: the run directory.
    """
    run = shlex.quote(str(output))
    commands = []
    explanations = open_explanations(output)
    if explanations.epochs:
        epoch = explanations.epochs[-1]
        explanation = explanations.explanation(epoch, explanations.methods(epoch)[0])
        # What is printed must work when it is typed: a run need not have sample 17, or epoch 0.
        sample_ids = explanation.column("sample_id")
        example = sample_ids[min(_EXAMPLE, len(sample_ids) - 1)]
        show = f"{program('hvd-xai')} show {run}"
        commands += [show, f"{show} --sample {example} --epoch {epoch} --png out.png"]
    if (output / "tensorboard").is_dir():
        commands.append(f"{program('tensorboard')} --logdir {run}")
    what = (
        "explanations/ has the explanation checkpoints, models/ the trained"
        f" model.{' To look at it:' if commands else ''}"
    )
    indented = [f"  {command}" for command in commands]
    return ["", f"The run is in {output}: {what}", "", *indented, ""]
