"""Sums the gradients of several backward passes, so that they are reduced over the ranks once."""

from collections.abc import Hashable, Sequence
from typing import Any

import keras
import tensorflow as tf

from hvd_xai.keras.reduction import Gradient, Reduction, key, overwrites


class GradientSums:
    """Sums the gradients of several backward passes on this rank.

    The optimizer's count of passes tells which pass of a step comes next. The ranks have that count
    in common once the optimizer's state is broadcast. If ranks counted for themselves, a rank that
    joins an elastic job would wait for the others, and they for it, for ever.

    Args:
        n_passes: number of passes that are summed before they are reduced.
        average: whether the sum is divided by `n_passes`.
        clock: the optimizer's count of passes.
    """

    def __init__(self, n_passes: int, *, average: bool, clock: "keras.Variable") -> None:
        self._n_passes = n_passes
        self._average = average
        self._clock = clock
        self._sums: dict[Hashable, tf.Variable] = {}

    @property
    def counter(self) -> "tf.Tensor":
        """Number of passes that are summed now, 0 to `n_passes` - 1."""
        return tf.math.floormod(tf.convert_to_tensor(self._clock), self._n_passes)

    def completes_step(self) -> "tf.Tensor":
        """Returns whether the current pass is the last pass of a step."""
        return tf.equal(self.counter, self._n_passes - 1)

    def add(
        self, gradients: "Sequence[Gradient]", variables: Sequence[Any], reduction: Reduction
    ) -> "list[Gradient]":
        """Adds the gradients of one pass. Collective: every rank must call this.

        Args:
            gradients: this rank's gradients, one for each variable.
            variables: Keras's or TensorFlow's variables.
            reduction: how the sums are reduced over the ranks.

        Returns:
            After the last pass the gradients of all ranks, to be applied; before it this rank's
            sums, not to be applied. Sparse gradients become dense; None stays None.
        """
        # A head that the loss does not use has the gradient None, which cannot be summed.
        present = [index for index, gradient in enumerate(gradients) if gradient is not None]
        summed = [variables[index] for index in present]
        begins = tf.equal(self.counter, 0)
        sums = []
        for variable, index in zip(summed, present, strict=True):
            gradient = tf.convert_to_tensor(gradients[index])
            total = self._sum_for(variable, gradient.dtype)
            added = tf.maximum(total, gradient) if overwrites(variable) else total + gradient
            # Not total * 0 + gradient: the infinity that an overflow leaves in the sum would
            # become NaN, and stay.
            total.assign(tf.where(begins, gradient, added))
            sums.append(total.read_value())

        def reduced() -> "list[tf.Tensor]":
            return self._averaged(reduction.reduce(sums, summed), summed)

        result: list[Gradient] = [None] * len(gradients)
        # All ranks take the same branch, since they have the count in common.
        values = tf.cond(self.completes_step(), reduced, lambda: sums)
        for index, value in zip(present, values, strict=True):
            result[index] = value
        return result

    def _averaged(self, values: "list[Any]", variables: Sequence[Any]) -> "list[Any]":
        if not self._average:
            return values
        return [
            value if overwrites(variable) else value / tf.cast(self._n_passes, value.dtype)
            for value, variable in zip(values, variables, strict=True)
        ]

    def _sum_for(self, variable: Any, dtype: "tf.DType") -> "tf.Variable":
        if key(variable) not in self._sums:
            # Outside the function that is traced: the sum must outlive it.
            with tf.init_scope():
                self._sums[key(variable)] = tf.Variable(
                    tf.zeros(variable.shape, dtype), trainable=False
                )
        return self._sums[key(variable)]
