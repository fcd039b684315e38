"""Makes a Keras optimizer average gradients over the ranks before it applies them."""

import logging
from collections.abc import Iterable
from typing import Any, TypeVar

import horovod.tensorflow as horovod
import keras
from horovod.tensorflow.compression import Compressor

from hvd_xai.keras.distribute import distribute, is_distributed
from hvd_xai.keras.horovod_names import Average, Compression
from hvd_xai.keras.optimizer_mixins import Distribution
from hvd_xai.keras.optimizer_parts import accumulates_in_keras
from hvd_xai.keras.reduction import Groups, Reduction, resolve_groups, trainable_variables_in

log = logging.getLogger(__name__)

OptimizerT = TypeVar("OptimizerT", bound="keras.optimizers.Optimizer")


def DistributedOptimizer(  # noqa: N802, PLR0913, PLR0917  # Horovod's name and signature
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

    Collective: every rank must make its distributed optimizers in the same order.

    One grouped allreduce in `apply` reduces the gradients of all ranks, before clipping, weight
    decay and moments see them. So the weights stay bit-equal on all ranks and equal those of one
    process that trains on the concatenated batch, up to rounding. The optimizer keeps the name and
    module of its class: a `.keras` file that is saved with it loads in plain Keras.

    Gradients of k batches can be accumulated, and are then reduced once for each update of the
    weights, in one of two ways. Keras's `gradient_accumulation_steps=k` on the optimizer averages
    them, counts updates in `iterations`, and saves its sums with the model. Horovod's
    `backward_passes_per_step=k` adds them, or averages them if asked to; as in Horovod,
    `iterations`, and with it schedules and Adam's bias correction, then counts batches, and sums
    that are not applied yet are not saved.

    A `LossScaleOptimizer` belongs inside, so that all ranks agree on whether a step overflowed:
    `DistributedOptimizer(LossScaleOptimizer(optimizer))`. Under the policy `mixed_float16` Keras
    puts a LossScaleOptimizer around a plain optimizer by itself, where each rank would check for
    overflow alone; `BroadcastGlobalVariablesCallback` puts that right.

    Args:
        optimizer: any Keras 3 optimizer. It is not changed; a copy is made from its configuration.
            Only an optimizer of a class of your own that cannot be made from its configuration, and
            so cannot be loaded from a file either, is changed and returned itself.
        name: name of the collectives in Horovod's timeline, to which a number is added.
        device_dense: device that reduces dense gradients, such as "/gpu:0"; TensorFlow chooses if
            it is empty.
        device_sparse: device that gathers sparse gradients; TensorFlow chooses if it is empty.
        compression: encoding of what travels. `Compression.fp16` halves the traffic; gradients
            below 6e-8 become zero.
        sparse_as_dense: whether sparse gradients, as of embeddings, are made dense before they are
            reduced; faster where a batch touches most rows.
        gradient_predivide_factor: factor f that splits the division of an average into
            sum(gradient / f) * f / size, for gradients whose plain sum would overflow.
        op: `Average`, `Sum` or `Adasum`.
        backward_passes_per_step: number of batches whose gradients are added up before one
            reduction and one update.
        average_aggregated_gradients: whether the sum over those batches is divided by their number.
        num_groups: Horovod's older name for `groups`.
        groups: number of allreduces that the gradients are shared out to, or lists of variables
            that travel together while each other variable travels alone. By default all gradients
            travel together, which is fastest unless a model is so large that the first gradients
            can travel before the last ones are computed.
        process_set: ranks to reduce over. A rank outside keeps its own gradients, and logs a
            warning; in `fit`, `BroadcastGlobalVariablesCallback` then raises on all ranks.
        scale_local_gradients: whether gradients of local variables are divided by the number of
            ranks, as an average with zeros elsewhere would be.
        local_variables: variables that each rank trains for itself, as in expert layers; their
            gradients are not reduced. `optimizer.register_local_var(variable)` adds one later.

    Returns:
        An optimizer of a subclass of `type(optimizer)` with the same name.

    Raises:
        TypeError: if `optimizer` is no Keras 3 optimizer.
        ValueError: if it is distributed already, since its gradients would be reduced twice, or if
            the options do not fit together.

    Example:
        >>> import keras
        >>> import hvd_xai.keras as hvd
        >>> world = hvd.init()
        >>> optimizer = hvd.DistributedOptimizer(keras.optimizers.SGD(0.5 * world.size))
        >>> weight = keras.Variable([1.0])
        >>> optimizer.apply([keras.ops.ones(1) / world.size], [weight])
        >>> weight.numpy().tolist(), type(optimizer).__name__
        ([0.5], 'SGD')

    Reference:
        Sergeev, Del Balso: Horovod: fast and easy distributed deep learning in TensorFlow, 2018.
        https://arxiv.org/abs/1802.05799
    """
    _check(optimizer, backward_passes_per_step)
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
    distributed = distribute(
        optimizer, Distribution(reduction, backward_passes_per_step, average_aggregated_gradients)
    )
    for variable in local_variables:
        distributed.register_local_var(variable)
    return distributed


def PartialDistributedOptimizer(  # noqa: N802, PLR0913  # Horovod's name and signature
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
    """Makes a Keras optimizer reduce all gradients but those of some local layers.

    Collective: every rank must make its distributed optimizers in the same order.

    All parameters but `local_layers` are those of `DistributedOptimizer`, which says more of each.

    Args:
        optimizer: any Keras 3 optimizer; it is not changed.
        name: name of the collectives in Horovod's timeline, to which a number is added.
        device_dense: device that reduces dense gradients; TensorFlow chooses if it is empty.
        device_sparse: device that gathers sparse gradients; TensorFlow chooses if it is empty.
        compression: encoding of what travels.
        sparse_as_dense: whether sparse gradients are made dense before they are reduced.
        gradient_predivide_factor: factor that splits the division of an average.
        op: `Average`, `Sum` or `Adasum`.
        groups: number of allreduces, or lists of variables that travel together.
        process_set: ranks to reduce over.
        local_layers: built layer or layers whose gradients stay on their rank.
        scale_local_gradients: whether gradients of local layers are divided by the number of ranks.

    Returns:
        An optimizer of a subclass of `type(optimizer)` with the same name.

    Raises:
        TypeError: if `optimizer` is no Keras 3 optimizer, or `local_layers` are no layers.
        ValueError: if the options do not fit together.

    Example:
        >>> import keras
        >>> import hvd_xai.keras as hvd
        >>> world = hvd.init()
        >>> expert = keras.layers.Dense(2)
        >>> expert.build((None, 3))
        >>> adam = keras.optimizers.Adam(name="mine")
        >>> hvd.PartialDistributedOptimizer(adam, local_layers=expert).name
        'mine'
    """
    return DistributedOptimizer(
        optimizer,
        name,
        device_dense,
        device_sparse,
        compression,
        sparse_as_dense,
        gradient_predivide_factor,
        op,
        groups=groups,
        process_set=process_set,
        scale_local_gradients=scale_local_gradients,
        local_variables=trainable_variables_in(local_layers),
    )


def _check(optimizer: object, backward_passes_per_step: int) -> None:
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
    if backward_passes_per_step > 1 and accumulates_in_keras(optimizer):
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        raise ValueError(
            f"'{optimizer.name}' has"
            f" gradient_accumulation_steps={inner.gradient_accumulation_steps} and would accumulate"
            f" again over backward_passes_per_step={backward_passes_per_step}; give one of the two"
        )
