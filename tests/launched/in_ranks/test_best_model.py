"""The best model is saved once."""

from pathlib import Path

import hvd_xai.keras as hvd
from hvd_xai.ranks.world import World
from tests.launched.fitting import fit_scripted, loss_on


def test_the_best_model_is_saved_by_the_root_alone(world: World, tmp_path: Path) -> None:
    best = hvd.callbacks.BestModelCheckpoint(
        "loss", 0, False, "min", "epoch", filepath=tmp_path / "{epoch}.keras"
    )
    fit_scripted(world, loss_on(world), [best], epochs=5)
    assert sorted(path.name for path in tmp_path.iterdir()) == (
        ["1.keras", "2.keras", "3.keras"] if world.is_root else []
    )
