"""Finds out where a run goes on, and gives a model the state that it was left with."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras

from hvd_xai.checkpoint.layout import EXPLANATIONS, RUN
from hvd_xai.checkpoint.listing import is_present
from hvd_xai.checkpoint.run_directory import RunDirectory
from hvd_xai.checkpoint.verify import verify
from hvd_xai.keras.model_files import Trained, load_state, read_trained, set_seed_states
from hvd_xai.protocols import Json
from hvd_xai.ranks.world import World
from hvd_xai.train.prepare import separate_seeds

log = logging.getLogger(__name__)

# Entries of a run's config that decide its numbers. With another value a run goes on, with a
# warning; another recipe is refused.
_DECISIVE = ("callbacks", "batch_size", "warmup_epochs", "seed", "options")


def find_trained(
    run: RunDirectory, models: Path, config: Mapping[str, Json], world: World
) -> Trained | None:
    """Returns how far the run that is to be resumed has come, as the root sees it.

    Collective: every rank must call this.

    An epoch's model is published after its explanations are committed, so that the newest model has
    them: training goes on from this pair. Explanations of later epochs are of weights that were
    lost, and are made again.

    Args:
        run: run directory to go on with.
        models: folder of its models; only the root reads it.
        config: what the run would be started with now.
        world: ranks that train.

    Returns:
        The state of the last epoch; None if there is no model yet.

    Raises:
        ValueError: on the root, if the run is of another recipe; the others raise PeerError.
        CheckpointError: on the root, if its model or its config is damaged; the others raise
            PeerError.
    """
    found: list[dict[str, Any]] = []
    with world.together("looking for where to resume"):
        if world.is_root:
            if is_present(run.path / EXPLANATIONS / RUN):
                compare_configs(run.explanations().config, config, run.path)
                _warn_of_damage(run.path)
            trained = read_trained(models)
            if trained is None:
                log.warning("%s has no model yet to resume from; it starts at epoch 0", run.path)
            else:
                found = [asdict(trained)]
    found = world.from_root("telling where to resume", found)
    if not found:
        return None
    trained = Trained(**found[0])
    if trained.size != world.size and world.is_root:
        log.warning(
            "the run was trained by %d ranks and goes on with %d: its learning rate is scaled to"
            " them, and it will not be the run, to the bit, that it would have been",
            trained.size,
            world.size,
        )
    return trained


def compare_configs(before: Mapping[str, Json], now: Mapping[str, Json], output: Path) -> None:
    """Refuses to resume another recipe's run, and warns of whatever else differs.

    Args:
        before: config that the run was started with.
        now: config that it is to go on with.
        output: the run directory, for messages.

    Raises:
        ValueError: if the recipes have different names.

    Example:
        >>> compare_configs({"recipe": "a.py"}, {"recipe": "b.py"}, Path("runs/a"))
        Traceback (most recent call last):
            ...
        ValueError: runs/a is a run of 'a.py'; it cannot be resumed with 'b.py'. Give another ...
    """
    # By name: a recipe is the same where it lies in another folder of another host.
    if Path(str(before.get("recipe"))).name != Path(str(now.get("recipe"))).name:
        raise ValueError(
            f"{output} is a run of '{before.get('recipe')}'; it cannot be resumed with"
            f" '{now.get('recipe')}'. Give another --output."
        )
    for name in _DECISIVE:
        if before.get(name) != now.get(name):
            log.warning(
                "%s was started with %s %s and is resumed with %s: it will not be the run, to the"
                " bit, that it would have been",
                output,
                name,
                before.get(name),
                now.get(name),
            )


def restore(model: "keras.Model", models: Path, trained: Trained, world: World) -> None:
    """Gives a model the state that a run was left with.

    The other ranks get weights and optimizer from the root when training begins, so that they need
    not see the file.

    Args:
        model: the model, compiled and distributed; changed in place.
        models: folder of the run's models; only the root reads it.
        trained: how far the run has come.
        world: ranks that train.
    """
    # The optimizer makes its variables at the first step; the file's can only be loaded into them.
    model.optimizer.build(model.trainable_variables)
    if world.is_root:
        load_state(model, models, trained)
        if trained.size != world.size and trained.learning_rate is not None:
            # It was scaled to the ranks of then.
            scale = world.size / trained.size
            model.optimizer.learning_rate = float(model.optimizer.learning_rate) * scale
    if trained.size == world.size:
        set_seed_states(model, trained.seeds[world.rank])
    else:
        set_seed_states(model, trained.seeds[0])
        separate_seeds(model, world.rank)


def _warn_of_damage(output: Path) -> None:
    for problem in verify(output)[:3]:
        log.warning("%s: %s; `hvd-xai verify %s` tells more", problem.path, problem.what, output)
