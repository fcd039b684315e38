"""`hvd-xai train`: trains a recipe on all ranks, and explains it while it trains."""

from pathlib import Path
from typing import Annotated

import typer

from hvd_xai.cli.console import progress, rank
from hvd_xai.cli.jobs import closing, costs, run_mode
from hvd_xai.log import configure, quiet_start


def train(  # noqa: PLR0913  # every option of a command is a parameter of its function
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
            help="A callback recipe. Can be given again. [default: explain_every_epoch]",
            metavar="RECIPE",
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="A method to explain with. Can be given again. [default: the callback's]",
            metavar="METHOD",
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Number of epochs in all.")] = 5,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of examples in a batch of one rank. [default: the recipe's]"
        ),
    ] = None,
    warmup_epochs: Annotated[
        float,
        typer.Option(
            min=0,
            help=(
                "Number of epochs over which the learning rate rises from that of one rank to that"
                " of all ranks."
            ),
        ),
    ] = 1,
    seed: Annotated[int, typer.Option(help="Seed of weights, shuffling and dropout.")] = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help=(
                "An option of the recipe or of a callback. Can be given again; a wrong name lists"
                " them all."
            ),
            metavar="NAME=VALUE",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in RUN, after its last epoch.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove the run in RUN, and start again.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Say how long explaining will take; train nothing, write nothing."
        ),
    ] = False,
) -> None:
    """Trains a recipe on all ranks, and explains its probe.

    On two ranks of this machine, over MPI:

    horovodrun -np 2 --binding-args="--bind-to none --map-by slot" hvd-xai train digits_cnn --epochs
    5 -o runs/demo

    mpirun -np 2 hvd-xai train digits_cnn --epochs 5 -o runs/demo

    On several hosts, without MPI, with your own recipe and options:

    horovodrun --gloo -np 4 --hostfile mpi_hosts hvd-xai train my_model.py --set n_steps=100 -o
    runs/mine

    To see beforehand how long explaining will take:

    hvd-xai train digits_cnn --method integrated_gradients --dry-run

    To go on with a run that was stopped, or to train it longer:

    mpirun -np 2 hvd-xai train digits_cnn --epochs 10 -o runs/demo --resume

    To write a recipe, begin with a copy: hvd-xai copy digits_cnn
    """
    mode = run_mode(resume=resume, overwrite=overwrite)
    # Importing these takes seconds and needs TensorFlow, which --help must not wait for.
    with quiet_start():
        import hvd_xai.keras as hvd
        from hvd_xai.lookup.recipes import load_recipe
        from hvd_xai.lookup.settings import parse_settings
        from hvd_xai.train.fit import estimate
        from hvd_xai.train.fit import train as run_training
        from hvd_xai.train.settings import Settings
    world = hvd.init()
    configure(world.rank, world.size, world.host)
    # From here on an error is raised on all ranks or on none.
    with world.together("loading the recipes"):
        model = load_recipe(recipe, "models", ["build", "load"])
        callbacks = [
            load_recipe(name, "callbacks", ["build"])
            for name in callback or ["explain_every_epoch"]
        ]
        functions = {
            f"{loaded.name}.{name}": function
            for loaded in (model, *callbacks)
            for name, function in loaded.functions.items()
        }
        methods = [f"methods={','.join(method)}"] if method else []
        options = parse_settings([*methods, *(set_ or [])], functions)
    run = output or Path("runs", model.name)
    settings = Settings(epochs, batch_size, warmup_epochs, seed, mode, options)
    if dry_run:
        said = costs(estimate(model, callbacks, run, world=world, settings=settings))
    else:
        with progress() as bar:
            run_training(model, callbacks, run, world=world, settings=settings, progress=bar)
        said = closing(run) if rank() == 0 else ""
    if rank() == 0:
        print(said)
