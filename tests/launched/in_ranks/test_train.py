"""`train` refuses some runs, warns of others, and leaves a failed run as it should."""

import dataclasses
import threading
from pathlib import Path

import keras
import numpy as np
import pytest

from hvd_xai import Data, Explain, Probe, Training, open_explanations
from hvd_xai.attributions.saliency import saliency
from hvd_xai.errors import CheckpointError, PeerError
from hvd_xai.keras.model_files import read_trained
from hvd_xai.lookup.recipes import Recipe
from hvd_xai.ranks.world import World
from hvd_xai.train.fit import train
from hvd_xai.train.settings import Settings


def _build(*, units: int = 3) -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(units),
            keras.layers.Dropout(0.1),
            keras.layers.Dense(2),
        ]
    )
    model.compile(
        keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return model


def _load() -> Data:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(24, 4)).astype("float32"), random.integers(0, 2, 24).astype("int32")
    return Data(train=(x, y), validation=(x, y), probe=Probe(x[:4], y[:4]), batch_size=4)


RECIPE = Recipe("tiny", "tiny.py", {"build": _build, "load": _load})


@pytest.fixture(scope="module")
def run(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a run of two epochs in one folder, which the root tells to all ranks."""
    mine = str(tmp_path_factory.mktemp("run") / "run")
    shared = Path(str(world.allgather("testing", mine)[0]))
    train(RECIPE, [], shared, world=world, settings=Settings(epochs=2))
    return shared


def _weights(model: keras.Model) -> list[list[float]]:
    return [weight.tolist() for weight in model.get_weights()]


def test_fewer_epochs_than_are_done_are_refused(world: World, run: Path) -> None:
    with pytest.raises(ValueError, match="has 2 epochs already, more than the 1 asked for"):
        train(RECIPE, [], run, world=world, settings=Settings(epochs=1, mode="resume"))


def test_another_recipe_is_refused(world: World, run: Path) -> None:
    other = dataclasses.replace(RECIPE, name="other", source="other.py")
    with pytest.raises(
        PeerError if world.size > 1 else ValueError,
        match=r"a run of 'tiny.py'; it cannot be resumed with 'other.py'",
    ):
        train(other, [], run, world=world, settings=Settings(epochs=3, mode="resume"))


def test_a_model_that_has_changed_is_refused_and_other_options_are_named(
    world: World, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(epochs=3, mode="resume", seed=1, options={"tiny.build": {"units": 5}})
    with pytest.raises(
        PeerError if world.size > 1 else CheckpointError, match="another than the recipe now builds"
    ):
        train(RECIPE, [], run, world=world, settings=settings)
    if world.is_root:
        assert "was started with seed 0 and is resumed with 1" in caplog.text
        assert "was started with options {} and is resumed with" in caplog.text


def test_a_torn_model_file_is_refused(world: World, run: Path, tmp_path: Path) -> None:
    torn = tmp_path / "run"
    (torn / "models").mkdir(parents=True)
    (torn / "models" / "epoch-000001.keras").write_bytes(
        (run / "models" / "epoch-000001.keras").read_bytes()[:-100]
    )
    with pytest.raises(
        PeerError if world.size > 1 else CheckpointError, match=r"damaged.*--overwrite"
    ):
        train(RECIPE, [], torn, world=world, settings=Settings(epochs=3, mode="resume"))


def test_a_run_that_is_started_anew_forgets_the_models_of_the_old(
    world: World, run: Path, tmp_path: Path
) -> None:
    again = tmp_path / "run"
    if world.is_root:
        (again / "models").mkdir(parents=True)
        (again / "models" / "epoch-000007.keras").write_bytes(b"of another run")
    first = train(RECIPE, [], again, world=world, settings=Settings(epochs=1, mode="overwrite"))
    assert [path.name for path in again.glob("models/*")] == (
        ["epoch-000000.keras"] if world.is_root else []
    )
    resumed = train(RECIPE, [], again, world=world, settings=Settings(epochs=2, mode="resume"))
    whole = train(RECIPE, [], tmp_path / "whole", world=world, settings=Settings(epochs=2))
    assert _weights(resumed) == _weights(whole) != _weights(first)


def test_without_a_warmup_all_batches_train_at_the_full_learning_rate(
    world: World, tmp_path: Path
) -> None:
    model = train(
        RECIPE, [], tmp_path / "run", world=world, settings=Settings(epochs=1, warmup_epochs=0.0)
    )
    assert float(model.optimizer.learning_rate) == pytest.approx(0.01 * world.size)


@pytest.mark.filterwarnings("ignore:.*was called on layer:UserWarning")
def test_a_subclassed_model_that_only_calls_itself_built_trains_and_resumes(
    world: World, tmp_path: Path
) -> None:
    class Subclassed(keras.Model):  # type: ignore[misc]  # keras ships no types
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def call(self, inputs: object) -> object:
            return self.dense(inputs)

    def build() -> keras.Model:
        model = Subclassed()
        model.build((None, 4))
        model.compile(
            keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
        return model

    recipe = Recipe("subclassed", "subclassed.py", {"build": build, "load": _load})
    shared = Path(str(world.allgather("testing", str(tmp_path / "run"))[0]))
    before = train(recipe, [], shared, world=world, settings=Settings(epochs=1)).get_weights()
    after = train(
        recipe, [], shared, world=world, settings=Settings(epochs=2, mode="resume")
    ).get_weights()
    assert not np.array_equal(before[0], after[0])


def test_an_error_of_all_ranks_leaves_the_last_epochs_explanation_and_model(
    world: World, tmp_path: Path
) -> None:
    shared = Path(str(world.allgather("testing", str(tmp_path / "run"))[0]))
    failing = threading.Event()

    class Fail(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
        def __init__(self, explain: Explain) -> None:
            super().__init__()
            self._explain, self._epoch = explain, 0

        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            self._epoch = epoch
            if epoch == 0 and self._explain._runner:  # nothing is written before the error
                self._explain._runner._recorder._thread.submit(failing.wait, 60)

        def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
            if self._epoch == 1 and batch == 1:
                failing.set()
                with world.together("testing"):
                    raise ValueError("enough")

    def build(training: Training) -> list[keras.callbacks.Callback]:
        explain = Explain(training.probe, [saliency], world=training.world, run=training.run)
        return [explain, Fail(explain)]

    with pytest.raises(ValueError, match="enough"):
        train(
            RECIPE,
            [Recipe("fails", "fails.py", {"build": build})],
            shared,
            world=world,
            settings=Settings(epochs=2),
        )
    assert open_explanations(shared).epochs == [0]
    if world.is_root:
        trained = read_trained(shared / "models")
        assert trained is not None
        assert trained.epoch == 0
