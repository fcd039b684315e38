"""Computes the logs of an epoch over the examples of all ranks."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hvd_xai.keras.callbacks.counted_rows import count_rows, rows_of_last
from hvd_xai.keras.callbacks.logs_of_all_ranks import Part, logs_of_all_ranks
from hvd_xai.keras.metric_states import (
    Aggregation,
    Results,
    check_aggregation,
    combine_metrics,
)
from hvd_xai.keras.metric_sums import watch_sums
from hvd_xai.keras.start import init, require_started

# Floats, and whatever else a model logs.
Logs = dict[str, Any] | None


class MetricAverageCallback(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
    """Replaces what each rank logs at the end of an epoch by the value of all ranks together.

    Collective: every rank must pass it to `fit`, before the callbacks that decide by logs.

    A logged value that is the result of one of the model's metrics is computed anew from the states
    of all ranks: each state is combined as its variable's `aggregation` says, which is a sum unless
    the metric was written otherwise. That is exact for means over shards of unequal size and for
    AUC, precision and the like, where the average of the ranks' values is not. States of your own
    metrics that are found to be no sums, such as the largest error so far, are refused unless
    `aggregation` says how they are combined.

    Every other number or array, such as a loss that a `train_step` of your own returns, is averaged
    over the ranks. Keras logs that of the last batch, so each rank weighs as much as its last batch
    has rows; ranks weigh alike where a rank's batch has no rows to count. Values that are no
    numbers stay as they are. Arrays, as of a metric with one value for each class, stay arrays.

    Args:
        device: device where TensorFlow places what is reduced; TensorFlow chooses if it is empty.
        aggregation: how all states of a metric are combined, by the metric's name, where its
            variables do not say it: "sum", "mean", "max", "min" or "only_first_replica".

    Raises:
        ValueError: at the end of an epoch, on all ranks, if a rank logs a name that another does
            not, or another shape; after the first batch, if it is not known how a state is
            combined.
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

    def __init__(
        self, device: str = "", *, aggregation: Mapping[str, Aggregation] | None = None
    ) -> None:
        super().__init__()
        require_started("MetricAverageCallback")
        self.device = device
        self.aggregation = dict(aggregation or {})
        self._world = init()
        self._train: Results | None = None
        self._validation: Results | None = None
        self._in_epoch = self._is_checked = False

    def set_model(self, model: "keras.Model") -> None:
        """Makes the model's steps count rows, and looks at what its metrics of your own add up.

        Keras calls it before it compiles the steps.
        """
        super().set_model(model)
        count_rows(model)
        watch_sums(model)
        self._is_checked = False

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Forgets the metrics of the epoch before."""
        self._train = self._validation = None
        self._in_epoch = True

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Checks after the first batch that it is known how each metric's states are combined.

        Collective: every rank must call this.
        """
        # Keras makes the states with the first batch. An error must not wait for the epoch's end.
        if not self._is_checked and self._world.size > 1:
            self._is_checked = True
            with self._world.together("looking at the metrics"):
                check_aggregation(self.model, self.aggregation)

    def on_test_begin(self, logs: Logs = None) -> None:
        """Reads the training metrics. Collective: every rank must call this."""
        # Keras resets them next, before it validates.
        if self._in_epoch:
            self._train = self._combined("the validation begins")

    def on_test_end(self, logs: Logs = None) -> None:
        """Reads the validation metrics. Collective: every rank must call this."""
        if self._in_epoch:
            self._validation = self._combined("the validation ends")

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Puts the values of all ranks into the logs. Collective: every rank must call this."""
        train = self._train or self._combined("an epoch ends")
        self._in_epoch = False
        # A rank alone keeps its logs bit by bit.
        if logs is None or self._world.size == 1:
            return
        parts = [Part("", train, rows_of_last(self.model, "train_step"))]
        if self._validation is not None:
            parts.append(Part("val_", self._validation, rows_of_last(self.model, "test_step")))
        with tf.device(self.device):
            logs.update(logs_of_all_ranks(self._world, logs, parts))

    def _combined(self, moment: str) -> Results:
        if self._world.size == 1:
            return Results({}, {})
        with tf.device(self.device):
            return combine_metrics(self.model, self.aggregation, self._world, moment)


def metrics_of_all_ranks(
    model: "keras.Model", *, aggregation: Mapping[str, Aggregation] | None = None
) -> dict[str, float | np.ndarray]:
    """Returns the model's metrics over the examples of all ranks.

    Collective: every rank must call this. The metrics of this rank are left as they were.

    Args:
        model: compiled model that has just been trained or evaluated.
        aggregation: how all states of a metric are combined, by the metric's name, where its
            variables do not say it.

    Returns:
        Numbers, and arrays of metrics that have several values, by name.

    Raises:
        ValueError: on all ranks, if the ranks' metrics differ, or it is not known how a state is
            combined.

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
    results = combine_metrics(model, aggregation or {}, init(), "its metrics are asked for")
    return {
        name: float(value) if value.ndim == 0 else value for name, value in results.together.items()
    }
