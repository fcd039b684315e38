"""What was stored is computed again, or an error says why it cannot be."""

from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest

from hvd_xai import open_explanations
from hvd_xai.attributions.grad_cam import grad_cam
from hvd_xai.attributions.integrated_gradients import integrated_gradients
from hvd_xai.attributions.smoothgrad import smoothgrad
from hvd_xai.checkpoint.reader import Explanations
from hvd_xai.errors import CheckpointError
from hvd_xai.explain.once import explain
from hvd_xai.explain.recompute import recompute
from hvd_xai.probe.probe import Probe
from hvd_xai.protocols import Methods
from hvd_xai.provenance import git_commit
from hvd_xai.ranks.world import World
from tests.models_under_test import functional

EPOCH = 2


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return functional()


@pytest.fixture(scope="module")
def run(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = np.random.default_rng(0)
    probe = Probe(generator.random((23, 8, 8, 1), np.float32), np.arange(23) % 3, np.arange(23) * 3)
    folder = tmp_path_factory.mktemp("recompute")
    model.save(folder / "model.keras")
    of_path = partial(integrated_gradients, n_steps=6, rule="gauss_legendre")
    methods: Methods = {
        "integrated_gradients": of_path,
        "from_mean": partial(of_path, baseline="mean"),
        "grad_cam": grad_cam,
        "smooth": partial(smoothgrad, n_samples=2),
    }
    explain(model, probe, methods, world=World.alone(), run=folder / "run", epoch=EPOCH)
    return folder


@pytest.fixture
def explanations(run: Path) -> Explanations:
    return open_explanations(run / "run")


@pytest.mark.parametrize("method", ["integrated_gradients", "from_mean", "grad_cam", "smooth"])
def test_samples_come_out_again_to_the_bit(
    model: keras.Model, explanations: Explanations, method: str
) -> None:
    probe = explanations.probe()
    assert probe is not None
    found = recompute(model, explanations.explanation(EPOCH, method), probe, [3, 42, 21])
    assert [one.sample_id for one in found] == [3, 42, 21]
    assert all(one.matches and one.is_bit_equal for one in found)


def test_the_likelier_of_two_classes_comes_out_again(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, activation="sigmoid")])
    probe = Probe(np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32), np.arange(8) % 2)
    explain(model, probe, ["saliency"], world=World.alone(), run=tmp_path)
    explanations = open_explanations(tmp_path)
    stored = explanations.probe()
    assert stored is not None
    # samples of one class alone do not say that there are two
    assert all(
        one.matches and one.is_bit_equal
        for one in recompute(model, explanations.explanation(0, "saliency"), stored, [1, 3])
    )


def test_every_manifest_names_the_commit_of_the_code(explanations: Explanations) -> None:
    commits = [explanation.manifest.git_commit for explanation in explanations]
    assert set(commits) == {git_commit()}
    assert explanations.config["git_commit"] == commits[0]


def test_another_model_is_refused(explanations: Explanations) -> None:
    other = functional()
    other.layers[-1].bias.assign([1.0, 0.0, 0.0])
    probe = explanations.probe()
    assert probe is not None
    with pytest.raises(CheckpointError, match="explains other weights than this model has"):
        recompute(other, explanations.explanation(EPOCH, "grad_cam"), probe, [3])
