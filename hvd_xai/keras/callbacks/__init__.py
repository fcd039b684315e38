"""Keras callbacks that keep the ranks equal: in state, metrics, learning rate and the end of `fit`.

Names and parameters are Horovod's.

Put `BroadcastGlobalVariablesCallback` first and `MetricAverageCallback` second. Keras's own
callbacks then decide alike on all ranks:

- Callbacks that decide, such as EarlyStopping, ReduceLROnPlateau, LearningRateScheduler and
  TerminateOnNaN, go to every rank.
- Callbacks that only write, such as ModelCheckpoint, TensorBoard and CSVLogger, go to the root
  alone: `callbacks += [keras.callbacks.CSVLogger("log.csv")] if hvd.rank() == 0 else []`. On all
  ranks they would write one file at once.
- BackupAndRestore goes to every rank, each with a folder of its own (`f"backup/{hvd.rank()}"`),
  since a rank restores where it has saved.
"""

from hvd_xai.keras.callbacks.best_model import BestModelCheckpoint
from hvd_xai.keras.callbacks.broadcast import BroadcastGlobalVariablesCallback
from hvd_xai.keras.callbacks.learning_rate import (
    LearningRateScheduleCallback,
    LearningRateWarmupCallback,
)
from hvd_xai.keras.callbacks.metric_average import MetricAverageCallback, metrics_of_all_ranks
from hvd_xai.keras.callbacks.moving_statistics import average_statistics

__all__ = [
    "BestModelCheckpoint",
    "BroadcastGlobalVariablesCallback",
    "LearningRateScheduleCallback",
    "LearningRateWarmupCallback",
    "MetricAverageCallback",
    "average_statistics",
    "metrics_of_all_ranks",
]
