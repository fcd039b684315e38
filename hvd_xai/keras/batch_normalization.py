"""Normalises by the statistics of the batches of all ranks together."""

import itertools
import weakref
from collections.abc import Callable, Sequence

import horovod.tensorflow as horovod
import keras
import tensorflow as tf
from jaxtyping import Float

from hvd_xai.keras.collectives import Calls, count_call
from hvd_xai.keras.horovod_names import Sum
from hvd_xai.keras.start import require_started

_MADE = itertools.count()


@keras.saving.register_keras_serializable(package="hvd_xai", name="SyncBatchNormalization")
class SyncBatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]  # keras ships no types
    r"""Normalises by the mean and variance of the batches of all ranks together.

    Collective: every rank must build its layers in the same order, and call them alike in training.

    It computes what one process computes with the concatenated batch. Use it where a rank's batch
    is too small for statistics of its own, 8 examples or fewer, say. It costs two allreduces of
    2c + 1 values at each step for c channels. For larger batches use
    `keras.layers.BatchNormalization`, which costs none; `BroadcastGlobalVariablesCallback` averages
    its moving statistics.

    Rank r has n_r values of a channel, with mean m_r and sum of squared distances M_r from it. It
    adds n_r, n_r m_r and M_r + n_r m_r^2 to one sum over the ranks, in float64, from which mean and
    variance follow exactly, also where the ranks' batches differ in size. The gradients are those
    of one process too: through the statistics each rank's loss depends on all ranks' examples, and
    that part is reduced as well.

    In inference it is `keras.layers.BatchNormalization`: it needs no ranks, and has the same
    weights. A saved model loads with this layer where hvd_xai is imported, and with Keras's layer
    elsewhere; for that reason it has the name of Keras's layer, in summaries too.

    The parameters are those of `keras.layers.BatchNormalization`, without `synchronized`.

    Raises:
        ValueError: when it is built, if `synchronized` was given, which is for `tf.distribute`.
        WorldError: when it is called with `training=True` before `init()`.

    Example:
        >>> import numpy as np
        >>> import hvd_xai.keras as hvd
        >>> world = hvd.init()
        >>> layer = hvd.SyncBatchNormalization(epsilon=0.0)
        >>> normalised = layer(np.array([[-2.0], [2.0]], "float32"), training=True)
        >>> normalised.numpy().tolist()
        [[-1.0], [1.0]]

    Reference:
        Ioffe, Szegedy: Batch normalization, 2015. https://arxiv.org/abs/1502.03167
        Chan, Golub, LeVeque: Updating formulae and a pairwise algorithm for computing sample
        variances, 1979.
    """

    def build(self, input_shape: "Sequence[int | None]") -> None:
        """Makes the weights, and the names of the layer's collectives."""
        if self.synchronized:
            raise ValueError(
                "SyncBatchNormalization is synchronised over Horovod already; leave out"
                " synchronized=True"
            )
        # Horovod pairs tensors by name. The layer's own name would not do: it counts what this
        # process has built, which may differ between ranks.
        self._reduction = f"hvd_xai.batch_normalization.{next(_MADE)}"
        self._calls: Calls = weakref.WeakKeyDictionary()
        super().build(input_shape)

    def _moments(
        self, inputs: "tf.Tensor", mask: "tf.Tensor | None"
    ) -> "tuple[tf.Tensor, tf.Tensor]":
        """Returns the mean and variance of each channel over the ranks.

        Collective: every rank must call this.
        """
        require_started("SyncBatchNormalization")
        axes = self._reduction_axes
        weights = (
            tf.ones_like(inputs)
            if mask is None
            else tf.broadcast_to(tf.cast(mask, inputs.dtype)[..., None], tf.shape(inputs))
        )
        # The count is the same for each channel, so that one number stands for all of them.
        count = tf.reduce_sum(weights, axes, keepdims=True)
        valued = inputs if mask is None else tf.where(weights > 0, inputs, 0)
        mean = tf.math.divide_no_nan(tf.reduce_sum(valued, axes, keepdims=True), count)
        distance = tf.reduce_sum(weights * tf.square(valued - mean), axes)

        # all that travels:  [ n | n m, one a channel | M + n m^2, one a channel ]
        n, m, big_m = (
            tf.cast(tf.reshape(value, [-1]), tf.float64) for value in (count, mean, distance)
        )
        ours = tf.concat([n[:1], n * m, big_m + n * tf.square(m)], 0)
        total = self._sum_over_ranks(ours)
        # Var = E[x^2] - E[x]^2 in float64; rounding can still take it below 0
        n_all, (first, second) = total[0], tf.split(total[1:], 2)
        mean_all = tf.math.divide_no_nan(first, n_all)
        variance_all = tf.maximum(tf.math.divide_no_nan(second, n_all) - tf.square(mean_all), 0)
        return tf.cast(mean_all, inputs.dtype), tf.cast(variance_all, inputs.dtype)

    def _sum_over_ranks(self, values: Float[tf.Tensor, "v"]) -> Float[tf.Tensor, "v"]:
        # One name for each call in a step: a shared layer would otherwise send two tensors of one
        # name at once.
        call = count_call(self._calls)
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


# Keras writes name and module of the class into a .keras file, and goes by them where nobody has
# registered the layer under its own name.
_base = keras.layers.BatchNormalization
SyncBatchNormalization.__name__, SyncBatchNormalization.__qualname__ = (
    _base.__name__,
    _base.__qualname__,
)
SyncBatchNormalization.__module__ = _base.__module__
