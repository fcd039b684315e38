"""Saves the best model so far to a file."""

from pathlib import Path
from typing import Any

import keras

from hvd_xai.keras.start import init, require_started
from hvd_xai.storage.durable import writing


class BestModelCheckpoint(keras.callbacks.ModelCheckpoint):  # type: ignore[misc]  # keras ships no types
    """Saves the model on the root whenever its metric is the best so far.

    Collective: every rank must pass it to `fit`, though the root alone writes. Put it behind
    `MetricAverageCallback`, so that the metric is that of all ranks.

    Horovod's callback takes no file name and expects that `filepath` is set afterwards; this one
    takes `filepath` as well.

    Args:
        monitor: name of the metric in the logs.
        verbose: 1 to print each saved file on the root; 0 to print nothing.
        save_weights_only: whether architecture and optimizer are left out.
        mode: "min", "max", or "auto", which goes by the metric's name.
        save_freq: "epoch", or a number of batches; within an epoch the metric is the root's own.
        filepath: path that ends in `.keras`, or in `.weights.h5` for weights only; it may have
            fields such as `{epoch}`.

    Raises:
        WorldError: if `init()` was not called before.

    Example:
        >>> import tempfile
        >>> import keras
        >>> import numpy as np
        >>> import hvd_xai.keras as hvd
        >>> world = hvd.init()
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(hvd.DistributedOptimizer(keras.optimizers.SGD(0.1)), "mse")
        >>> path = tempfile.mkdtemp() + "/best.keras"
        >>> best = hvd.callbacks.BestModelCheckpoint("loss", filepath=path)
        >>> history = model.fit(np.ones((8, 2)), np.ones(8), callbacks=[best], verbose=0)
        >>> int(hvd.load_model(path).optimizer.iterations)
        1
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
        """Saves on the root, if `save_freq` is a number of batches."""
        if self._world.is_root:
            with writing(Path(self.filepath)):
                super().on_train_batch_end(batch, logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Saves on the root, if this is the best. Collective: every rank must call this."""
        # A full disk on the root is an error on all ranks.
        with self._world.together("saving the best model"):
            if self._world.is_root:
                with writing(Path(self.filepath)):
                    super().on_epoch_end(epoch, logs)
