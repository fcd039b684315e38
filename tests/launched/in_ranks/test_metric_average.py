"""Metrics of an epoch are those of the examples of all ranks."""

import keras
import numpy as np
import pytest

import hvd_xai.keras as hvd
from hvd_xai.ranks.world import World
from tests.launched.fitting import first_callbacks


def test_metrics_are_those_of_all_examples_even_over_uneven_shards(world: World) -> None:
    keras.utils.set_random_seed(3)
    random = np.random.default_rng(3)
    x, y = (
        random.normal(size=(48, 5)).astype("float32"),
        random.integers(0, 2, 48).astype("float32"),
    )
    edges = np.cumsum([0, *[4 + 2 * rank for rank in range(world.size - 1)], 48])[: world.size + 1]
    edges[-1] = 48
    mine = slice(edges[world.rank], edges[world.rank + 1])
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1, activation="sigmoid")])
    model.compile(
        hvd.DistributedOptimizer(keras.optimizers.SGD(0.0)),
        "mse",
        metrics=["accuracy", keras.metrics.AUC(name="auc")],
    )
    expected = dict(zip(["loss", "accuracy", "auc"], model.evaluate(x, y, verbose=0), strict=True))
    history = model.fit(
        x[mine],
        y[mine],
        batch_size=64,
        validation_data=(x[mine], y[mine]),
        epochs=2,
        verbose=0,
        callbacks=first_callbacks(),
    ).history
    for epoch in range(2):
        for name, value in expected.items():
            assert history[name][epoch] == pytest.approx(value, abs=1e-6)
            assert history[f"val_{name}"][epoch] == pytest.approx(value, abs=1e-6)
