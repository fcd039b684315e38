"""Keras callbacks that keep the ranks equal: state, metrics, learning rate, and when to stop.

Horovod's names and parameters.

Put `BroadcastGlobalVariablesCallback` first and `MetricAverageCallback` second; what Keras's own
callbacks decide, they then decide alike:

- Those that decide, as EarlyStopping, ReduceLROnPlateau, LearningRateScheduler and TerminateOnNaN,
  go to every rank.
- Those that only write, as ModelCheckpoint, TensorBoard and CSVLogger, go to the root alone:
  `callbacks += [keras.callbacks.CSVLogger("log.csv")] if hvd.rank() == 0 else []`. On all ranks
  they would write one file at once.
- BackupAndRestore goes to every rank, each with a folder of its own (`f"backup/{hvd.rank()}"`): it
  restores where it has saved.
"""

from hvd_xai.keras.callbacks.best_model import BestModelCheckpoint
from hvd_xai.keras.callbacks.learning_rate import (
    LearningRateScheduleCallback,
    LearningRateWarmupCallback,
)
from hvd_xai.keras.callbacks.metrics import MetricAverageCallback, metrics_of_all_ranks
from hvd_xai.keras.callbacks.state import BroadcastGlobalVariablesCallback, average_statistics

__all__ = [
    "BestModelCheckpoint",
    "BroadcastGlobalVariablesCallback",
    "LearningRateScheduleCallback",
    "LearningRateWarmupCallback",
    "MetricAverageCallback",
    "average_statistics",
    "metrics_of_all_ranks",
]
