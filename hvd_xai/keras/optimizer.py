"""The optimizer that averages gradients over the ranks before it applies them."""

import itertools
import logging
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias, TypeVar

import horovod.tensorflow as horovod
import keras
import tensorflow as tf
from horovod.tensorflow.compression import Compressor

from hvd_xai.keras.collectives import Average, Compression
from hvd_xai.keras.passes import Passes
from hvd_xai.keras.reduction import (
    Gradient,
    Groups,
    Reduction,
    local_variables_of,
    overwrites,
    refuse_xla,
    resolve_groups,
)

log = logging.getLogger(__name__)

OptimizerT = TypeVar("OptimizerT", bound="keras.optimizers.Optimizer")

NewPasses: TypeAlias = "Callable[[keras.Variable], Passes | None]"

_MARK = "_hvd_xai_distributed"


class Reduced(list[tuple[Any, Any]]):
    """Gradients with their variables, reduced already."""


def DistributedOptimizer(  # noqa: N802, PLR0913, PLR0917
    optimizer: OptimizerT,
    name: str | None = None,
    device_dense: str = "",
    device_sparse: str = "",
    compression: type[Compressor] = Compression.none,
    sparse_as_dense: bool = False,
    gradient_predivide_factor: float = 1.0,
    op: int = Average,
    backward_passes_per_step: int = 1,
    average_aggregated_gradients: bool = False,
    num_groups: int = 0,
    groups: Groups = None,
    process_set: horovod.ProcessSet = horovod.global_process_set,
    scale_local_gradients: bool = True,
    *,
    local_variables: Iterable[Any] = (),
) -> OptimizerT:
    """Makes a Keras optimizer reduce gradients over the ranks before it applies them.

    The gradients of all ranks are reduced in one grouped ring-allreduce inside `apply`, so before
    clipping, weight decay and the moments see them: the weights stay bit-equal on all ranks, and
    equal to one process that trains on the concatenated batch, up to rounding. The optimizer keeps
    its class's name and module: a `.keras` file saved with it loads in plain Keras.

    Accumulated gradients are reduced once per update of the weights. There are two ways to
    accumulate k batches, of which one is used: Keras's `gradient_accumulation_steps=k` on the
    optimizer averages them, counts updates, and its sums are saved with the model. Horovod's
    `backward_passes_per_step=k` here adds them, or averages them when asked to; as in Horovod,
    `iterations`, and so schedules and Adam's bias correction, then count batches, and sums that are
    not applied yet are not saved.

    A `LossScaleOptimizer` is wrapped from outside, so that the ranks agree on whether a step
    overflowed. Under the policy `mixed_float16` Keras wraps a plain optimizer itself and would put
    that check inside one rank only; `BroadcastGlobalVariablesCallback` puts that right.

    Every rank must make its distributed optimizers in the same order.

    Args:
        optimizer: any Keras 3 optimizer; it is not changed, a copy made from its configuration is
            returned. One of a class of your own that cannot be made from its configuration, and so
            not loaded from a file either, is changed and returned itself.
        name: what the collectives are called in Horovod's timeline, followed by a number.
        device_dense: where dense gradients are reduced, as "/gpu:0"; by default TensorFlow chooses.
        device_sparse: where sparse gradients are gathered.
        compression: `Compression.fp16` halves the traffic; gradients below 6e-8 become zero.
        sparse_as_dense: turns the sparse gradients of embeddings into dense ones; faster when most
            rows are touched.
        gradient_predivide_factor: f; an average is taken as sum(gradient / f) * f / size, where a
            plain sum would overflow.
        op: `Average`, `Sum` or `Adasum`.
        backward_passes_per_step: batches whose gradients are added up before one reduction and one
            update.
        average_aggregated_gradients: divides their sum by their number.
        num_groups: Horovod's old name for `groups`.
        groups: in how many allreduces the gradients travel, or lists of variables that travel
            together, each other one alone. By default all travel together, which is fastest unless
            a model is so large that reducing can begin before its gradients are all there.
        process_set: the ranks to reduce over. Another rank keeps its gradients as they are, and is
            warned; in `fit`, `BroadcastGlobalVariablesCallback` refuses that on all ranks.
        scale_local_gradients: divides the gradients of local variables by the number of ranks, as
            an average of zeros elsewhere would.
        local_variables: variables of this rank alone, as expert layers: their gradients are not
            reduced. Later ones are named with the optimizer's `register_local_var(variable)`.

    Returns:
        An optimizer of a subclass of `type(optimizer)` with the same name.

    Raises:
        TypeError: if this is no Keras 3 optimizer.
        ValueError: if it is distributed already, as its gradients would be reduced twice, or the
            options do not fit together.

    Reference:
        Sergeev, Del Balso: Horovod: fast and easy distributed deep learning in TensorFlow, 2018.
        https://arxiv.org/abs/1802.05799
    """
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(
            "DistributedOptimizer needs a Keras 3 optimizer, as keras.optimizers.Adam(); got"
            f" {type(optimizer).__name__}"
        )
    if is_distributed(optimizer):
        raise ValueError(f"'{optimizer.name}' is distributed already; wrap it once")
    if backward_passes_per_step < 1:
        raise ValueError(
            f"backward_passes_per_step must be 1 or more; got {backward_passes_per_step}"
        )
    if backward_passes_per_step > 1 and _accumulates(optimizer):
        raise ValueError(
            f"'{optimizer.name}' has"
            f" gradient_accumulation_steps={_innermost(optimizer).gradient_accumulation_steps} and"
            f" would accumulate again over backward_passes_per_step={backward_passes_per_step};"
            " give one of the two"
        )
    reduction = Reduction(
        name=name or "hvd_xai.gradients",
        op=op,
        compression=compression,
        sparse_as_dense=sparse_as_dense,
        gradient_predivide_factor=gradient_predivide_factor,
        groups=resolve_groups(num_groups, groups),
        process_set=process_set,
        scale_local_gradients=scale_local_gradients,
        device_dense=device_dense,
        device_sparse=device_sparse,
    ).numbered()
    if reduction.leaves_out_this_rank:
        log.warning(
            "this rank is not in the process set of ranks %s, over which '%s' reduces",
            process_set.ranks,
            optimizer.name,
        )

    def new_passes(clock: "keras.Variable") -> Passes | None:
        if backward_passes_per_step == 1:
            return None
        return Passes(backward_passes_per_step, average=average_aggregated_gradients, clock=clock)

    own = _subclass(type(optimizer), reduction, new_passes, accumulates=_accumulates(optimizer))
    try:
        distributed: OptimizerT = own.from_config(optimizer.get_config())
    except TypeError:  # __init__ does not take what get_config gives, or Keras does not know a class that is wrapped
        distributed = optimizer
        _become_distributed(optimizer, reduction, new_passes)
    else:
        _copy_state(optimizer, distributed)
    for variable in local_variables:
        distributed.register_local_var(variable)
    return distributed


