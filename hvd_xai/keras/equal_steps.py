"""Agrees on the number of steps in an epoch, which must be the same on all ranks."""

from typing import Literal

from hvd_xai.ranks.world import World


def agree_steps(
    world: World, n_steps: int | None, *, uneven: Literal["refuse", "min", "max"] = "refuse"
) -> int | None:
    """Returns the steps of an epoch that all ranks take. Collective: every rank must call this.

    Call it before `fit` where each rank reads data of its own, and pass the result to `fit` as
    `steps_per_epoch`, with a dataset that repeats. With "min" the last batches of the longer ranks
    wait for a later epoch; with "max" the shorter ranks begin their data anew. To count every batch
    once, use `join_batches` instead.

    Args:
        world: ranks that train together.
        n_steps: number of batches that this rank has for an epoch; None if it is not known.
        uneven: what happens where the ranks differ: "refuse" raises, "min" takes the smallest
            number, "max" the largest.

    Returns:
        The number of steps, the same on every rank; None if a single rank does not know its own.

    Raises:
        ValueError: on every rank, naming the ranks' numbers, if they differ and `uneven` is
            "refuse", or if one of several ranks does not know its own. Ranks that take unequal
            steps wait for each other for ever, or mix one rank's epoch with another's.

    Example:
        >>> import hvd_xai.keras as hvd
        >>> hvd.agree_steps(hvd.init(), 12, uneven="min")
        12
    """
    counts = world.allgather("counting the batches of an epoch", n_steps)
    known = [count for count in counts if count is not None]
    said = ", ".join(
        f"rank {rank}: {'unknown' if count is None else count}" for rank, count in enumerate(counts)
    )
    error = None
    if len(known) < len(counts) and world.size > 1:
        error = ValueError(
            f"it is not known how many batches an epoch has ({said}), as for a generator and a"
            " dataset that is filtered or repeated; ranks that end it at different batches would"
            " wait for each other for ever. Pass steps_per_epoch to fit, the same on all ranks."
        )
    elif len(set(counts)) > 1 and uneven == "refuse":
        error = ValueError(
            f"the ranks have different numbers of batches an epoch ({said}). Pass"
            f" steps_per_epoch={min(known)} to fit, or give each rank the same number of rows, as"
            " `hvd_xai.keras.shard` does."
        )
    # All ranks hold the same error, and raise it as it is.
    world.agree("comparing the batches of an epoch", error)
    if not known:
        return None
    return max(known) if uneven == "max" else min(known)
