"""Averages over the ranks the statistics that layers gather from data."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from hvd_xai.keras.collectives import reduce_values
from hvd_xai.keras.horovod_names import Average
from hvd_xai.keras.shared_variables import shared_variables


def average_statistics(model: "keras.Model", *, local_variables: Sequence[Any] = ()) -> None:
    """Averages moving means and variances over the ranks. Collective: every rank must call this.

    The averaged moving variance leaves out how much the ranks' means differ, which is little where
    rows are shuffled over the ranks. `SyncBatchNormalization` gathers from all ranks to begin with.

    Args:
        model: this rank's model; all its weights that are not trained by gradients and hold floats
            are averaged.
        local_variables: variables that each rank keeps for itself.

    Example:
        >>> import keras
        >>> import hvd_xai.keras as hvd
        >>> world = hvd.init()
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization()])
        >>> hvd.callbacks.average_statistics(model)
        >>> model.layers[0].moving_variance.numpy().tolist()
        [1.0, 1.0]
    """
    # Integers are counters, and equal on all ranks.
    gathered = [
        variable
        for variable in shared_variables(model.non_trainable_variables, local_variables)
        if "float" in keras.backend.standardize_dtype(variable.dtype)
    ]
    averages = reduce_values(
        [np.asarray(variable.value.numpy()) for variable in gathered],
        op=Average,
        name="hvd_xai.statistics",
    )
    for variable, average in zip(gathered, averages, strict=True):
        variable.assign(average.astype(np.float32))
