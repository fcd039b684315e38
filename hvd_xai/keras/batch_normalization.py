"""Batch normalisation over the batches of all ranks."""

import itertools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import horovod.tensorflow as horovod
import keras
import tensorflow as tf
from jaxtyping import Float

from hvd_xai.keras.collectives import Sum, require_started

_MADE = itertools.count()


@keras.saving.register_keras_serializable(package="hvd_xai", name="SyncBatchNormalization")
class SyncBatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]  # keras ships no types
    r"""Normalises by the mean and variance of the batches of all ranks together, as one process
    does with the concatenated batch.

    Use it where a rank's batch is too small for statistics of its own, some 8 examples or fewer. It
    costs two allreduces of 2c + 1 values a step for c channels; where batches are larger,
    `keras.layers.BatchNormalization` costs none, and `BroadcastGlobalVariablesCallback` averages
    its moving statistics.

    Rank r with n_r values of a channel, their mean m_r and sum of squared distances M_r from it,
    adds n_r, n_r m_r and M_r + n_r m_r^2 to one sum over the ranks, in float64; mean and variance
    follow from it exactly, also where the ranks' batches differ in size. The gradients are those of
    one process, too: each rank's loss depends on all ranks' examples through the statistics, and
    that part is reduced as well.

    At inference it is `keras.layers.BatchNormalization`: it needs no ranks, and its weights are the
    same. A saved model loads with this layer where hvd_xai is imported, and with Keras's own
    elsewhere; that is why it goes by the name of Keras's, in summaries too.

    Every rank must build its layers in the same order. Parameters are those of
    `keras.layers.BatchNormalization`, but `synchronized`.

    Raises:
        ValueError: when it is built, if `synchronized` was given: it is of `tf.distribute`, not of
            Horovod.
        WorldError: when it is called with `training=True` before `init()`.

    Reference:
        Ioffe, Szegedy: Batch normalization, 2015. https://arxiv.org/abs/1502.03167 Chan, Golub,
        LeVeque: Updating formulae and a pairwise algorithm for computing sample variances, 1979.
    """

    def build(self, input_shape: "Sequence[int | None]") -> None:
        """Makes the weights, and the names under which the ranks meet."""
        if self.synchronized:
            raise ValueError(
                "SyncBatchNormalization is synchronised over Horovod already; leave out"
                " synchronized=True"
            )
        # Horovod pairs tensors by name; the layer's own counts what this process has built, which
        # may differ between ranks
        self._reduction = f"hvd_xai.batch_normalization.{next(_MADE)}"
        self._calls: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        super().build(input_shape)

    def _moments(
        self, inputs: "tf.Tensor", mask: "tf.Tensor | None"
    ) -> "tuple[tf.Tensor, tf.Tensor]":
        """Returns mean and variance of each channel over the ranks.

        Collective: every rank must call this.
        """
        require_started("SyncBatchNormalization")
        axes = self._reduction_axes
        weights = (
            tf.ones_like(inputs)
            if mask is None
            else tf.broadcast_to(tf.cast(mask, inputs.dtype)[..., None], tf.shape(inputs))
        )
        count = tf.reduce_sum(weights, axes, keepdims=True)  # the same for each channel
        valued = inputs if mask is None else tf.where(weights > 0, inputs, 0)
        mean = tf.math.divide_no_nan(tf.reduce_sum(valued, axes, keepdims=True), count)
        distance = tf.reduce_sum(weights * tf.square(valued - mean), axes)

        n, m, big_m = (
            tf.cast(tf.reshape(value, [-1]), tf.float64) for value in (count, mean, distance)
        )
        ours = tf.concat([n[:1], n * m, big_m + n * tf.square(m)], 0)
        total = self._sum_over_ranks(ours)
        n_all, (first, second) = total[0], tf.split(total[1:], 2)
        mean_all = tf.math.divide_no_nan(first, n_all)
        variance_all = tf.maximum(tf.math.divide_no_nan(second, n_all) - tf.square(mean_all), 0)
        return tf.cast(mean_all, inputs.dtype), tf.cast(variance_all, inputs.dtype)

    def _sum_over_ranks(self, values: Float[tf.Tensor, "v"]) -> Float[tf.Tensor, "v"]:
        # One name for each call in a step: a layer that is shared would otherwise send two tensors
        # of one name at once. Counted for each graph, since a rank may trace more often than the
        # others.
        graph = tf.compat.v1.get_default_graph()
        call = self._calls.get(graph, 0) if not tf.executing_eagerly() else 0
        if not tf.executing_eagerly():
            self._calls[graph] = call + 1
        name = f"{self._reduction}.{call}"

        @tf.custom_gradient  # type: ignore[untyped-decorator]  # tensorflow ships no types
        def summed(local: "tf.Tensor") -> "tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]":
            def gradient(upstream: "tf.Tensor") -> "tf.Tensor":
                return horovod.allreduce(
                    upstream, op=Sum, name=f"{name}.backward", ignore_name_scope=True
                )

            return (
                horovod.allreduce(local, op=Sum, name=f"{name}.forward", ignore_name_scope=True),
                gradient,
            )

        return summed(values)


# Keras writes class name and module into the file, and takes them where it does not know the
# registered name
_base = keras.layers.BatchNormalization
SyncBatchNormalization.__name__, SyncBatchNormalization.__qualname__ = (
    _base.__name__,
    _base.__qualname__,
)
SyncBatchNormalization.__module__ = _base.__module__
