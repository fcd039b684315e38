"""Computes the metrics of an epoch over the examples of all ranks."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hvd_xai.keras.collectives import reduce_values
from hvd_xai.keras.horovod_names import Sum
from hvd_xai.keras.shared_variables import unique
from hvd_xai.keras.start import require_started

# Floats, and whatever else a model logs.
Logs = dict[str, Any] | None


class MetricAverageCallback(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
    """Replaces each rank's metrics of an epoch by those of all ranks together.

    Collective: every rank must pass it to `fit`, before the callbacks that decide by metrics.

    It sums the state variables of the metrics over the ranks and computes the metrics from the
    sums. That is exact for means over shards of unequal size and for AUC, precision and the like,
    where the average of the ranks' values is not.

    Args:
        device: device where TensorFlow places what is reduced; TensorFlow chooses if it is empty.

    Raises:
        WorldError: if `init()` was not called before.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> import hvd_xai.keras as hvd
        >>> world = hvd.init()
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> optimizer = hvd.DistributedOptimizer(keras.optimizers.SGD(0.1))
        >>> model.compile(optimizer, "mse", metrics=["mae"])
        >>> average = [hvd.callbacks.MetricAverageCallback()]
        >>> sorted(model.fit(np.ones((8, 2)), np.ones(8), callbacks=average, verbose=0).history)
        ['loss', 'mae']
    """

    def __init__(self, device: str = "") -> None:
        super().__init__()
        require_started("MetricAverageCallback")
        self.device = device
        self._train: dict[str, float] = {}
        self._validation: dict[str, float] = {}
        self._in_epoch = False

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Forgets the metrics of the epoch before."""
        self._train, self._validation = {}, {}
        self._in_epoch = True

    def on_test_begin(self, logs: Logs = None) -> None:
        """Reads the training metrics. Collective: every rank must call this."""
        # Keras resets them next, before it validates.
        if self._in_epoch:
            self._train = self._metrics()

    def on_test_end(self, logs: Logs = None) -> None:
        """Reads the validation metrics. Collective: every rank must call this."""
        if self._in_epoch:
            self._validation = self._metrics()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Puts the metrics of all ranks into the logs. Collective: every rank must call this."""
        train = self._train or self._metrics()
        self._in_epoch = False
        if logs is not None:
            logs.update({name: value for name, value in train.items() if name in logs})
            logs.update(
                {
                    f"val_{name}": value
                    for name, value in self._validation.items()
                    if f"val_{name}" in logs
                }
            )

    def _metrics(self) -> dict[str, float]:
        with tf.device(self.device):
            return metrics_of_all_ranks(self.model)


def metrics_of_all_ranks(model: "keras.Model") -> dict[str, float]:
    """Returns the model's metrics over the examples of all ranks.

    Collective: every rank must call this. The metrics of this rank are left as they were.

    Args:
        model: compiled model that has just been trained or evaluated.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> import hvd_xai.keras as hvd
        >>> world = hvd.init()
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(hvd.DistributedOptimizer(keras.optimizers.SGD(0.1)), "mse")
        >>> mine = model.evaluate(np.ones((8, 2)), np.ones(8), verbose=0)
        >>> sorted(hvd.callbacks.metrics_of_all_ranks(model))
        ['loss']
    """
    states = list(unique(variable for metric in model.metrics for variable in metric.variables))
    mine = [np.asarray(state.value.numpy()) for state in states]
    sums = reduce_values(mine, op=Sum, name="hvd_xai.metrics")
    # Keras computes metrics only from their states: these hold the sums for a moment.
    for state, value in zip(states, sums, strict=True):
        state.assign(value.astype(np.float32))
    together = {
        name: float(np.asarray(value)) for name, value in model.get_metrics_result().items()
    }
    for state, value in zip(states, mine, strict=True):
        state.assign(value)
    return together
