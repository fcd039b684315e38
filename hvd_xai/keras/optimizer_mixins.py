"""Defines the mixins that make a Keras optimizer reduce gradients over the ranks.

Keras calls an optimizer in one of three ways, and each has a mixin:

    the optimizer is ...                          mixin                 reduces in
    plain, or loss scaling around a plain one     ReducesInApply        apply
    accumulating (gradient_accumulation_steps)    ReducesAccumulated    _clip_gradients
    loss scaling around an accumulating one       AgreesOnOverflow      check_finite, and inside
"""

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import keras
import tensorflow as tf

from hvd_xai.keras.gradient_sums import GradientSums
from hvd_xai.keras.optimizer_parts import copy_state, with_inner
from hvd_xai.keras.reduction import Gradient, Reduction, overwrites
from hvd_xai.keras.xla import refuse_xla

OptimizerT = TypeVar("OptimizerT", bound="keras.optimizers.Optimizer")

_LOSS_SCALING_FILE = keras.optimizers.LossScaleOptimizer.apply.__code__.co_filename

LOSS_SCALING_AROUND = (
    "a LossScaleOptimizer is around your distributed optimizer, so that an overflow on one rank"
    " would hang the others; under mixed_float16 Keras puts it there. Compile with"
    " optimizer=DistributedOptimizer(keras.optimizers.LossScaleOptimizer(optimizer)), or pass"
    " BroadcastGlobalVariablesCallback to fit, which puts it right."
)


@dataclass(frozen=True, slots=True, eq=False)
class Distribution:
    """How an optimizer reduces over the ranks.

    Attributes:
        reduction: how gradients are reduced.
        n_passes: number of backward passes that are summed before one reduction.
        averages_passes: whether the sum is divided by `n_passes`.
    """

    reduction: Reduction
    n_passes: int = 1
    averages_passes: bool = False

    def new_sums(self, clock: "keras.Variable") -> GradientSums | None:
        """Returns the sums for one optimizer; None where every pass is reduced by itself."""
        if self.n_passes == 1:
            return None
        return GradientSums(self.n_passes, average=self.averages_passes, clock=clock)


class ReducedPairs(list[tuple[Any, Any]]):
    """Pairs of gradient and variable whose gradients are reduced already."""


class Distributed(keras.optimizers.Optimizer):  # type: ignore[misc]  # keras ships no types
    """What the mixins have in common.

    A mixin stands before the class of an optimizer in the order of bases, so that `super()` is that
    class.

    Attributes:
        hvd_xai_distribution: how the optimizer reduces; set on the class.
    """

    hvd_xai_distribution: ClassVar[Distribution]

    def register_local_var(self, var: object) -> None:
        """Leaves the gradient of a variable on its rank.

        Raises:
            ValueError: if the optimizer clips by the global norm, which would differ by rank.
        """
        if getattr(self, "global_clipnorm", None):
            raise ValueError(
                "global_clipnorm with local variables would clip each rank by another norm; use"
                " clipnorm or clipvalue"
            )
        self.hvd_xai_distribution.reduction.keep_local([var])

    def _variables_for(
        self, gradients: "Sequence[Gradient]", trainable_variables: "Sequence[Any] | None"
    ) -> list[Any]:
        """Returns the variables of the gradients.

        It is called while the step is traced, or at the first eager step, before anything is sent,
        and raises what would hang then.

        Raises:
            ValueError: if XLA compiles the step, loss scaling is around this optimizer, or there is
                not one gradient for each variable.
        """
        refuse_xla()
        # The outer optimizer would check this rank's gradients for overflow and, on a rank that
        # overflowed, never call the inner one, which the other ranks wait in.
        if _is_called_by_loss_scaling(self):
            raise ValueError(LOSS_SCALING_AROUND)
        variables = list(
            self._trainable_variables if trainable_variables is None else trainable_variables
        )
        if len(gradients) != len(variables):
            raise ValueError(
                "apply needs one gradient for each variable, or None; got"
                f" {len(gradients)} gradients for {len(variables)} variables. Without variables,"
                " apply takes those that the optimizer was built with."
            )
        return variables


def _is_called_by_loss_scaling(optimizer: Distributed) -> bool:
    """Returns whether loss scaling that does not agree over the ranks calls the optimizer now."""
    # The outer optimizer may be given the inner one at any time, and the inner one has no reference
    # to it: only the calls that lead here tell.
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_filename == _LOSS_SCALING_FILE:
            caller = frame.f_locals.get("self")
            around = getattr(caller, "inner_optimizer", None) is optimizer
            if around and not isinstance(caller, Distributed):
                return True
        frame = frame.f_back
    return False