def PartialDistributedOptimizer(  # noqa: N802
    optimizer: OptimizerT,
    name: str | None = None,
    device_dense: str = "",
    device_sparse: str = "",
    compression: type[Compressor] = Compression.none,
    sparse_as_dense: bool = False,
    gradient_predivide_factor: float = 1.0,
    op: int = Average,
    groups: Groups = None,
    process_set: horovod.ProcessSet = horovod.global_process_set,
    local_layers: "keras.layers.Layer | Iterable[keras.layers.Layer] | None" = None,
    scale_local_gradients: bool = True,
) -> OptimizerT:
    """Makes a Keras optimizer reduce gradients over the ranks, but for those of layers that each
    rank has for itself.

    Args:
        optimizer: as everything but the following, an argument of `DistributedOptimizer`.
        name: see there.
        device_dense: see there.
        device_sparse: see there.
        compression: see there.
        sparse_as_dense: see there.
        gradient_predivide_factor: see there.
        op: see there.
        groups: see there.
        process_set: see there.
        local_layers: built layers whose gradients stay on their rank.
        scale_local_gradients: see there.

    Returns:
        As `DistributedOptimizer`.
    """
    return DistributedOptimizer(
        optimizer, name, device_dense, device_sparse, compression, sparse_as_dense, gradient_predivide_factor, op, groups=groups,
        process_set=process_set, scale_local_gradients=scale_local_gradients, local_variables=local_variables_of(local_layers),
    )  # fmt: skip


