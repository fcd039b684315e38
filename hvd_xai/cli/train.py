"""`hvd-xai train`: a recipe, on all ranks, explained while it trains."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvd_xai.checkpoint.reader import open_explanations
from hvd_xai.checkpoint.run_directory import Mode
from hvd_xai.cli.console import program, progress, rank
from hvd_xai.log import configure, quiet_start

if TYPE_CHECKING:
    from hvd_xai.explain.estimate import Estimate

_EXAMPLE = 17  # the row of the sample that the closing lines name


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A shipped recipe (digits_cnn), path/to/file.py or package.module:name.",
            metavar="RECIPE",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The run directory. [default: runs/ and the recipe's name]",
            metavar="RUN",
        ),
    ] = None,
    callback: Annotated[
        list[str] | None,
        typer.Option(
            help=(
                "A callback recipe; give it more than once for several. [default:"
                " explain_every_epoch]"
            ),
            metavar="RECIPE",
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help=(
                "A method to explain with; give it more than once for several. [default: the"
                " callback's]"
            ),
            metavar="METHOD",
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs in all.")] = 5,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Examples of one rank's batch. [default: the recipe's]"),
    ] = None,
    warmup_epochs: Annotated[
        float, typer.Option(min=0, help="Epochs until the learning rate is that of all ranks.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="Of weights, shuffling and dropout.")] = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="An option of the recipe or of a callback; a wrong name lists them all.",
            metavar="NAME=VALUE",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run that is there.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove the run that is there, and start anew.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Say what explaining will take; train nothing, write nothing."
        ),
    ] = False,
) -> None:
    """Trains a recipe data-parallel and explains its probe while it does.

    On two ranks of this machine, over MPI:

    horovodrun -np 2 --binding-args="--bind-to none --map-by slot" hvd-xai train digits_cnn --epochs
    5 -o runs/demo

    mpirun -np 2 hvd-xai train digits_cnn --epochs 5 -o runs/demo

    On several hosts, without MPI, and with your own recipe and options:

    horovodrun --gloo -np 4 --hostfile mpi_hosts hvd-xai train my_model.py --set n_steps=100 -o
    runs/mine

    To see what explaining will take before it is done:

    hvd-xai train digits_cnn --method integrated_gradients --dry-run

    To write a recipe, begin with a copy: hvd-xai copy digits_cnn
    """
    mode = run_mode(resume=resume, overwrite=overwrite)
    with quiet_start():
        import hvd_xai.keras as hvd
        from hvd_xai.lookup.recipes import load_recipe
        from hvd_xai.lookup.settings import parse_settings
        from hvd_xai.train.fit import Settings, estimate
        from hvd_xai.train.fit import train as run_training
    world = hvd.init()
    configure(world.rank, world.size, world.host)
    # from here on everything fails on all ranks or on none

    with world.together("loading the recipes"):
        model_recipe = load_recipe(recipe, "models", ["build", "load"])
        callback_recipes = [
            load_recipe(name, "callbacks", ["build"])
            for name in callback or ["explain_every_epoch"]
        ]
        functions = {
            f"{one.name}.{name}": function
            for one in (model_recipe, *callback_recipes)
            for name, function in one.functions.items()
        }
        of_methods = [f"methods={','.join(method)}"] if method else []
        options = parse_settings([*of_methods, *(set_ or [])], functions)
    run = output or Path("runs", model_recipe.name)
    settings = Settings(epochs, batch_size, warmup_epochs, seed, mode, options)
    if dry_run:
        estimates = estimate(model_recipe, callback_recipes, run, world=world, settings=settings)
        if rank() == 0:
            print(costs(estimates))
        return
    with progress() as bar:
        run_training(
            model_recipe, callback_recipes, run, world=world, settings=settings, progress=bar
        )
    if rank() == 0:
        print(closing(run))


def run_mode(*, resume: bool, overwrite: bool) -> Mode:
    """Returns what two flags say is to be done with a run that is there already."""
    if resume and overwrite:
        raise typer.BadParameter("give --resume or --overwrite, not both")
    return "resume" if resume else "overwrite" if overwrite else "new"


def costs(estimates: "Sequence[Estimate]") -> str:
    """Returns what each method will take an epoch that is explained, as lines of a table."""
    if not estimates:
        return "nothing will be explained: no callback does"
    rows = [
        (one.method, f"{one.n_rows}", f"{one.seconds:.2g}", f"{one.n_bytes:,}") for one in estimates
    ]
    if len(estimates) > 1:
        total = sum(one.seconds for one in estimates), sum(one.n_bytes for one in estimates)
        rows.append(
            (
                "together",
                f"{sum(one.n_rows for one in estimates)}",
                f"{total[0]:.2g}",
                f"{total[1]:,}",
            )
        )
    heading = ("each explained epoch", "rows", "seconds", "bytes")
    widths = [max(len(row[column]) for row in (heading, *rows)) for column in range(4)]
    lines = [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in (heading, *rows)
    ]
    return "\n".join(["", *lines, ""])


def closing(output: Path) -> str:
    """Returns where the run is, and what to type to look at it: at an epoch and a sample that are
    there.
    """
    run = shlex.quote(str(output))
    commands = []
    explanations = open_explanations(output)
    if explanations.epochs:
        epoch = explanations.epochs[-1]
        sample_ids = explanations.explanation(epoch, explanations.methods(epoch)[0]).column(
            "sample_id"
        )
        example = sample_ids[min(_EXAMPLE, len(sample_ids) - 1)]
        show = f"{program('hvd-xai')} show {run}"
        commands += [show, f"{show} --sample {example} --epoch {epoch} --png out.png"]
    if (output / "tensorboard").is_dir():
        commands.append(f"{program('tensorboard')} --logdir {run}")
    what = (
        "explanations/ has the explanation checkpoints, models/ the trained"
        f" model.{' To look at it:' if commands else ''}"
    )
    return "\n".join(
        [f"\nThe run is in {output}: {what}\n", *(f"  {command}" for command in commands), ""]
    )