class ReducesInApply(Distributed):
    """Reduces gradients in `apply`, before clipping, weight decay and moments see them.

    Around loss scaling it reduces before the check for overflow, so that all ranks see the same
    gradients and decide alike.

    Example:
        >>> import keras
        >>> import hvd_xai.keras as hvd
        >>> from hvd_xai.keras.optimizer_mixins import Distribution, ReducesInApply
        >>> from hvd_xai.keras.reduction import Reduction
        >>> world = hvd.init()
        >>> class Reducing(ReducesInApply, keras.optimizers.SGD):
        ...     hvd_xai_distribution = Distribution(Reduction())
        >>> weight = keras.Variable([1.0])
        >>> Reducing(learning_rate=0.5).apply([keras.ops.ones(1)], [weight])
        >>> weight.numpy().tolist()
        [0.5]
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The attribute has Horovod's name.
        self._agg_helper = self.hvd_xai_distribution.new_sums(self._iterations)

    def compute_gradients(
        self,
        loss: "Callable[[], tf.Tensor] | tf.Tensor",
        var_list: Sequence[Any],
        tape: "tf.GradientTape | None" = None,
    ) -> ReducedPairs:
        """Returns the gradients of all ranks with their variables, for `apply_gradients`.

        Collective: every rank must call this.

        Args:
            loss: function that returns the loss, or the loss itself.
            var_list: Keras's or TensorFlow's variables.
            tape: tape that recorded the loss; needed where `loss` is no function.

        Raises:
            ValueError: if `loss` is no function and there is no tape.
        """
        if callable(loss):
            tape = tape or tf.GradientTape()
            with tape:
                value = self.scale_loss(loss())
        elif tape is None:
            raise ValueError(
                "compute_gradients needs a function that returns the loss, or the loss and the"
                " tape that recorded it"
            )
        else:
            value = loss
        # A tape knows TensorFlow's variables only.
        sources = [
            variable.value if isinstance(variable, keras.Variable) else variable
            for variable in var_list
        ]
        reduced = self._reduced(tape.gradient(value, sources), var_list)
        return ReducedPairs(zip(reduced, var_list, strict=True))

    # Horovod has both names.
    _compute_gradients = compute_gradients

    def apply_gradients(
        self,
        grads_and_vars: "Iterable[tuple[Gradient, Any]]",
        name: str | None = None,
        skip_gradients_aggregation: bool = False,
        experimental_aggregate_gradients: bool = True,
    ) -> "keras.Variable":
        """Applies gradients, after reducing them if `compute_gradients` has not.

        Collective: every rank must call this.

        Args:
            grads_and_vars: pairs of gradient and variable.
            name: no effect; Horovod has it.
            skip_gradients_aggregation: whether the gradients are applied as they are.
            experimental_aggregate_gradients: the reverse of it, under its older name.

        Returns:
            The optimizer's count of updates.
        """
        pairs = grads_and_vars if isinstance(grads_and_vars, list) else list(grads_and_vars)
        gradients = [gradient for gradient, _ in pairs]
        variables = [variable for _, variable in pairs]
        as_they_are = skip_gradients_aggregation or not experimental_aggregate_gradients
        if isinstance(pairs, ReducedPairs) or as_they_are:
            self._apply_reduced(gradients, variables)
        else:
            self.apply(gradients, variables)
        return self._iterations

    def apply(
        self, grads: "Sequence[Gradient]", trainable_variables: "Sequence[Any] | None" = None
    ) -> None:
        """Reduces gradients and applies them. Collective: every rank must call this."""
        variables = self._variables_for(grads, trainable_variables)
        self._apply_reduced(self._reduced(grads, variables), variables)

    def _reduced(
        self, gradients: "Sequence[Gradient]", variables: Sequence[Any]
    ) -> "list[Gradient]":
        reduction = self.hvd_xai_distribution.reduction
        if self._agg_helper is None:
            return reduction.reduce(gradients, variables)
        sums: list[Gradient] = self._agg_helper.add(gradients, variables, reduction)
        return sums

    def _apply_reduced(self, gradients: "Sequence[Gradient]", variables: Sequence[Any]) -> None:
        if self._agg_helper is None:
            super().apply(gradients, variables)
            return
        # Built here: variables cannot be made inside a branch of the graph.
        if not self.built:
            with keras.name_scope(self.name, caller=self):
                self.build(variables)
        update = super().apply

        def updated() -> bool:
            update(gradients, variables)
            # Keras's loss scaling counts in the inner optimizer only; the sums go by this count.
            if isinstance(self, keras.optimizers.LossScaleOptimizer):
                self._iterations.assign_add(1)
            return True

        def counted() -> bool:
            for optimizer in with_inner(self):
                optimizer._iterations.assign_add(1)
            return False

        tf.cond(self._agg_helper.completes_step(), updated, counted)


class ReducesAccumulated(Distributed):
    """Reduces the gradients that Keras has accumulated, once for each update of the weights.

    Example:
        >>> import keras
        >>> import hvd_xai.keras as hvd
        >>> from hvd_xai.keras.optimizer_mixins import Distribution, ReducesAccumulated
        >>> from hvd_xai.keras.reduction import Reduction
        >>> world = hvd.init()
        >>> class Reducing(ReducesAccumulated, keras.optimizers.SGD):
        ...     hvd_xai_distribution = Distribution(Reduction())
        >>> weight = keras.Variable([1.0])
        >>> optimizer = Reducing(learning_rate=0.5, gradient_accumulation_steps=2)
        >>> for _ in range(2):
        ...     optimizer.apply([keras.ops.ones(1)], [weight])
        >>> weight.numpy().tolist()
        [0.5]
    """

    _reducing: Sequence[Any] = ()

    def apply(
        self, grads: "Sequence[Gradient]", trainable_variables: "Sequence[Any] | None" = None
    ) -> None:
        """Accumulates gradients, and applies them when enough are there.

        Collective: every rank must call this.
        """
        variables = self._variables_for(grads, trainable_variables)
        gradients = list(grads)
        # Values that overwrite their variable are not accumulated: Keras assigns them at each call.
        now = [index for index, variable in enumerate(variables) if overwrites(variable)]
        if now:
            largest = self.hvd_xai_distribution.reduction.reduce(
                [gradients[index] for index in now], [variables[index] for index in now]
            )
            for index, value in zip(now, largest, strict=True):
                gradients[index] = value
        # _clip_gradients gets gradients without their variables: these are the variables, as Keras
        # leaves them when it has taken out None and the values above.
        reducing = [
            variable
            for gradient, variable in zip(gradients, variables, strict=True)
            if gradient is not None and not overwrites(variable)
        ]
        # Past Keras's __setattr__, which would take the variables for the optimizer's own.
        object.__setattr__(self, "_reducing", reducing)
        super().apply(gradients, variables)

    def _clip_gradients(self, grads: "Sequence[Gradient]") -> "Sequence[Gradient]":
        # Keras calls this once for each update, with the accumulated gradients, before it clips. It
        # is private, but no public method is called at that moment. Ranks meet here together, since
        # Keras goes by the count of updates, which they have in common.
        reduced = self.hvd_xai_distribution.reduction.reduce(grads, self._reducing)
        clipped: Sequence[Gradient] = super()._clip_gradients(reduced)
        return clipped


class AgreesOnOverflow(Distributed):
    """Makes all ranks skip a batch on which the gradients of one rank overflow.

    It is for loss scaling around an optimizer that accumulates: the ranks agree on each batch, and
    the inner optimizer sends the accumulated gradients once.

    Args:
        inner_optimizer: optimizer with `gradient_accumulation_steps`, distributed or not.
        args: further positional arguments of the base class.
        kwargs: keyword arguments of the base class.

    Example:
        >>> import keras
        >>> import hvd_xai.keras as hvd
        >>> from hvd_xai.keras.optimizer_mixins import AgreesOnOverflow, Distribution
        >>> from hvd_xai.keras.reduction import Reduction
        >>> world = hvd.init()
        >>> class Agreeing(AgreesOnOverflow, keras.optimizers.LossScaleOptimizer):
        ...     hvd_xai_distribution = Distribution(Reduction())
        >>> inner = keras.optimizers.SGD(gradient_accumulation_steps=2)
        >>> bool(Agreeing(inner).check_finite([keras.ops.ones(1) / 0.0]))
        False
    """

    def __init__(
        self, inner_optimizer: "keras.optimizers.Optimizer", *args: Any, **kwargs: Any
    ) -> None:
        if not isinstance(inner_optimizer, Distributed):
            own = distributed_class(
                ReducesAccumulated, type(inner_optimizer), self.hvd_xai_distribution
            )
            distributed = own.from_config(inner_optimizer.get_config())
            copy_state(inner_optimizer, distributed)
            inner_optimizer = distributed
        super().__init__(inner_optimizer, *args, **kwargs)

    def register_local_var(self, var: object) -> None:
        """Leaves the gradient of a variable on its rank."""
        self.inner_optimizer.register_local_var(var)

    def check_finite(self, grads: "Sequence[Gradient]") -> "tf.Tensor":
        """Returns whether the gradients of all ranks are finite.

        Collective: every rank must call this.
        """
        refuse_xla()
        return self.hvd_xai_distribution.reduction.everywhere(super().check_finite(grads))


def distributed_class(
    mixin: type[Distributed], base: type[OptimizerT], distribution: Distribution
) -> type[OptimizerT]:
    """Returns the subclass of an optimizer's class that reduces over the ranks.

    Args:
        mixin: mixin that fits the way in which Keras calls the optimizer.
        base: Keras's class, or a class of the user.
        distribution: how gradients are reduced.
    """
    # Keras writes name and module of the class into a .keras file. With those of the base, the file
    # loads as a plain optimizer where this library is not installed.
    names = {"__qualname__": base.__qualname__, "__module__": base.__module__}
    return type(base.__name__, (mixin, base), {**names, "hvd_xai_distribution": distribution})
