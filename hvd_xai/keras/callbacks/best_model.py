"""The best model so far, as a file."""

from pathlib import Path
from typing import Any

import keras

from hvd_xai.keras.collectives import init, require_started


class BestModelCheckpoint(keras.callbacks.ModelCheckpoint):  # type: ignore[misc]  # keras ships no types
    """Saves the model whenever its metric is the best so far; the root alone writes.

    Give it to every rank.

    Horovod's has no file name, and lets an estimator set `filepath` afterwards; here it can be
    given, too.

    Args:
        monitor: the metric, as it is named in the logs.
        verbose: 1 says on the root what is saved.
        save_weights_only: leaves out architecture and optimizer.
        mode: "min", "max", or "auto", which goes by the metric's name.
        save_freq: "epoch", or a number of batches, of which each rank's metrics decide.
        filepath: ends in `.keras`, or in `.weights.h5` for weights only; may have fields, as
            `{epoch}`.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        verbose: int = 0,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        *,
        filepath: str | Path | None = None,
    ) -> None:
        require_started("BestModelCheckpoint")
        path = (
            filepath
            if filepath is not None
            else "best_model.weights.h5"
            if save_weights_only
            else "best_model.keras"
        )
        super().__init__(
            path,
            monitor=monitor,
            verbose=verbose,
            save_best_only=True,
            save_weights_only=save_weights_only,
            mode=mode,
            save_freq=save_freq,
        )
        self._world = init()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Saves on the root, if `save_freq` says so."""
        if self._world.is_root:
            super().on_train_batch_end(batch, logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Saves on the root, if this is the best. Collective: every rank must call this."""
        with self._world.together("saving the best model"):
            if self._world.is_root:
                super().on_epoch_end(epoch, logs)
