"""Gets data, model and callbacks from recipes, and makes the model train on all ranks."""

import logging
from collections.abc import Sequence

import keras
import numpy as np

from hvd_xai.errors import RecipeError, shorten
from hvd_xai.keras import DistributedOptimizer
from hvd_xai.keras.model_files import seed_states, set_seed_states
from hvd_xai.lookup.recipes import Recipe
from hvd_xai.probe.probe import Data
from hvd_xai.ranks.world import World
from hvd_xai.train.settings import Settings, Training

log = logging.getLogger(__name__)


def prepare(recipe: Recipe, settings: Settings, world: World) -> "tuple[Data, keras.Model]":
    """Loads a recipe's data and builds its model. Collective: every rank must call this.

    Args:
        recipe: recipe with the functions `build` and `load`.
        settings: seed, and options of the two functions.
        world: ranks that train.

    Raises:
        PeerError: on all ranks, if any failed.
        RecipeError: if a function does not return what it must.
    """
    with world.together(f"building '{recipe.name}'"):
        # Set before the data too: loading may shuffle, and all ranks must hold the same rows.
        keras.utils.set_random_seed(settings.seed)
        data = _load_data(recipe, settings)
        model = _build_model(recipe, settings)
        # A subclassed model may call itself built, and have no weights until it is called.
        model(data.train[0][:1])
    return data, model


def build_callbacks(
    recipes: Sequence[Recipe], training: Training, settings: Settings
) -> "list[keras.callbacks.Callback]":
    """Returns the Keras callbacks that callback recipes build, in the order of the recipes.

    Args:
        recipes: recipes with the function `build`.
        training: what the recipes get to work with.
        settings: options of their functions.

    Raises:
        RecipeError: if a recipe returns anything but a list of Keras callbacks.
    """
    callbacks: list[keras.callbacks.Callback] = []
    for recipe in recipes:
        options = settings.options_for(f"{recipe.name}.build")
        built = recipe.functions["build"](training, **options)
        if not isinstance(built, list) or not all(
            isinstance(callback, keras.callbacks.Callback) for callback in built
        ):
            raise RecipeError(
                f"build(training) of '{recipe.source}' must return a list of Keras callbacks; it"
                f" returned {shorten(built)}"
            )
        callbacks += built
    return callbacks


def distribute(model: "keras.Model", size: int) -> float | None:
    """Makes a model's optimizer reduce over the ranks, and scales its learning rate by the size.

    Args:
        model: a compiled model; changed in place.
        size: number of ranks that train.

    Returns:
        The learning rate of one rank, None if it is a schedule, which stays as it is.
    """
    optimizer = model.optimizer
    model.optimizer = DistributedOptimizer(optimizer)
    # XLA cannot compile Horovod's operations.
    model.jit_compile = False
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    # The public property `learning_rate` gives a number for a schedule too; this one does not.
    if not isinstance(inner._learning_rate, keras.Variable):
        log.info(
            "the learning rate is a schedule; it is neither scaled by the %d ranks nor warmed up",
            size,
        )
        return None
    learning_rate = float(inner.get_config()["learning_rate"])
    model.optimizer.learning_rate = learning_rate * size
    return learning_rate


def separate_seeds(model: "keras.Model", rank: int) -> None:
    """Moves the seeds of dropout and augmentation apart, so that each rank drops other units.

    Every rank builds the model from one seed; left alone, all would drop the same units.

    Args:
        model: the model, with the seeds that all ranks have; changed in place.
        rank: this rank.
    """
    # A seed generator's state is [seed, counter]: only the seed moves.
    set_seed_states(model, [[first + rank, *rest] for first, *rest in seed_states(model)])


def share_rows(
    arrays: tuple[np.ndarray, np.ndarray], *, rank: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns this rank's rows of the validation data.

    Where there are fewer rows than ranks, each rank gets all of them, which leaves the metrics the
    same.

    Args:
        arrays: inputs and targets.
        rank: this rank.
        size: number of ranks that validate.

    Example:
        >>> inputs, targets = share_rows((np.arange(5), np.arange(5)), rank=1, size=2)
        >>> inputs.tolist()
        [1, 3]
    """
    inputs, targets = arrays
    if len(inputs) < size:
        return inputs, targets
    # 2 ranks, rows 0 1 2 3 4:   rank 0 gets 0 2 4, rank 1 gets 1 3
    return inputs[rank::size], targets[rank::size]


def _load_data(recipe: Recipe, settings: Settings) -> Data:
    data = recipe.functions["load"](**settings.options_for(f"{recipe.name}.load"))
    if not isinstance(data, Data):
        raise RecipeError(
            f"load() of '{recipe.source}' must return hvd_xai.Data; it returned"
            f" {type(data).__name__}"
        )
    return data


def _build_model(recipe: Recipe, settings: Settings) -> "keras.Model":
    model = recipe.functions["build"](**settings.options_for(f"{recipe.name}.build"))
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
