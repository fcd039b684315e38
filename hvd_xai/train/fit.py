"""Wires a recipe, its callbacks and the ranks into one `fit`."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from hvd_xai.checkpoint.layout import EXPLANATIONS, RUN
from hvd_xai.checkpoint.reader import open_explanations
from hvd_xai.checkpoint.run_directory import Mode, RunDirectory
from hvd_xai.checkpoint.verify import verify
from hvd_xai.errors import RecipeError
from hvd_xai.explain.callback import Explain
from hvd_xai.explain.estimate import Estimate
from hvd_xai.keras import DistributedOptimizer, batches
from hvd_xai.keras.callbacks import (
    BroadcastGlobalVariablesCallback,
    LearningRateWarmupCallback,
    MetricAverageCallback,
)
from hvd_xai.keras.model_files import (
    Trained,
    load_state,
    publish_model,
    read_trained,
    remove_models,
    seed_states,
    set_seed_states,
    stage_model,
)
from hvd_xai.lookup.recipes import Recipe
from hvd_xai.probe.probe import Data, Probe
from hvd_xai.protocols import Json, Progress, Silent
from hvd_xai.provenance import git_commit
from hvd_xai.ranks.world import World

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Run:
    """What a callback recipe's `build(run)` gets to work with.

    Attributes:
        world: the ranks.
        probe: the examples to explain.
        directory: the run that explanations are committed to.
        output: the run's folder.
        epochs: how many epochs are trained in all.
        progress: where the root says how far it is.
    """

    world: World
    probe: Probe
    directory: RunDirectory
    output: Path
    epochs: int
    progress: Progress


@dataclass(frozen=True, slots=True)
class Settings:
    """How long and from where a recipe is trained.

    Args:
        epochs: in all, at least 1.
        batch_size: examples of one rank's batch; the recipe's if None.
        warmup_epochs: over which the learning rate rises from that of one rank to that of all.
        seed: of weights, shuffling and dropout.
        mode: what to do with a run directory that holds a run: `new` refuses it, `resume` goes on,
            `overwrite` starts it anew.
        options: keyword options of the recipe's and the callbacks' functions, by the label
            `recipe.function`.

    Raises:
        ValueError: if a number is out of range.
    """

    epochs: int = 5
    batch_size: int | None = None
    warmup_epochs: float = 1
    seed: int = 0
    mode: Mode = "new"
    options: Mapping[str, Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        if (
            self.epochs < 1
            or (self.batch_size is not None and self.batch_size < 1)
            or self.warmup_epochs < 0
        ):
            raise ValueError(
                "epochs and batch_size must be 1 or more, warmup_epochs 0 or more;"
                f" got {self.epochs}, {self.batch_size} and {self.warmup_epochs}"
            )


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
        recipe: defines `build() -> keras.Model`, compiled with a plain optimizer, and `load() ->
            Data`.
        callbacks: each defines `build(run) -> list of Keras callbacks`.
        output: the run directory.
        world: the ranks, as `hvd_xai.keras.init()` returned them.
        settings: how long, and from where.
        progress: where the root says how far it is.

    Returns:
        The trained model; its weights are bit-equal on all ranks.

    Raises:
        PeerError: on all ranks, if any failed.
        RecipeError: if a recipe's functions do not return what they must.
    """
    settings = settings or Settings()
    progress = progress if progress is not None and world.is_root else Silent()
    options = settings.options or {}
    config = _config(recipe, callbacks, settings)
    directory = RunDirectory(output, mode=settings.mode, config=config)
    models = output / "models"
    with world.together("looking for a run"):
        if world.is_root:
            directory.check()
    done = _find(output, models, config, world) if settings.mode == "resume" else None
    initial_epoch = 0 if done is None else done.epoch + 1
    if initial_epoch > settings.epochs:
        raise ValueError(
            f"{output} has {initial_epoch} epochs already, more than the {settings.epochs} asked"
            f" for. Give --epochs {initial_epoch + 1} or more to train on, or --overwrite to start"
            " anew."
        )
    data, model = _prepared(recipe, settings, world)
    with world.together("preparing the model"):
        learning_rate = _distribute(model, world)
        if done is None:
            _separate_seeds(model, world)
        else:
            learning_rate = done.learning_rate
            _restore(model, models, done, world)
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
        run = Run(world, data.probe, directory, output, settings.epochs, progress)
        of_recipes = [
            callback
            for one in callbacks
            for callback in _callbacks_of(one, run, options.get(f"{one.name}.build", {}))
        ]
    warmup = (
        []
        if learning_rate is None
        else [LearningRateWarmupCallback(learning_rate * world.size, settings.warmup_epochs)]
    )
    explains = [callback for callback in of_recipes if isinstance(callback, Explain)]
    if not explains:
        with world.together("opening the run"):
            if world.is_root:
                directory.open()
    try:
        model.fit(
            stream,
            steps_per_epoch=n_steps,
            initial_epoch=initial_epoch,
            epochs=settings.epochs,
            validation_data=_share(data.validation, world),
            shuffle=False,  # the stream is shuffled
            verbose=0,
            callbacks=[
                BroadcastGlobalVariablesCallback(),
                MetricAverageCallback(),
                *warmup,
                *of_recipes,
                _SaveModel(models, world, learning_rate, explains, anew=done is None),
                _Report(progress, explains),
            ],
        )
    except BaseException as error:
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

    Collective: every rank must call this.

    Args and errors are those of `train`.

    Returns:
        One estimate a method, of all callbacks that explain.
    """
    settings = settings or Settings()
    options = settings.options or {}
    data, model = _prepared(recipe, settings, world)
    with world.together("preparing the callbacks"):
        run = Run(world, data.probe, RunDirectory(output), output, settings.epochs, Silent())
        of_recipes = [
            callback
            for one in callbacks
            for callback in _callbacks_of(one, run, options.get(f"{one.name}.build", {}))
        ]
    return [
        one
        for callback in of_recipes
        if isinstance(callback, Explain)
        for one in callback.estimate(model)
    ]


def _prepared(recipe: Recipe, settings: Settings, world: World) -> "tuple[Data, keras.Model]":
    """Loads the data and builds the model. Collective: every rank must call this."""
    options = settings.options or {}
    with world.together(f"building '{recipe.name}'"):
        keras.utils.set_random_seed(settings.seed)
        data = _loaded(recipe, options.get(f"{recipe.name}.load", {}))
        model = _built(recipe, options.get(f"{recipe.name}.build", {}))
        # a subclassed model may call itself built and have no weights before it is called
        model(data.train[0][:1])
    return data, model


def _config(recipe: Recipe, callbacks: Sequence[Recipe], settings: Settings) -> dict[str, Json]:
    return {
        "recipe": recipe.source,
        "callbacks": [callback.source for callback in callbacks],
        "epochs": settings.epochs,
        "batch_size": settings.batch_size,
        "warmup_epochs": settings.warmup_epochs,
        "seed": settings.seed,
        "options": {
            label: {name: str(value) for name, value in chosen.items()}
            for label, chosen in (settings.options or {}).items()
        },
        "git_commit": git_commit(),
    }


def _loaded(recipe: Recipe, options: Mapping[str, Any]) -> Data:
    data = recipe.functions["load"](**options)
    if not isinstance(data, Data):
        raise RecipeError(
            f"load() of '{recipe.source}' must return hvd_xai.Data; it returned"
            f" {type(data).__name__}"
        )
    return data


def _built(recipe: Recipe, options: Mapping[str, Any]) -> "keras.Model":
    model = recipe.functions["build"](**options)
    if not isinstance(model, keras.Model):
        raise RecipeError(
            f"build() of '{recipe.source}' must return a keras.Model; it returned"
            f" {type(model).__name__}"
        )
    if getattr(model, "optimizer", None) is None:
        raise RecipeError(
            f"build() of '{recipe.source}' must return a compiled model: call"
            " model.compile(optimizer=..., loss=...) in it"
        )
    return model


def _callbacks_of(
    recipe: Recipe, run: Run, options: Mapping[str, Any]
) -> "list[keras.callbacks.Callback]":
    built = recipe.functions["build"](run, **options)
    if not isinstance(built, list) or not all(
        isinstance(callback, keras.callbacks.Callback) for callback in built
    ):
        raise RecipeError(
            f"build(run) of '{recipe.source}' must return a list of Keras callbacks; it returned"
            f" {built!r}"
        )
    return built


def _find(output: Path, models: Path, config: Mapping[str, Json], world: World) -> Trained | None:
    """Returns how far the run that is to be resumed has come, as the root sees it.

    Collective: every rank must call this.

    The model of an epoch is published behind its explanations, so the newest has them: together
    they are the pair that is gone on from. What was explained of a later epoch is of weights that
    were lost, and will be explained again.
    """
    found: list[Json] = []
    with world.together("looking for where to resume"):
        if world.is_root:
            done = read_trained(models)
            if (output / EXPLANATIONS / RUN).exists():
                _compare_with(open_explanations(output).config, config, output)
                for problem in verify(output)[:3]:
                    log.warning(
                        "%s: %s; `hvd-xai verify %s` tells more", problem.path, problem.what, output
                    )
            if done is None:
                log.warning("%s has no model yet to resume from; it starts at epoch 0", output)
            else:
                found = [done.epoch, done.step, done.size, done.learning_rate, done.seeds]
    answer: Any = world.allgather("telling where to resume", found)[0]
    if not answer:
        return None
    done = Trained(*answer)
    if done.size != world.size and world.is_root:
        log.warning(
            "the run was trained by %d ranks and goes on with %d: its learning rate is scaled to"
            " them, and it will not be the run, to the bit, that it would have been",
            done.size,
            world.size,
        )
    return done


def _compare_with(before: Mapping[str, Json], now: Mapping[str, Json], output: Path) -> None:
    """Refuses to resume another recipe's run; says what else differs."""
    recipes = [Path(str(config.get("recipe"))).name for config in (before, now)]
    if recipes[0] != recipes[1]:
        raise ValueError(
            f"{output} is a run of '{before.get('recipe')}'; it cannot be resumed with"
            f" '{now['recipe']}'. Give another --output."
        )
    for name in ("callbacks", "batch_size", "warmup_epochs", "seed", "options"):
        if before.get(name) != now[name]:
            log.warning(
                "%s was started with %s %s and is resumed with %s: it will not be the run, to the"
                " bit, that it would have been",
                output,
                name,
                before.get(name),
                now[name],
            )


