"""Targets of a data set that has none, where what is explained does not depend on them: what the
model predicts.
"""

from dataclasses import replace

import keras
import numpy as np

from hvd_xai import scores
from hvd_xai.compute.attribute import Compute
from hvd_xai.compute.predict import Predict
from hvd_xai.explain.runner import named, shares
from hvd_xai.probe.probe import Probe
from hvd_xai.protocols import Methods
from hvd_xai.ranks.world import World
from hvd_xai.tracing import micro_batches


def need_targets(model: keras.Model, methods: Methods) -> bool:
    """Whether what any of the methods explains depends on the targets; functions of one's own are
    taken to read them.

    Raises:
        RecipeError: as `named`.
        TypeError: as `Compute`.
        ValueError: likewise.
    """
    return any(
        scores.reads_targets(Compute(model, method).score) for method in named(methods).values()
    )


def predict_targets(model: keras.Model, probe: Probe, methods: Methods, *, world: World) -> Probe:
    """Returns the probe with the model's predictions for targets: class ids, or the values of a
    model of one output.

    Each rank predicts its share. Collective: every rank must call this.

    Args:
        model: a built Keras model.
        probe: the examples; its targets are not looked at.
        methods: what they will be explained with; the first one's score says which of several
            arrays the model predicts with.
        world: the ranks.

    Raises:
        PeerError: on all ranks, if the inputs do not fit the model.
    """
    edges = shares(probe, world.size)
    start, stop = edges[world.rank : world.rank + 2]
    with world.together("predicting the targets"):
        score = Compute(model, next(iter(named(methods).values()))).score
        predict = Predict(
            model, score=score, micro_batch=micro_batches.fitting(probe.inputs.shape[1:])
        )
        mine = predict(probe.inputs[start:stop], np.zeros(stop - start, np.int64)).predictions
    received = np.diff(edges).tolist()
    targets = world.exchange_rows(
        "gathering the targets", np.tile(mine, world.size), [len(mine)] * world.size, received
    )
    return replace(probe, targets=targets)
