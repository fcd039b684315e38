from pathlib import Path

import numpy as np
import pytest

from hvd_xai import Explain, Probe, RunDirectory, Training, World
from hvd_xai.lookup.recipes import load_recipe
from hvd_xai.protocols import Silent
from tests import models_under_test as models

RECIPE = load_recipe("explain_every_epoch", "callbacks", ["build"])


@pytest.mark.parametrize("shape", [(8, 8, 1), (30,)])
def test_it_builds_for_images_and_for_tables(shape: tuple[int, ...], tmp_path: Path) -> None:
    probe = Probe(np.zeros((4, *shape), np.float32), np.zeros(4, np.int32))
    training = Training(World.alone(), probe, RunDirectory(tmp_path / "run"), 5, Silent())
    (callback,) = RECIPE.functions["build"](training, n_steps=3, every=2)
    assert isinstance(callback, Explain)
    assert callback.every == 2
    assert not (tmp_path / "run").exists()


def test_named_methods_keep_their_options(tmp_path: Path) -> None:
    probe = Probe(np.zeros((4, 8, 8, 1), np.float32), np.zeros(4, np.int32))
    training = Training(World.alone(), probe, RunDirectory(tmp_path / "run"), 5, Silent())
    (callback,) = RECIPE.functions["build"](
        training, methods=("integrated_gradients", "grad_cam"), n_steps=2, layer="conv"
    )
    estimates = callback.estimate(models.functional())
    assert [one.method for one in estimates] == ["integrated_gradients", "grad_cam"]
    assert all(one.n_rows == 4 for one in estimates)
    (callback,) = RECIPE.functions["build"](training, methods=("grad_cam",), layer="nowhere")
    with pytest.raises(ValueError, match="`grad_cam` finds no layer 'nowhere'"):
        callback.estimate(models.functional())