def _restore(model: "keras.Model", models: Path, done: Trained, world: World) -> None:
    """Gives the root the state that was saved; the others get it when training begins, so that they
    need not see the file.
    """
    model.optimizer.build(model.trainable_variables)
    if world.is_root:
        load_state(model, models, done)
        if done.size != world.size and done.learning_rate is not None:
            model.optimizer.learning_rate = (
                float(model.optimizer.learning_rate) * world.size / done.size
            )
    if done.size == world.size:
        set_seed_states(model, done.seeds[world.rank])
    else:
        set_seed_states(model, done.seeds[0])
        _separate_seeds(model, world)


def _distribute(model: "keras.Model", world: World) -> float | None:
    """Makes the model's optimizer reduce over the ranks, and scales its learning rate by their
    number.

    Returns:
        The learning rate of one rank, None if that is a schedule.
    """
    optimizer = model.optimizer
    model.optimizer = DistributedOptimizer(optimizer)
    model.jit_compile = False
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    # the public property hides whether it is a schedule
    if not isinstance(inner._learning_rate, keras.Variable):
        log.info(
            "the learning rate is a schedule; it is neither scaled by the %d ranks nor warmed up",
            world.size,
        )
        return None
    learning_rate = float(inner.get_config()["learning_rate"])
    model.optimizer.learning_rate = learning_rate * world.size
    return learning_rate


