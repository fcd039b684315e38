"""`hvd-xai explain` explains every model that the library explains."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai import open_explanations
from hvd_xai.cli.main import main

N = 5
RANDOM = np.random.default_rng(0)
X, Z = RANDOM.normal(size=(N, 4)).astype("f4"), RANDOM.normal(size=(N, 2)).astype("f4")
TARGETS = np.arange(N) % 2

OWN = """
import keras

class Own(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.dense = keras.layers.Dense(2, "softmax")

    def call(self, inputs):
        return self.dense(inputs)
"""


@pytest.fixture
def explain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs `hvd-xai explain` by saliency in this process; returns what it said as it ended."""
    logger = logging.getLogger("hvd_xai")  # which the command sets up
    for name in ("propagate", "handlers", "level"):
        monkeypatch.setattr(logger, name, getattr(logger, name))
    # a copy, for the command changes the list itself
    monkeypatch.setattr(logger, "handlers", [*logger.handlers])

    def explain(model: keras.Model, *words: str, **arrays: Any) -> str:
        model.save(tmp_path / "model.keras")
        np.savez(tmp_path / "data.npz", **arrays)
        names = [str(tmp_path / name) for name in ("model.keras", "data.npz")]
        more = ["--method", "saliency", "--overwrite", "-o", str(tmp_path / "run"), *words]
        monkeypatch.setattr(sys, "argv", ["hvd-xai", "explain", *names, *more])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capfd.readouterr()
        return said.out if not ended.value.code else said.err

    return explain


def _attributions(tmp_path: Path) -> np.ndarray:
    return open_explanations(tmp_path / "run").explanation(0, "saliency").attributions()


def _gradients(model: keras.Model, inputs: list[np.ndarray], head: int | None) -> np.ndarray:
    """The gradients of each target's output, inputs side by side, from a tape by hand."""
    tensors = [tf.constant(values) for values in inputs]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        outputs = model(tensors if len(tensors) > 1 else tensors[0])
        of_head = outputs if head is None else outputs[head]
        chosen = tf.gather(of_head, TARGETS, batch_dims=1)
    return np.concatenate(tape.gradient(chosen, tensors), axis=1)


def test_one_of_several_outputs_is_chosen_by_an_option_of_the_score(
    tmp_path: Path, explain: Callable[..., str]
) -> None:
    inputs = keras.Input((4,))
    outputs = [keras.layers.Dense(2, "tanh")(inputs), keras.layers.Dense(3, "tanh")(inputs)]
    model = keras.Model(inputs, outputs)
    assert "give --set score.head= one of 0, 1" in explain(model, inputs=X, targets=TARGETS)
    said = explain(model, "--set", "head=1", inputs=X, targets=TARGETS)
    assert "did you mean 'score.head'?" in said
    assert "5 samples are explained" in explain(
        model, "--set", "score.head=1", inputs=X, targets=TARGETS
    )
    np.testing.assert_allclose(
        _attributions(tmp_path), _gradients(model, [X], head=1), rtol=1e-3, atol=1e-6
    )


def test_a_model_of_several_inputs_takes_an_array_for_each(
    tmp_path: Path, explain: Callable[..., str]
) -> None:
    first, second = keras.Input((4,), name="x"), keras.Input((2,), name="z")
    both = keras.layers.Concatenate()([first, second])
    model = keras.Model([first, second], keras.layers.Dense(2, "tanh")(both))
    said = explain(model, inputs=X, targets=TARGETS)
    assert "no array 'x', 'z'; the model takes 'x' (None, 4), 'z' (None, 2): give one" in said
    assert "5 samples are explained" in explain(model, x=X, z=Z, targets=TARGETS)
    np.testing.assert_allclose(
        _attributions(tmp_path), _gradients(model, [X, Z], head=None), rtol=1e-3, atol=1e-6
    )
    assert "5 samples are explained" in explain(model, "--set", "score=predicted", x=X, z=Z)


def test_a_subclassed_model_is_explained(tmp_path: Path, explain: Callable[..., str]) -> None:
    (tmp_path / "own.py").write_text(OWN)
    namespace: dict[str, Any] = {"__name__": "own"}
    exec(OWN, namespace)  # the model as the script that trained it had it
    model = namespace["Own"]()
    model(X)
    objects = ("--custom-objects", str(tmp_path / "own.py"))
    assert "5 samples are explained" in explain(model, *objects, inputs=X, targets=TARGETS)
    np.testing.assert_allclose(
        _attributions(tmp_path), _gradients(model, [X], head=None), rtol=1e-3, atol=1e-6
    )


def test_code_that_a_model_carries_runs_only_if_it_is_trusted(
    tmp_path: Path, explain: Callable[..., str]
) -> None:
    double = keras.layers.Lambda(lambda x: 2 * x)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2), double])
    assert "add --unsafe-models" in explain(model, inputs=X, targets=TARGETS)
    said = explain(model, "--unsafe-models", "--precision", "bfloat16", inputs=X, targets=TARGETS)
    assert "5 samples are explained" in said
    manifest = open_explanations(tmp_path / "run").explanation(0, "saliency").manifest
    assert manifest.precision == "bfloat16"
    assert "precision must be 'bfloat16'" in explain(
        model, "--unsafe-models", "--precision", "float64", inputs=X, targets=TARGETS
    )
