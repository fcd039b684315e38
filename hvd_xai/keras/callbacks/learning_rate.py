"""Changes the learning rate by epoch or by batch, and warms it up for large batches."""

import logging
from collections.abc import Callable
from typing import Any

import keras

from hvd_xai.keras.start import init, require_started

log = logging.getLogger(__name__)

Logs = dict[str, Any] | None


class LearningRateScheduleCallback(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
    """Sets the learning rate to `initial_lr * multiplier` in a range of epochs.

    Every rank must pass it to `fit`. At other epochs it leaves the learning rate alone, so that
    several such callbacks, one after the other, make a schedule. The learning rate is logged as
    `lr`.

    Args:
        initial_lr: learning rate that the multiplier scales.
        multiplier: function of the epoch; or a number m, for m ** (epoch - start_epoch).
        start_epoch: first epoch of the range.
        end_epoch: first epoch after the range; None for no end.
        staircase: True sets the learning rate at the first batch of each epoch; False sets it at
            every batch, with the fraction epoch + batch / steps_per_epoch for the epoch.
        momentum_correction: whether the velocity of SGD and RMSprop, which carries the learning
            rate as a factor, is scaled when that changes; it then is the velocity that the new
            learning rate would have built up. Horovod scales the momentum of that one step instead,
            which comes to the same, but Keras 3 compiles the momentum into the step.
        steps_per_epoch: number of batches in an epoch, needed where Keras does not know it.

    Raises:
        ValueError: if `initial_lr` is None.
        TypeError: when training begins, if the optimizer was given a schedule, which would win.
        WorldError: if `init()` was not called before.

    Example:
        >>> import hvd_xai.keras as hvd
        >>> world = hvd.init()
        >>> scale = hvd.callbacks.LearningRateScheduleCallback
        >>> steps = [scale(0.1, 1.0, end_epoch=30), scale(0.1, lambda epoch: 0.1, start_epoch=30)]
        >>> [step.start_epoch for step in steps]  # callbacks of `fit`, one after the other
        [0, 30]

    Reference:
        Goyal et al.: Accurate, large minibatch SGD: training ImageNet in 1 hour, 2017, section 3
        (momentum correction). https://arxiv.org/abs/1706.02677
    """

    def __init__(
        self,
        initial_lr: float | int,
        multiplier: float | int | Callable[[float], float | int],
        start_epoch: int = 0,
        end_epoch: float | int | None = None,
        staircase: bool = True,
        momentum_correction: bool = True,
        steps_per_epoch: int | None = None,
    ) -> None:
        super().__init__()
        require_started(type(self).__name__)
        if initial_lr is None:
            raise ValueError(
                f"{type(self).__name__} needs initial_lr, the learning rate that the multiplier"
                " scales; got None"
            )
        self.initial_lr = initial_lr
        self.multiplier = multiplier
        self.start_epoch = start_epoch
        self.end_epoch = end_epoch
        self.staircase = staircase
        self.momentum_correction = momentum_correction
        self.steps_per_epoch = steps_per_epoch
        self.current_epoch = 0

    def on_train_begin(self, logs: Logs = None) -> None:
        """Checks that the learning rate can be set, and finds the number of steps in an epoch."""
        name = type(self).__name__
        inner = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        # The public property `learning_rate` is a number for a schedule, too.
        if not isinstance(inner._learning_rate, keras.Variable):
            raise TypeError(
                f"{name} sets the learning rate, but the optimizer was given a schedule. Give it a"
                " number, or put what this callback does into the schedule."
            )
        if not self.staircase and not self.steps_per_epoch:
            self.steps_per_epoch = self.params.get("steps")
            if not self.steps_per_epoch:
                raise ValueError(
                    f"{name} needs to know the batches of an epoch, which Keras does not; pass"
                    " steps_per_epoch"
                )

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Notes the epoch for the batches that follow."""
        self.current_epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Sets the learning rate, if the epoch is in the range."""
        epoch = self.current_epoch
        if epoch < self.start_epoch or (self.end_epoch is not None and epoch >= self.end_epoch):
            return
        if not self.staircase:
            self._set(self._factor(epoch + batch / (self.steps_per_epoch or 1)))
        elif batch == 0:
            self._set(self._factor(epoch))

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Logs the learning rate."""
        if logs is not None:
            logs["lr"] = float(self.model.optimizer.learning_rate)

    def _factor(self, epoch: float | int) -> float | int:
        return (
            self.multiplier(epoch)
            if callable(self.multiplier)
            else self.multiplier ** (epoch - self.start_epoch)
        )

    def _set(self, factor: float | int) -> None:
        optimizer = self.model.optimizer
        before = float(optimizer.learning_rate)
        optimizer.learning_rate = self.initial_lr * factor
        after = float(optimizer.learning_rate)
        # v = m * v + rate * gradient:  the velocity carries the rate as a factor
        if self.momentum_correction and after != before and before > 0:
            for velocity in _velocities(optimizer):
                velocity.assign(velocity.value * (after / before))


class LearningRateWarmupCallback(LearningRateScheduleCallback):
    """Raises the learning rate from that of one rank to that of all ranks, batch by batch.

    Every rank must pass it to `fit`. With k ranks and w warm-up epochs, batch b of n in epoch e
    trains at

        initial_lr / k * ((e + (b + 1) / n) * (k - 1) / w + 1)

    so that the last batch of the warm-up trains at initial_lr. Afterwards it leaves the learning
    rate alone.

    Args:
        initial_lr: learning rate to arrive at: that of one rank times the number of ranks.
        warmup_epochs: number of epochs w that the warm-up takes; 0 for none.
        momentum_correction: whether the velocity of SGD and RMSprop is scaled with the learning
            rate, as in `LearningRateScheduleCallback`.
        steps_per_epoch: number of batches in an epoch, needed where Keras does not know it.
        verbose: 1 to log the learning rate when the warm-up ends.

    Raises:
        ValueError: if `warmup_epochs` is negative.
        TypeError: when training begins, if the optimizer was given a schedule, which would win.
        WorldError: if `init()` was not called before.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> import hvd_xai.keras as hvd
        >>> world = hvd.init()
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> rate = 0.25 * world.size
        >>> model.compile(hvd.DistributedOptimizer(keras.optimizers.SGD(rate)), "mse")
        >>> warmup = [hvd.callbacks.LearningRateWarmupCallback(rate, warmup_epochs=1)]
        >>> history = model.fit(np.ones((8, 2)), np.ones(8), callbacks=warmup, verbose=0).history
        >>> history["lr"] == [rate]
        True

    Reference:
        Goyal et al.: Accurate, large minibatch SGD: training ImageNet in 1 hour, 2017, section 2.2.
        https://arxiv.org/abs/1706.02677
    """

    def __init__(
        self,
        initial_lr: float | int,
        warmup_epochs: float | int = 5,
        momentum_correction: bool = True,
        steps_per_epoch: int | None = None,
        verbose: int = 0,
    ) -> None:
        if warmup_epochs < 0:
            raise ValueError(f"warmup_epochs must be 0 or more; got {warmup_epochs}")
        super().__init__(
            initial_lr, self._warmth, 0, warmup_epochs, False, momentum_correction, steps_per_epoch
        )
        self.warmup_epochs = warmup_epochs
        self.verbose = verbose

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Logs the learning rate."""
        super().on_epoch_end(epoch, logs)
        if self.verbose > 0 and epoch < self.warmup_epochs <= epoch + 1:
            log.info(
                "epoch %d: the warm-up ends, learning rate %g",
                epoch,
                float(self.model.optimizer.learning_rate),
            )

    def _warmth(self, epoch: float | int) -> float:
        # The size is asked for now, because an elastic job changes it.
        size = init().size
        passed = min(epoch + 1 / (self.steps_per_epoch or 1), self.warmup_epochs)
        return (passed * (size - 1) / self.warmup_epochs + 1) / size


def _velocities(optimizer: "keras.optimizers.Optimizer") -> "list[keras.Variable]":
    """Returns the velocities that carry the learning rate; none for other optimizers."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    # They are not there until the optimizer is built.
    if isinstance(inner, keras.optimizers.SGD):
        return list(getattr(inner, "momentums", ()))
    if isinstance(inner, keras.optimizers.RMSprop):
        return list(getattr(inner, "_momentums", ()))
    return []
