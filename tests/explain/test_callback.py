"""The callback explains the epochs that it should, and leaves training as it is."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from hvd_xai.checkpoint.run_directory import RunDirectory
from hvd_xai.explain.callback import Explain
from hvd_xai.probe.probe import Probe
from hvd_xai.ranks.world import World

X = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
Y = np.arange(8) % 2
PROBE = Probe(X, Y)


def fit(
    explain: Explain | None, *callbacks: keras.callbacks.Callback, epochs: int = 5
) -> tuple[keras.Model, dict[str, list[float]]]:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    every = [*([explain] if explain else []), *callbacks]
    return model, model.fit(X, Y, batch_size=4, epochs=epochs, verbose=0, callbacks=every).history


def explain_with(run: Path, method: str = "saliency", every: int = 1) -> Explain:
    return Explain(PROBE, [method], world=World.alone(), run=run, every=every)


def on_epoch_end(act: Callable[[keras.Model, int, Explain], None], explain: Explain) -> object:
    class Act(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            act(self.model, epoch, explain)

    return Act()


@pytest.mark.parametrize(("every", "epochs"), [(1, [0, 1, 2, 3, 4]), (2, [1, 3, 4]), (9, [4])])
def test_every_nth_epoch_is_explained_and_the_last(
    tmp_path: Path, every: int, epochs: list[int]
) -> None:
    fit(explain_with(tmp_path, every=every))
    assert RunDirectory(tmp_path).explanations().epochs == epochs


def test_training_goes_on_unchanged(tmp_path: Path) -> None:
    (with_it, explained), (without, plain) = fit(explain_with(tmp_path)), fit(None)
    assert explained == plain
    np.testing.assert_equal(with_it.get_weights(), without.get_weights())


def test_a_metric_with_a_value_for_each_class_is_a_list_in_the_manifest(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="softmax")])
    model.compile("sgd", "categorical_crossentropy", metrics=[keras.metrics.F1Score(name="f1")])
    logs = model.fit(
        X, np.eye(2, dtype="float32")[Y], verbose=0, callbacks=[explain_with(tmp_path)]
    ).history
    metrics = RunDirectory(tmp_path).explanations().explanation(0, "saliency").manifest.metrics
    assert metrics == {"loss": logs["loss"][0], "f1": logs["f1"][0].tolist()}


def test_the_mean_convergence_delta_is_logged(tmp_path: Path) -> None:
    explain = explain_with(tmp_path, "integrated_gradients")
    _, history = fit(explain, epochs=2)
    assert len(history["convergence_delta"]) == 2
    assert explain.summary is not None
    assert history["convergence_delta"][-1] == explain.summary.convergence_delta.popitem()[1]


def test_an_early_stop_is_explained_with_the_weights_it_ends_with(tmp_path: Path) -> None:
    def stop(model: keras.Model, epoch: int, _: Explain) -> None:
        model.stop_training = epoch == 2

    explain = explain_with(tmp_path, every=2)
    fit(explain, on_epoch_end(stop, explain))
    run = RunDirectory(tmp_path).explanations()
    assert run.epochs == [1, 2]
    assert run.explanation(2, "saliency").manifest.step == 6


def test_an_epoch_that_is_not_explained_has_no_summary(tmp_path: Path) -> None:
    seen: list[bool] = []
    explain = explain_with(tmp_path, every=2)
    note = on_epoch_end(lambda _model, _epoch, of: seen.append(of.summary is not None), explain)
    fit(explain, note, epochs=4)
    assert seen == [False, True, False, True]
    assert explain.has_settled(3)


def test_a_sink_that_cannot_be_called_is_refused_before_training(tmp_path: Path) -> None:
    def log_picture(explanation: object) -> None: ...

    with pytest.raises(TypeError, match=r"called with \(run, explanation\); 'log_picture' takes"):
        Explain(
            PROBE,
            ["saliency"],
            world=World.alone(),
            run=tmp_path / "run",
            sinks=[log_picture],  # type: ignore[list-item]  # what people write
        )


def test_a_broken_interval_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="every must be 1 or more epochs; got 0"):
        explain_with(tmp_path, every=0)
    assert not list(tmp_path.iterdir())
