"""`hvd-xai train`: trains a recipe on all ranks, and explains it while it trains."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hvd_xai.cli import options
from hvd_xai.cli.console import progress, say
from hvd_xai.cli.jobs import closing, costs, run_mode, start_ranks

if TYPE_CHECKING:
    from hvd_xai.lookup.recipes import Recipe


def train(  # noqa: PLR0913  # every option of a command is a parameter of its function
    recipe: options.Recipe,
    output: options.OutputOfRecipe = None,
    callback: options.Callbacks = None,
    method: options.MethodNames = None,
    epochs: options.Epochs = 5,
    batch_size: options.BatchSize = None,
    warmup_epochs: options.WarmupEpochs = 1,
    seed: options.Seed = 0,
    set_: options.RecipeSettings = None,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRunOfTraining = False,
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
    world = start_ranks()
    from hvd_xai.train.fit import estimate
    from hvd_xai.train.fit import train as run_training
    from hvd_xai.train.settings import Settings

    # From here on an error is raised on all ranks or on none.
    with world.together("loading the recipes"):
        model, callbacks = _load_recipes(recipe, callback or ["explain_every_epoch"])
        bound = _parse_options([model, *callbacks], method or [], set_ or [])
    run = output or Path("runs", model.name)
    settings = Settings(epochs, batch_size, warmup_epochs, seed, mode, bound)
    if dry_run:
        said = costs(estimate(model, callbacks, run, world=world, settings=settings))
    else:
        with progress() as bar:
            run_training(model, callbacks, run, world=world, settings=settings, progress=bar)
        said = closing(run) if world.is_root else []
    if world.is_root:
        say(*said)


def _load_recipes(model: str, callbacks: Sequence[str]) -> "tuple[Recipe, list[Recipe]]":
    """Loads the recipe of the model, and those of the callbacks."""
    from hvd_xai.lookup.recipes import load_recipe

    return load_recipe(model, "models", ["build", "load"]), [
        load_recipe(name, "callbacks", ["build"]) for name in callbacks
    ]


def _parse_options(
    recipes: "Sequence[Recipe]", methods: Sequence[str], settings: Sequence[str]
) -> dict[str, dict[str, object]]:
    """Reads what the command line sets of the recipes' functions; methods are an option as well."""
    from hvd_xai.lookup.settings import parse_settings

    functions = {
        f"{recipe.name}.{name}": function
        for recipe in recipes
        for name, function in recipe.functions.items()
    }
    chosen = [f"methods={','.join(methods)}"] if methods else []
    return parse_settings([*chosen, *settings], functions)
