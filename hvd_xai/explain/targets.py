"""Targets of a data set that has none, where what is explained does not depend on them: what the
model predicts.
"""

from collections.abc import Sequence
from dataclasses import replace

import keras
import numpy as np

from hvd_xai.compute.predict import Predict
from hvd_xai.lookup.resolve import Method
from hvd_xai.probe.probe import Probe
from hvd_xai.ranks.shares import shares
from hvd_xai.ranks.world import World
from hvd_xai.tracing import micro_batches


def predict_targets(
    model: keras.Model, probe: Probe, methods: Sequence[Method], *, world: World
) -> Probe:
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
        predict = Predict(
            model,
            score=methods[0].recorded_score,
            micro_batch=micro_batches.fitting(probe.inputs.shape[1:]),
        )
        mine = predict(probe.inputs[start:stop], np.zeros(stop - start, np.int64)).predictions
    received = np.diff(edges).tolist()
    targets = world.exchange_rows(
        "gathering the targets", np.tile(mine, world.size), [len(mine)] * world.size, received
    )
    return replace(probe, targets=targets)
