"""Compares the ranks' models before anything is broadcast."""

from collections.abc import Sequence
from itertools import zip_longest

import keras
import tensorflow as tf
import xxhash

from hvd_xai.ranks.world import World


def check_same_model(world: World, variables: "Sequence[keras.Variable | tf.Variable]") -> None:
    """Raises on every rank unless all ranks' variables match in number, shape and dtype.

    Collective: every rank must call this. Horovod waits for ever for a variable that one rank does
    not have, and fails obscurely on one of another shape.

    Args:
        world: ranks that are to hold the same model.
        variables: this rank's variables.

    Raises:
        ValueError: on every rank, with the first variable that differs.
    """
    # Without the names: Keras counts the layers of a process, and a rank may have built others
    # before.
    mine = [f"{tuple(variable.shape)} {variable.dtype}" for variable in variables]
    phase = "comparing the models"
    # First the digests, which are small and nearly always equal.
    digests = world.allgather(phase, xxhash.xxh3_128_hexdigest("\n".join(mine).encode()))
    if len(set(digests)) == 1:
        return
    named = [
        # TensorFlow's own variables have no path
        f"'{getattr(variable, 'path', variable.name)}' {shape}"
        for variable, shape in zip(variables, mine, strict=True)
    ]
    models = world.allgather(phase, (mine, named))
    rank = next(rank for rank, (theirs, _) in enumerate(models) if theirs != models[0][0])
    both = zip_longest(models[0][0], models[rank][0])
    index = next(index for index, (ours, theirs) in enumerate(both) if ours != theirs)
    here, there = (
        (model[1][index] if index < len(model[1]) else "nothing")
        for model in (models[0], models[rank])
    )
    world.agree(
        phase,
        ValueError(
            f"the ranks hold different models: rank 0 has {here} where rank {rank} has {there}."
            " Build one model."
        ),
    )
