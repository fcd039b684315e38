"""Finds out whether all ranks write to the same filesystem as the root."""

import secrets
import shutil
from pathlib import Path

from hvd_xai.ranks.world import World
from hvd_xai.storage.durable import STAGING, writing

_PHASE = "finding out who shares the filesystem"


def find_ranks_apart(world: World, folder: Path) -> list[int]:
    """Returns the ranks that cannot write into a folder of the root.

    Collective: every rank must call this.

    Args:
        world: the ranks.
        folder: folder that exists on the root; each rank looks for it under the same path.

    Raises:
        PeerError: on every rank, if the root itself cannot write there.

    Example:
        >>> find_ranks_apart(World.alone(), Path("."))
        []
    """
    # a new name each time: a network filesystem remembers for a while that it did not find a name,
    # and a folder of another job is no proof. The prefix keeps readers away, and lets a later job
    # sweep the folder if this one dies here.
    trial = folder / world.from_root(_PHASE, f"{STAGING}{secrets.token_hex(8)}")
    with world.together(_PHASE):
        if world.is_root:
            with writing(folder):
                trial.mkdir()
    can_write = True
    try:
        (trial / str(world.rank)).touch()
    except OSError:
        can_write = False
    answers = world.allgather(_PHASE, can_write)
    with world.together(_PHASE):
        if world.is_root:
            with writing(folder):
                shutil.rmtree(trial)
    return [rank for rank, answer in enumerate(answers) if not answer]