def is_distributed(optimizer: object) -> bool:
    """Returns whether gradients given to this optimizer, or to one that it wraps, are reduced over
    the ranks.
    """
    return reduction_of(optimizer) is not None


def reduction_of(optimizer: object) -> Reduction | None:
    """Returns how gradients given to this optimizer, or to one that it wraps, are reduced over the
    ranks; None if they are not.
    """
    if hasattr(type(optimizer), _MARK):
        reduction: Reduction = getattr(type(optimizer), _MARK)[0]
        return reduction
    return (
        reduction_of(optimizer.inner_optimizer) if hasattr(optimizer, "inner_optimizer") else None
    )


def reduces_after_overflow_check(optimizer: object) -> bool:
    """Returns whether each rank would check for overflow on its own, before the reduction: ranks
    that disagree would hang.
    """
    wraps = hasattr(optimizer, "inner_optimizer") and not hasattr(type(optimizer), _MARK)
    return wraps and is_distributed(getattr(optimizer, "inner_optimizer", None))


def reduce_before_overflow_check(optimizer: "keras.optimizers.LossScaleOptimizer") -> None:
    """Puts right, in place, a `LossScaleOptimizer` that Keras has put around a distributed
    optimizer: the reduction moves outwards.
    """
    inner = optimizer.inner_optimizer
    reduction, new_passes = getattr(type(inner), _MARK)
    if not _accumulates(inner):
        inner.__class__ = type(inner).__bases__[0]
    _become_distributed(optimizer, reduction, new_passes)


def _become_distributed(
    optimizer: "keras.optimizers.Optimizer", reduction: Reduction, new_passes: NewPasses
) -> None:
    """Makes an optimizer reduce over the ranks in place."""
    accumulates = _accumulates(optimizer)
    if (
        accumulates
        and _is_loss_scale(type(optimizer))
        and not is_distributed(optimizer.inner_optimizer)
    ):
        _become_distributed(optimizer.inner_optimizer, reduction, new_passes)
    optimizer.__class__ = _subclass(type(optimizer), reduction, new_passes, accumulates=accumulates)
    optimizer._agg_helper = new_passes(optimizer._iterations)


def _subclass(
    base: type[OptimizerT], reduction: Reduction, new_passes: NewPasses, *, accumulates: bool
) -> type[OptimizerT]:
    """Returns the distributed subclass of an optimizer's class.

    Args:
        base: Keras's class, or the user's own.
        reduction: over the ranks.
        new_passes: makes the sums of an optimizer that adds up several backward passes.
        accumulates: whether Keras itself accumulates.
    """
    if accumulates:
        own = (
            _scaling_subclass(base, reduction, new_passes)
            if _is_loss_scale(base)
            else _accumulating_subclass(base, reduction)
        )
    else:
        own = _reducing_subclass(base, reduction, new_passes)
    # Keras writes class name and module into the file: with the base's, it loads without us
    own.__name__, own.__qualname__, own.__module__ = (
        base.__name__,
        base.__qualname__,
        base.__module__,
    )
    setattr(own, _MARK, (reduction, new_passes))
    return own  # type: ignore[no-any-return]  # keras ships no types


