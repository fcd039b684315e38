"""Ranks whose models compute differently with the same weights are told which layer does."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import hvd_xai.keras as hvd
from hvd_xai import Explain, Probe
from hvd_xai.explain.same_outputs import check_same_outputs
from hvd_xai.ranks.world import World
from tests.launched.fitting import first_callbacks

layers = keras.layers
PROBE = Probe(np.ones((3, 5), "float32"), np.zeros(3, int))


class Own(keras.layers.Layer):  # type: ignore[misc]  # keras ships no types
    """Computes with a number that is no weight."""

    def __init__(self, factor: float, **options: Any) -> None:
        super().__init__(**options)
        self.factor = factor

    def call(self, x: Any) -> Any:
        """Multiplies."""
        return x * self.factor


class Always(keras.layers.Layer):  # type: ignore[misc]  # as above
    """Drops out in inference too."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.dropout = layers.Dropout(0.5, seed=seed)

    def call(self, x: Any) -> Any:
        """Drops out."""
        return self.dropout(x, training=True)


def _model(*within: Any) -> keras.Model:
    keras.utils.set_random_seed(0)
    inside = keras.Sequential(
        [keras.Input((4,)), layers.Activation("tanh"), *within], name="inside"
    )
    return keras.Sequential(
        [keras.Input((5,)), layers.Dense(4), inside, layers.Dense(3)], name="whole"
    )


def test_the_first_layer_that_computes_otherwise_is_named(world: World) -> None:
    check_same_outputs(_model(Own(1.0)), PROBE, world)
    if world.size > 1:
        with pytest.raises(ValueError, match=r"outputs differ is 'whole[\w/]*/odd'"):
            check_same_outputs(_model(Own(1.0 + world.rank, name="odd")), PROBE, world)


def test_equal_hardware_gives_equal_bits_and_other_hardware_rounds(world: World) -> None:
    if world.size == 1:
        return
    almost = _model(Own(1.0 + 1e-6 * world.rank, name="odd"))
    elsewhere = f"hardware of rank {world.rank}"
    check_same_outputs(almost, PROBE, world, hardware=elsewhere)
    with pytest.raises(ValueError, match=r"'whole[\w/]*/odd'"):
        check_same_outputs(almost, PROBE, world, hardware="of all")
    other = _model(Own(1.0 + 0.01 * world.rank, name="odd"))
    with pytest.raises(ValueError, match=r"'whole[\w/]*/odd'"):
        check_same_outputs(other, PROBE, world, hardware=elsewhere)


def test_a_model_that_is_random_in_inference_is_not_refused(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    check_same_outputs(_model(Always(world.rank)), PROBE, world)
    if world.size > 1 and world.is_root:
        assert "gives other outputs each time" in caplog.text


def test_explain_refuses_before_anything_is_trained(world: World, tmp_path: Path) -> None:
    model = _model(Own(1.0 + world.rank, name="odd"))
    model.compile(hvd.DistributedOptimizer(keras.optimizers.SGD(0.1)), "mse")
    folder = world.from_root("naming the folder", str(tmp_path)) + "/run"
    explain = Explain(PROBE, ["saliency"], world=world, run=folder)
    if world.size > 1:
        with pytest.raises(ValueError, match=r"'whole[\w/]*/odd'"):
            model.fit(
                np.ones((4, 5)), np.ones((4, 3)), verbose=0, callbacks=[*first_callbacks(), explain]
            )
        assert int(model.optimizer.iterations) == 0
