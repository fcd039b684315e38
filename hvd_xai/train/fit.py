"""Trains a recipe on all ranks, and estimates what explaining it would take."""

from collections.abc import Sequence
from pathlib import Path

import keras

from hvd_xai.checkpoint.run_directory import RunDirectory
from hvd_xai.explain.callback import Explain
from hvd_xai.explain.estimate import Estimate
from hvd_xai.keras import batches
from hvd_xai.keras.callbacks import (
    BroadcastGlobalVariablesCallback,
    LearningRateWarmupCallback,
    MetricAverageCallback,
)
from hvd_xai.keras.model_files import Trained
from hvd_xai.lookup.recipes import Recipe
from hvd_xai.protocols import Progress, Silent
from hvd_xai.ranks.world import World
from hvd_xai.train.callbacks import Report, SaveModel
from hvd_xai.train.prepare import (
    build_callbacks,
    distribute,
    prepare,
    separate_seeds,
    share_rows,
)
from hvd_xai.train.resume import find_trained, restore
from hvd_xai.train.settings import Settings, Training

MODELS = "models"
"""Folder of a run that holds the model after its last epoch."""


def train(
    recipe: Recipe,
    callbacks: Sequence[Recipe],
    output: Path,
    *,
    world: World,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> "keras.Model":
    """Trains a recipe on all ranks and explains as its callbacks say.

    Collective: every rank must call this.

    Args:
        recipe: recipe that defines `build() -> keras.Model`, compiled with a plain optimizer, and
            `load() -> Data`.
        callbacks: recipes that each define `build(training) -> list of Keras callbacks`.
        output: path of the run directory.
        world: ranks that train, as `hvd_xai.keras.init()` returned them.
        settings: how long to train, and from where.
        progress: where the root shows how far it is.

    Returns:
        The trained model; its weights are bit-equal on all ranks.

    Raises:
        PeerError: on all ranks, if any failed.
        RecipeError: if a recipe's functions do not return what they must.
        ValueError: if the run has more epochs already than are asked for.
    """
    settings = settings or Settings()
    progress = progress if progress is not None and world.is_root else Silent()
    config = settings.config(recipe, callbacks)
    run = RunDirectory(output, mode=settings.mode, config=config)
    models = output / MODELS
    with world.together("looking for a run"):
        if world.is_root:
            run.check()
    trained = find_trained(run, models, config, world) if settings.mode == "resume" else None
    initial_epoch = _next_epoch(output, trained, settings)
    data, model = prepare(recipe, settings, world)
    learning_rate = _distribute_or_restore(model, models, trained, world)
    if initial_epoch == settings.epochs:
        progress.say(
            f"{output} has its {settings.epochs} epochs already; to train on, give --epochs"
            f" {settings.epochs + 1} or more"
        )
        return model
    with world.together("preparing to train"):
        stream, n_steps = batches(
            *data.train,
            world=world,
            batch_size=settings.batch_size or data.batch_size,
            seed=settings.seed,
            initial_epoch=initial_epoch,
        )
        training = Training(world, data.probe, run, settings.epochs, progress)
        chosen = build_callbacks(callbacks, training, settings)
    explains = _find_explains(chosen)
    if not explains:
        _open_without_probe(run, world)
    before = _callbacks_before(learning_rate, settings, world)
    save = SaveModel(models, world, learning_rate, explains, anew=trained is None)
    try:
        model.fit(
            stream,
            steps_per_epoch=n_steps,
            initial_epoch=initial_epoch,
            epochs=settings.epochs,
            validation_data=share_rows(data.validation, rank=world.rank, size=world.size),
            # The stream is shuffled already, by seed and epoch.
            shuffle=False,
            verbose=0,
            # The order matters: the model is saved, and its epoch reported, after it is explained.
            callbacks=[*before, *chosen, save, Report(progress, explains)],
        )
    except BaseException as error:
        # Commits what was computed before the error, if the ranks can still agree.
        world.finish(error)
        raise
    return model


def estimate(
    recipe: Recipe,
    callbacks: Sequence[Recipe],
    output: Path,
    *,
    world: World,
    settings: Settings | None = None,
) -> list[Estimate]:
    """Estimates what explaining an epoch would take; trains nothing and writes nothing.

    Collective: every rank must call this. Arguments and errors are those of `train`.

    Returns:
        One estimate for each method of each callback that explains.
    """
    settings = settings or Settings()
    data, model = prepare(recipe, settings, world)
    with world.together("preparing the callbacks"):
        run = RunDirectory(output)
        training = Training(world, data.probe, run, settings.epochs, Silent())
        chosen = build_callbacks(callbacks, training, settings)
    return [
        estimated for explain in _find_explains(chosen) for estimated in explain.estimate(model)
    ]


def _open_without_probe(run: RunDirectory, world: World) -> None:
    """Opens a run that nobody explains; otherwise `Explain` opens it, with the probe.

    Collective: every rank must call this.
    """
    with world.together("opening the run"):
        if world.is_root:
            run.open()


def _next_epoch(output: Path, trained: Trained | None, settings: Settings) -> int:
    """Returns the epoch to begin with; refuses a run that has more epochs than are asked for."""
    epoch = 0 if trained is None else trained.epoch + 1
    if epoch > settings.epochs:
        raise ValueError(
            f"{output} has {epoch} epochs already, more than the {settings.epochs} asked for. Give"
            f" --epochs {epoch + 1} or more to train on, or --overwrite to start anew."
        )
    return epoch


def _distribute_or_restore(
    model: "keras.Model", models: Path, trained: Trained | None, world: World
) -> float | None:
    """Makes a model ready to train on all ranks, from the start or from where a run was left.

    Collective: every rank must call this.

    Returns:
        The learning rate of one rank, None if it is a schedule.
    """
    with world.together("preparing the model"):
        learning_rate = distribute(model, world.size)
        if trained is None:
            separate_seeds(model, world.rank)
            return learning_rate
        restore(model, models, trained, world)
        return trained.learning_rate


def _find_explains(callbacks: "list[keras.callbacks.Callback]") -> list[Explain]:
    return [callback for callback in callbacks if isinstance(callback, Explain)]


def _callbacks_before(
    learning_rate: float | None, settings: Settings, world: World
) -> "list[keras.callbacks.Callback]":
    """Returns the callbacks that stand before those of the recipes, in their order."""
    # Variables are made equal before anything uses them, metrics before anything reads them.
    callbacks = [BroadcastGlobalVariablesCallback(), MetricAverageCallback()]
    if learning_rate is not None:
        full = learning_rate * world.size
        callbacks.append(LearningRateWarmupCallback(full, settings.warmup_epochs))
    return callbacks