def _reducing_subclass(base: Any, reduction: Reduction, new_passes: NewPasses) -> Any:
    class Distributed(base):  # type: ignore[misc]  # as above
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._agg_helper = new_passes(self._iterations)  # Horovod's name for it

        def register_local_var(self, var: object) -> None:
            """Takes a variable out of the reduction: it is this rank's own."""
            if getattr(self, "global_clipnorm", None):
                raise ValueError(
                    "global_clipnorm with local variables would clip each rank by another norm; use"
                    " clipnorm or clipvalue"
                )
            reduction.keep_local([var])

        def compute_gradients(
            self,
            loss: "Callable[[], tf.Tensor] | tf.Tensor",
            var_list: Sequence[Any],
            tape: "tf.GradientTape | None" = None,
        ) -> Reduced:
            """Returns the gradients of all ranks with their variables, for `apply_gradients`.

            Collective: every rank must call this.
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
            sources = [
                variable.value if isinstance(variable, keras.Variable) else variable
                for variable in var_list
            ]
            return Reduced(
                zip(self._reduced(tape.gradient(value, sources), var_list), var_list, strict=True)
            )

        _compute_gradients = compute_gradients  # Horovod has both names

        def apply_gradients(
            self,
            grads_and_vars: "Iterable[tuple[Gradient, Any]]",
            name: str | None = None,
            skip_gradients_aggregation: bool = False,
            experimental_aggregate_gradients: bool = True,
        ) -> "keras.Variable":
            """Reduces gradients that are not reduced yet, and applies them.

            Collective: every rank must call this.
            """
            pairs = grads_and_vars if isinstance(grads_and_vars, list) else list(grads_and_vars)
            gradients, variables = (
                [gradient for gradient, _ in pairs],
                [variable for _, variable in pairs],
            )
            if (
                isinstance(pairs, Reduced)
                or skip_gradients_aggregation
                or not experimental_aggregate_gradients
            ):
                self._apply_reduced(gradients, variables)
            else:
                self.apply(gradients, variables)
            return self._iterations

        def apply(
            self, grads: "Sequence[Gradient]", trainable_variables: "Sequence[Any] | None" = None
        ) -> None:
            refuse_xla()
            _refuse_loss_scaling_around(self)
            variables = (
                self._trainable_variables
                if trainable_variables is None
                else list(trainable_variables)
            )
            if len(grads) != len(variables):
                super().apply(grads, trainable_variables)  # says what is wrong
                return
            self._apply_reduced(self._reduced(grads, variables), variables)

        def _reduced(
            self, gradients: "Sequence[Gradient]", variables: Sequence[Any]
        ) -> "list[Gradient]":
            if self._agg_helper is None:
                return reduction.reduce(gradients, variables)
            passes: list[Gradient] = self._agg_helper.add(gradients, variables, reduction)
            return passes

        def _apply_reduced(self, gradients: "Sequence[Gradient]", variables: Sequence[Any]) -> None:
            if self._agg_helper is None:
                super().apply(gradients, variables)
                return
            if not self.built:
                with keras.name_scope(self.name, caller=self):
                    self.build(variables)
            update = super().apply

            def updated() -> bool:
                update(gradients, variables)
                if _is_loss_scale(base):  # its own count stands still otherwise
                    self._iterations.assign_add(1)
                return True

            def counted() -> bool:
                for optimizer in _with_inner(self):
                    optimizer._iterations.assign_add(1)
                return False

            tf.cond(self._agg_helper.completes_step(), updated, counted)

    return Distributed


def _accumulating_subclass(base: Any, reduction: Reduction) -> Any:
    class Distributed(base):  # type: ignore[misc]  # as above
        _reducing: Sequence[Any] = ()

        def register_local_var(self, var: object) -> None:
            """Takes a variable out of the reduction: it is this rank's own."""
            if self.global_clipnorm:
                raise ValueError(
                    "global_clipnorm with local variables would clip each rank by another norm; use"
                    " clipnorm or clipvalue"
                )
            reduction.keep_local([var])

        def apply(
            self, grads: "Sequence[Gradient]", trainable_variables: "Sequence[Any] | None" = None
        ) -> None:
            refuse_xla()
            _refuse_loss_scaling_around(self)
            variables = (
                self._trainable_variables
                if trainable_variables is None
                else list(trainable_variables)
            )
            if len(grads) != len(variables):
                super().apply(grads, trainable_variables)  # says what is wrong
                return
            gradients = list(grads)
            now = [index for index, variable in enumerate(variables) if overwrites(variable)]
            if now:
                largest = reduction.reduce(
                    [gradients[index] for index in now], [variables[index] for index in now]
                )
                for index, value in zip(now, largest, strict=True):
                    gradients[index] = value
            reducing = [
                variable for gradient, variable in zip(gradients, variables, strict=True)
                if gradient is not None and not overwrites(variable)
            ]  # fmt: skip
            # not as an attribute that Keras tracks: it would take the variables for the optimizer's
            # own
            object.__setattr__(self, "_reducing", reducing)
            super().apply(gradients, variables)

        def _clip_gradients(self, grads: "Sequence[Gradient]") -> "Sequence[Gradient]":
            # Keras calls this once per update, with the accumulated gradients, and before it clips;
            # no public method is called so
            clipped: Sequence[Gradient] = super()._clip_gradients(
                reduction.reduce(grads, self._reducing)
            )
            return clipped

    return Distributed


