"""The sums of several backward passes, which are reduced over the ranks once."""

from collections.abc import Hashable, Sequence
from typing import Any

import keras
import tensorflow as tf

from hvd_xai.keras.reduction import Gradient, Reduction, key, overwrites


class Passes:
    """Adds up the gradients of several backward passes on this rank.

    Which pass of a step comes next is told by the optimizer's count of passes, which ranks have in
    common when the optimizer's state is broadcast: ranks that counted for themselves would wait for
    each other for ever after one of them is replaced.

    Args:
        n_passes: after how many they are reduced.
        average: whether their sum is divided by their number.
        clock: the optimizer's count of passes.
    """

    def __init__(self, n_passes: int, *, average: bool, clock: "keras.Variable") -> None:
        self._n_passes = n_passes
        self._average = average
        self._clock = clock
        self._sums: dict[Hashable, tf.Variable] = {}

    @property
    def counter(self) -> "tf.Tensor":
        """How many passes are added up now."""
        return tf.math.floormod(tf.convert_to_tensor(self._clock), self._n_passes)

    def completes_step(self) -> "tf.Tensor":
        """Returns whether this pass is the last one of a step."""
        return tf.equal(self.counter, self._n_passes - 1)

    def add(
        self, gradients: "Sequence[Gradient]", variables: Sequence[Any], reduction: Reduction
    ) -> "list[Gradient]":
        """Adds one pass. Collective: every rank must call this.

        Returns:
            After the last pass the gradients of all ranks, to be applied; before it the sums of
            this rank, not to be applied. Sparse gradients become dense, None stays None.
        """
        there = [index for index, gradient in enumerate(gradients) if gradient is not None]
        summed = [variables[index] for index in there]
        begins = tf.equal(self.counter, 0)
        sums = []
        for variable, gradient in zip(
            summed, (tf.convert_to_tensor(gradients[index]) for index in there), strict=True
        ):
            total = self._sum_of(variable, gradient.dtype)
            added = tf.maximum(total, gradient) if overwrites(variable) else total + gradient
            # not total * 0 + gradient: what an overflow leaves behind must not come along
            total.assign(tf.where(begins, gradient, added))
            sums.append(total.read_value())

        def reduced() -> "list[tf.Tensor]":
            values = reduction.reduce(sums, summed)
            if not self._average:
                return values
            n_passes = self._n_passes
            return [
                (
                    value
                    if value is None or overwrites(variable)
                    else value / tf.cast(n_passes, value.dtype)
                )
                for value, variable in zip(values, summed, strict=True)
            ]

        result: list[Gradient] = [None] * len(gradients)
        for index, value in zip(
            there, tf.cond(self.completes_step(), reduced, lambda: sums), strict=True
        ):
            result[index] = value
        return result

    def _sum_of(self, variable: Any, dtype: "tf.DType") -> "tf.Variable":
        if key(variable) not in self._sums:
            with tf.init_scope():  # a variable that outlives the function that is traced
                self._sums[key(variable)] = tf.Variable(
                    tf.zeros(variable.shape, dtype), trainable=False
                )
        return self._sums[key(variable)]