def _separate_seeds(model: "keras.Model", world: World) -> None:
    """Moves the seeds of dropout and augmentation apart: built from one seed, they would drop the
    same units on every rank.
    """
    set_seed_states(model, [[first + world.rank, *rest] for first, *rest in seed_states(model)])


def _share(arrays: tuple[np.ndarray, np.ndarray], world: World) -> tuple[np.ndarray, np.ndarray]:
    """Returns this rank's rows of the validation data; all of them where there are fewer than
    ranks, which leaves the metrics the same.
    """
    inputs, targets = arrays
    if len(inputs) < world.size:
        return inputs, targets
    return inputs[world.rank :: world.size], targets[world.rank :: world.size]


class _SaveModel(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
    """Saves the model after each epoch, and publishes it once its explanations are committed: a
    model that is there has them.
    """

    def __init__(
        self,
        folder: Path,
        world: World,
        learning_rate: float | None,
        explains: Sequence[Explain],
        *,
        anew: bool,
    ) -> None:
        super().__init__()
        self._folder, self._world, self._learning_rate, self._explains, self._anew = (
            folder,
            world,
            learning_rate,
            explains,
            anew,
        )
        self._staged: int | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Removes what another run has left here, which this one must not be resumed from.

        Collective: every rank must call this.
        """
        with self._world.together("removing old models"):
            if self._world.is_root and self._anew:
                remove_models(self._folder)
        self._world.under_way.append(self._finish)  # behind the explanations

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Publishes, as soon as it may be; where that fails on the root, it ends the job."""
        self._publish()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Collective: every rank must call this."""
        seeds: Any = self._world.allgather("gathering the seeds", seed_states(self.model))
        with self._world.together("saving the model"):
            if self._world.is_root:
                self._publish()
                step = int(self.model.optimizer.iterations)
                stage_model(
                    self.model,
                    self._folder,
                    Trained(epoch, step, self._world.size, self._learning_rate, seeds),
                )
                self._staged = epoch
                self._publish()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Publishes the last one. Collective: every rank must call this."""
        with self._world.together("saving the model"):
            self._publish()
        self._world.under_way.remove(self._finish)

    def _finish(self, together: bool) -> None:
        self._publish()

    def _publish(self) -> None:
        if self._staged is not None and all(
            explain.has_settled(self._staged) for explain in self._explains
        ):
            publish_model(self._folder, self._staged)
            self._staged = None


class _Report(keras.callbacks.Callback):  # type: ignore[misc]  # as above
    """Moves the bar while an epoch trains, and says in one line what came of it."""

    def __init__(self, progress: Progress, explains: Sequence[Explain]) -> None:
        super().__init__()
        self._progress, self._explains = progress, explains
        self._began = self._trained = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Begins a bar."""
        self._progress.start(f"epoch {epoch}  training", self.params["steps"])
        self._began = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Moves it; the last batch ends what counts as training."""
        self._progress.advance()
        self._trained = time.perf_counter() - self._began

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Says the line."""
        seconds = {"train": self._trained}
        for explain in self._explains:
            for stage, spent in (explain.summary.seconds if explain.summary else {}).items():
                seconds[stage] = seconds.get(stage, 0.0) + spent
        values = "  ".join(
            f"{name} {value:.4g}"
            for name, value in (logs or {}).items()
            if isinstance(value, float) and name != "lr"
        )
        times = "  ".join(f"{stage} {spent:.1f} s" for stage, spent in seconds.items())
        self._progress.say(f"epoch {epoch}  {values}  |  {times}")
