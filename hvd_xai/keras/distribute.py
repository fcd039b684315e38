"""Makes an optimizer reduce over the ranks, in a copy or in place, and tells whether it does."""

from typing import TypeVar

import keras

from hvd_xai.keras.optimizer_mixins import (
    AgreesOnOverflow,
    Distributed,
    Distribution,
    ReducesAccumulated,
    ReducesInApply,
    distributed_class,
)
from hvd_xai.keras.optimizer_parts import accumulates_in_keras, copy_state

OptimizerT = TypeVar("OptimizerT", bound="keras.optimizers.Optimizer")


def distribute(optimizer: OptimizerT, distribution: Distribution) -> OptimizerT:
    """Returns a distributed copy of an optimizer, or changes it where it cannot be copied."""
    own = distributed_class(_mixin_for(optimizer), type(optimizer), distribution)
    try:
        copy: OptimizerT = own.from_config(optimizer.get_config())
    except TypeError:
        # __init__ does not take what get_config gives, or Keras does not know a class that is
        # wrapped.
        distribute_in_place(optimizer, distribution)
        return optimizer
    copy_state(optimizer, copy)
    return copy


def distribute_in_place(
    optimizer: "keras.optimizers.Optimizer", distribution: Distribution
) -> None:
    """Changes the class of an optimizer, so that it reduces over the ranks."""
    mixin = _mixin_for(optimizer)
    if mixin is AgreesOnOverflow and not is_distributed(optimizer.inner_optimizer):
        distribute_in_place(optimizer.inner_optimizer, distribution)
    optimizer.__class__ = distributed_class(mixin, type(optimizer), distribution)
    optimizer._agg_helper = distribution.new_sums(optimizer._iterations)


def _mixin_for(optimizer: "keras.optimizers.Optimizer") -> type[Distributed]:
    if not accumulates_in_keras(optimizer):
        return ReducesInApply
    scales = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    return AgreesOnOverflow if scales else ReducesAccumulated


def distribution_of(optimizer: object) -> Distribution | None:
    """Returns how this optimizer, or the optimizer that it wraps, reduces; None if neither does."""
    if isinstance(optimizer, Distributed):
        return optimizer.hvd_xai_distribution
    inner = getattr(optimizer, "inner_optimizer", None)
    return None if inner is None else distribution_of(inner)


def is_distributed(optimizer: object) -> bool:
    """Returns whether this optimizer, or the optimizer that it wraps, reduces over the ranks."""
    return distribution_of(optimizer) is not None


def reduces_after_overflow_check(optimizer: object) -> bool:
    """Returns whether each rank checks for overflow alone, before the gradients are reduced.

    Ranks that disagree would then wait for each other for ever.
    """
    inner = getattr(optimizer, "inner_optimizer", None)
    return is_distributed(inner) and not isinstance(optimizer, Distributed)


def reduce_before_overflow_check(optimizer: "keras.optimizers.LossScaleOptimizer") -> None:
    """Moves the reduction outwards, in place, from the inner optimizer to the loss scaling.

    Args:
        optimizer: loss scaling that Keras has put around a distributed optimizer.
    """
    inner = optimizer.inner_optimizer
    distribution = inner.hvd_xai_distribution
    if not accumulates_in_keras(inner):
        # What `distributed_class` put before Keras's own class, it takes away again.
        inner.__class__ = type(inner).__bases__[1]
    distribute_in_place(optimizer, distribution)
