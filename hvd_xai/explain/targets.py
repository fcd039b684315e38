"""Takes the model's predictions as the targets of a data set that has none."""

from dataclasses import replace

import keras
import numpy as np

from hvd_xai.compute.predict import Predict
from hvd_xai.explain.share import ProbeShare
from hvd_xai.probe.probe import Probe
from hvd_xai.protocols import Score
from hvd_xai.ranks.world import World
from hvd_xai.tracing import micro_batches
from hvd_xai.tracing.packed_model import accept_packed


def predict_targets(
    model: "keras.Model", probe: Probe, score: str | Score, *, world: World
) -> Probe:
    """Returns the probe with the model's predictions, class ids or values, as targets.

    Collective: every rank must call this. Each rank predicts its share.

    Args:
        model: built Keras model.
        probe: examples to predict; their targets are ignored.
        score: score that will be explained; if the model returns several arrays, it says which of
            them holds the predictions.
        world: ranks that share the work.

    Raises:
        PeerError: on all ranks, if the inputs do not fit the model.

    Example:
        >>> predicted = predict_targets(model, probe, "predicted", world=world).targets
        >>> np.array_equal(predicted, model.predict(inputs, verbose=0).argmax(axis=1))
        True
    """
    share = ProbeShare.cut(probe, world)
    with world.together("predicting the targets"):
        predict = Predict(
            accept_packed(model, probe.packing),
            score=score,
            micro_batch=micro_batches.propose_size(probe.inputs.shape[1:]),
        )
        inputs, _, _ = share.examples()
        mine = predict(inputs, np.zeros(len(share), np.int64)).predictions
    # Every rank sends its predictions to every rank, itself included: `tile` makes one copy for
    # each receiver.
    targets = world.exchange_rows(
        "gathering the targets",
        np.tile(mine, world.size),
        [len(mine)] * world.size,
        [rows.stop - rows.start for rows in share.ranks],
    )
    return replace(probe, targets=targets)
