"""Runs a small training that explains itself, in which a rank does something to itself at some
point.

`failing.py WHAT WHEN RUN RANK`.
"""

import sys
from pathlib import Path

import keras
import numpy as np

import hvd_xai.keras as hvd
from hvd_xai import Explain, Probe, Recording
from tests.launched.befalling import befall


class Fail(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
    """Fails on one rank in the second epoch."""

    def __init__(self, what: str, when: str) -> None:
        super().__init__()
        self._what, self._when = what, when

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        """Fails in the middle of training, after a third batch.

        At that batch the ranks do not ask each other what is written.
        """
        if (
            self._when == "training"
            and hvd.rank() == rank
            and int(self.model.optimizer.iterations) == 7
        ):
            befall(self._what, Path(run))

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        """Fails just before explaining, when the other ranks wait in our collective."""
        if self._when == "explaining" and hvd.rank() == rank and epoch == 1:
            befall(self._what, Path(run))


what, when, run = sys.argv[1:4]
rank = int(sys.argv[4])
world = hvd.init()
keras.utils.set_random_seed(0)
model = keras.Sequential(
    [
        keras.Input((4, 4, 1)),
        keras.layers.Conv2D(2, 3),
        keras.layers.Flatten(),
        keras.layers.Dense(3),
    ]
)
model.compile(
    hvd.DistributedOptimizer(keras.optimizers.SGD(0.01)),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
)
inputs = np.random.default_rng(0).normal(size=(16, 4, 4, 1)).astype("float32")
methods = ["integrated_gradients", "grad_cam"]
# in the middle of training files are being written; elsewhere everything has been
explain = Explain(
    Probe(inputs, np.zeros(16, "int32")),
    methods,
    world=world,
    run=run,
    recording=Recording(overlap=when == "training"),
)
callbacks = [hvd.callbacks.BroadcastGlobalVariablesCallback(), Fail(what, when), explain]
model.fit(inputs, np.zeros(16), batch_size=4, epochs=3, verbose=0, callbacks=callbacks)
sys.stdout.write("ended well\n")
