"""The metrics of an epoch, over the examples of all ranks."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hvd_xai.keras.collectives import Sum, reduce_values, require_started
from hvd_xai.keras.variables import unique

# what Keras hands to callbacks: floats, and whatever else a model logs
Logs = dict[str, Any] | None


class MetricAverageCallback(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
    """Replaces each rank's metrics of an epoch by those of all ranks together.

    It sums the state variables of the metrics and computes the metrics from the sums: exact for
    means over uneven shards and for AUC, precision and the like, where an average of the ranks'
    values is not. Put it before callbacks that decide by metrics.

    Args:
        device: where TensorFlow places what is reduced; its own choice if empty.
    """

    def __init__(self, device: str = "") -> None:
        super().__init__()
        require_started("MetricAverageCallback")
        self.device = device
        self._train: dict[str, float] = {}
        self._validation: dict[str, float] = {}
        self._in_epoch = False

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Forgets the last epoch."""
        self._train, self._validation = {}, {}
        self._in_epoch = True

    def on_test_begin(self, logs: Logs = None) -> None:
        """Reads the training metrics, which Keras resets next.

        Collective: every rank must call this.
        """
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

    Collective: every rank must call this.
    """
    states = list(unique(variable for metric in model.metrics for variable in metric.variables))
    mine = [np.asarray(state.value.numpy()) for state in states]
    sums = reduce_values(mine, op=Sum, name="hvd_xai.metrics")
    for state, value in zip(states, sums, strict=True):
        state.assign(value.astype(np.float32))
    together = {
        name: float(np.asarray(value)) for name, value in model.get_metrics_result().items()
    }
    for state, value in zip(states, mine, strict=True):
        state.assign(value)
    return together