def _scaling_subclass(base: Any, reduction: Reduction, new_passes: NewPasses) -> Any:
    """Loss scaling around an optimizer that accumulates: each batch's check for overflow is agreed
    on, the gradients travel once.
    """

    class Distributed(base):  # type: ignore[misc]  # as above
        def __init__(
            self, inner_optimizer: "keras.optimizers.Optimizer", *args: Any, **kwargs: Any
        ) -> None:
            if not is_distributed(inner_optimizer):
                distributed = _subclass(
                    type(inner_optimizer), reduction, new_passes, accumulates=True
                ).from_config(inner_optimizer.get_config())
                _copy_state(inner_optimizer, distributed)
                inner_optimizer = distributed
            super().__init__(inner_optimizer, *args, **kwargs)

        def register_local_var(self, var: object) -> None:
            """Takes a variable out of the reduction: it is this rank's own."""
            self.inner_optimizer.register_local_var(var)

        def check_finite(self, grads: "Sequence[Gradient]") -> "tf.Tensor":
            refuse_xla()
            return reduction.everywhere(super().check_finite(grads))

    return Distributed


def _refuse_loss_scaling_around(optimizer: "keras.optimizers.Optimizer") -> None:
    """Raises while the training step is traced, before anything travels, where ranks that disagree
    on an overflow would hang.
    """
    for frame, _ in itertools.islice(traceback.walk_stack(None), 8):
        caller = frame.f_locals.get("self")
        if (
            caller is not None
            and caller is not optimizer
            and _is_loss_scale(type(caller))
            and reduces_after_overflow_check(caller)
        ):
            raise ValueError(LOSS_SCALING_AROUND)


LOSS_SCALING_AROUND = (
    "a LossScaleOptimizer is around your distributed optimizer, so that an overflow on one rank"
    " would hang the others; under mixed_float16 Keras puts it there. Compile with"
    " optimizer=DistributedOptimizer(keras.optimizers.LossScaleOptimizer(optimizer)), or pass"
    " BroadcastGlobalVariablesCallback to fit, which puts it right."
)


def _copy_state(
    optimizer: "keras.optimizers.Optimizer", copy: "keras.optimizers.Optimizer"
) -> None:
    """Copies what the configuration does not hold: variables, and what weight decay leaves out."""
    for mine, theirs in zip(_with_inner(optimizer), _with_inner(copy), strict=True):
        for name in ("_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern"):
            if hasattr(mine, name):
                setattr(theirs, name, getattr(mine, name))
    if optimizer.built:
        copy.build(optimizer._trainable_variables)  # Keras has no public name for it
        for mine, theirs in zip(optimizer.variables, copy.variables, strict=True):
            theirs.assign(mine)


def _with_inner(optimizer: "keras.optimizers.Optimizer") -> "list[keras.optimizers.Optimizer]":
    """Returns the optimizer and those that it wraps."""
    inner = (
        [optimizer.inner_optimizer]
        if hasattr(optimizer, "inner_optimizer")
        else getattr(optimizer, "_inner_optimizers", [])
    )
    return [optimizer, *inner]


def _innermost(optimizer: "keras.optimizers.Optimizer") -> "keras.optimizers.Optimizer":
    return getattr(optimizer, "inner_optimizer", optimizer)


def _accumulates(optimizer: "keras.optimizers.Optimizer") -> bool:
    """Returns whether Keras accumulates gradients in this optimizer, or in the one whose loss it
    scales.
    """
    return bool(_innermost(optimizer).gradient_accumulation_steps)


def _is_loss_scale(kind: type) -> bool:
    return issubclass(kind, keras.optimizers.LossScaleOptimizer)
