"""Averages over the ranks the statistics that layers gather from data."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import xxhash

from hvd_xai.keras.collectives import reduce_values
from hvd_xai.keras.horovod_names import Average, Max
from hvd_xai.keras.shared_variables import shared_variables


def average_statistics(model: "keras.Model", *, local_variables: Sequence[Any] = ()) -> None:
    """Averages moving means and variances over the ranks. Collective: every rank must call this.

    Weights that all ranks hold alike, such as those of a frozen layer, stay as they are. The
    averaged moving variance leaves out how much the ranks' means differ, which is little where
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
    mine = [np.asarray(variable.value.numpy()) for variable in gathered]
    # What all ranks hold alike, as frozen weights, keeps every bit: an average over three ranks
    # may differ from its three equal terms. It need not travel either.
    differing = _differing(mine)
    averages = reduce_values(
        [mine[index] for index in differing], op=Average, name="hvd_xai.statistics"
    )
    for index, average in zip(differing, averages, strict=True):
        # Keras casts a tensor to the variable's own dtype.
        gathered[index].assign(tf.constant(average))


def _differing(values: Sequence[np.ndarray]) -> list[int]:
    """Returns the places of the arrays that are not the same on all ranks.

    Collective: every rank must call this.
    """
    if not values:
        return []
    # 52 bits, since float64, in which they travel, holds all whole numbers up to 2^53.
    digests = np.array([xxhash.xxh3_64_intdigest(value.tobytes()) % 2**52 for value in values])
    # Where all ranks have one digest, the largest of them is also the smallest, which is the
    # negative of the largest of the negatives.
    largest, negative = reduce_values([digests, -digests], op=Max, name="hvd_xai.differing")
    return [int(index) for index in np.flatnonzero(largest != -negative)]
