"""What a job lost is explained again by all ranks together, or by none."""

from pathlib import Path

import keras
import numpy as np

from hvd_xai import Probe, open_explanations
from hvd_xai.checkpoint.run_directory import Mode, RunDirectory
from hvd_xai.explain.compiled_methods import CompiledMethods
from hvd_xai.explain.lost_epochs import Beginning, explain_lost
from hvd_xai.explain.runner import Runner
from hvd_xai.lookup.resolve import resolve
from hvd_xai.ranks.world import World
from hvd_xai.recording.recorder import Recording


def test_an_epoch_is_explained_again_only_if_all_ranks_have_its_weights(
    world: World, tmp_path: Path
) -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    inputs = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    probe = Probe(inputs, np.arange(5) % 2)

    def begin(mode: Mode) -> tuple[Runner, RunDirectory]:
        run = RunDirectory(tmp_path / "run", mode=mode)
        compiled = CompiledMethods(model, probe, resolve(["saliency"]))
        return Runner(compiled, world=world, run=run, recording=Recording(overlap=False)), run

    first, _ = begin("new")
    first.run(0, 5)
    first.close()
    # 5 updates in an epoch, of which 10 are done: the weights at hand are those of epoch 1.
    again, run = begin("resume")
    explain_lost(again, run, Beginning(2, 10, 5), every=1, world=world)
    # Epoch 2 is lost as well, and only the root has its weights.
    if not world.is_root:
        model.set_weights([weight + 1 for weight in model.get_weights()])
    explain_lost(again, run, Beginning(3, 15, 5), every=1, world=world)
    again.close()
    if world.is_root:
        explanations = open_explanations(tmp_path / "run")
        assert explanations.epochs == ([0, 1, 2] if world.size == 1 else [0, 1])
        assert explanations.gaps == ({} if world.size == 1 else {"saliency": [2]})
