"""Reduces gradients over the ranks, for the optimizer and for the tape."""

import itertools
import warnings
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import horovod.tensorflow as horovod
import keras
import tensorflow as tf
from horovod.tensorflow.compression import Compressor

from hvd_xai.keras.collectives import sendable
from hvd_xai.keras.horovod_names import Adasum, Average, Compression, Max, size
from hvd_xai.keras.start import is_started

Gradient: TypeAlias = "tf.Tensor | tf.IndexedSlices | None"
# `Any` is a variable, of Keras or of TensorFlow.
Groups: TypeAlias = "int | list[list[Any]] | None"

# One count for each process set: ranks outside a set may make no reduction over it, and the names
# must be equal on all ranks of the set.
_MADE: defaultdict[tuple[int, ...], "itertools.count[int]"] = defaultdict(itertools.count)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reduction:
    """Reduces gradients over the ranks.

    The options are those of `DistributedOptimizer`, which documents them.

    Attributes:
        name: name of the collectives, the same on all ranks and different from the name of every
            other reduction.
        local: keys of the variables whose gradients stay on their rank.

    Raises:
        ValueError: if the options do not fit together.

    Example:
        >>> import tensorflow as tf
        >>> import hvd_xai.keras as hvd
        >>> from hvd_xai.keras.reduction import Reduction
        >>> world = hvd.init()
        >>> weight, unused = tf.Variable([1.0]), tf.Variable([1.0])
        >>> dense, none = Reduction(op=hvd.Max).reduce([tf.constant([2.0]), None], [weight, unused])
        >>> dense.numpy().tolist(), none
        ([2.0], None)
    """

    name: str = "hvd_xai.gradients"
    op: int = Average
    compression: type[Compressor] = Compression.none
    sparse_as_dense: bool = False
    gradient_predivide_factor: float = 1.0
    groups: Groups = None
    process_set: horovod.ProcessSet = horovod.global_process_set
    scale_local_gradients: bool = True
    device_dense: str = ""
    device_sparse: str = ""
    local: set[Hashable] = field(default_factory=set)

    def __post_init__(self) -> None:
        _check(self.op, self.gradient_predivide_factor, self.groups, self.process_set)

    @property
    def leaves_out_this_rank(self) -> bool:
        """Whether this rank is not in the process set, and keeps its gradients as they are."""
        return self.process_set.process_set_id != 0 and not self.process_set.included()

    def numbered(self) -> "Reduction":
        """Returns a copy whose name no reduction had before.

        Collective: every rank of the process set must call this.
        """
        ranks = () if self.process_set.process_set_id == 0 else tuple(self.process_set.ranks)
        return replace(self, name=f"{self.name}.{next(_MADE[ranks])}")

    def reduce(self, gradients: "Sequence[Gradient]", variables: Sequence[Any]) -> "list[Gradient]":
        """Returns the gradients of all ranks.

        Collective: every rank of the process set must call this.

        Args:
            gradients: this rank's gradients, one for each variable; None, as for a head that the
                loss does not use, stays None, and must be None on every rank.
            variables: Keras's or TensorFlow's variables.
        """
        reduced = list(gradients)
        if self.leaves_out_this_rank:
            return reduced
        # Horovod pairs tensors by name and waits for ever for a name that another rank does not
        # send. All names below are made of the position in `gradients`, which ranks have in common,
        # and of nothing that Keras or TensorFlow counts in each process.
        dense, overwriting = [], []
        for index, (gradient, variable) in enumerate(zip(gradients, variables, strict=True)):
            if gradient is None:
                continue
            if self.is_local(variable):
                reduced[index] = self._scaled(gradient) if self.scale_local_gradients else gradient
            elif overwrites(variable):
                overwriting.append((index, tf.convert_to_tensor(gradient)))
            elif self._travels_as_slices(gradient):
                reduced[index] = self._gather_slices(gradient, name=f"{self.name}.{index}")
            else:
                dense.append((index, tf.convert_to_tensor(gradient)))
        for number, group in enumerate(_grouped(dense, variables, self.groups)):
            indices, tensors = zip(*group, strict=True)
            values = self._reduce_dense(tensors, name=f"{self.name}.group{number}", op=self.op)
            for index, value in zip(indices, values, strict=True):
                reduced[index] = value
        for index, tensor in overwriting:
            (reduced[index],) = self._reduce_dense(
                [tensor], name=f"{self.name}.{index}.largest", op=Max
            )
        return reduced

    def everywhere(self, claim: "tf.Tensor") -> "tf.Tensor":
        """Returns whether a claim is true on all ranks.

        Collective: every rank of the process set must call this.
        """
        if self.leaves_out_this_rank:
            return claim
        # Horovod does not reduce booleans: the largest doubt is 0 where no rank has any.
        doubt = tf.cast(tf.logical_not(claim), tf.float32)
        (doubts,) = self._reduce_dense([doubt], name=f"{self.name}.claim", op=Max)
        return tf.equal(doubts, 0.0)

    def is_local(self, variable: object) -> bool:
        """Returns whether the gradient of this variable stays on its rank."""
        return bool(self.local) and key(variable) in self.local

    def keep_local(self, variables: Iterable[object]) -> None:
        """Leaves the gradients of these variables on their rank from now on."""
        self.local.update(key(variable) for variable in variables)

    def _travels_as_slices(self, gradient: "tf.Tensor | tf.IndexedSlices") -> bool:
        sparse = isinstance(gradient, tf.IndexedSlices)
        return sparse and not self.sparse_as_dense and self.op != Adasum

    def _reduce_dense(
        self, tensors: "Sequence[tf.Tensor]", *, name: str, op: int
    ) -> "list[tf.Tensor]":
        sent = [sendable(tensor) for tensor in tensors]
        # sum(gradient / f) * f / size: the division of an average, split so that no sum overflows
        predivide = self.gradient_predivide_factor if op == Average else 1.0
        if op == Adasum:
            # One by one: Horovod's grouped allreduce fails with Adasum.
            received = [
                horovod.allreduce(
                    tensor,
                    op=op,
                    compression=self.compression,
                    name=f"{name}.{index}",
                    ignore_name_scope=True,
                    device_dense=self.device_dense,
                )
                for index, tensor in enumerate(sent)
            ]
        else:
            received = horovod.grouped_allreduce(
                sent,
                op=op,
                compression=self.compression if op != Max else Compression.none,
                name=name,
                ignore_name_scope=True,
                prescale_factor=1.0 / predivide,
                postscale_factor=predivide,
                process_set=self.process_set,
                device_dense=self.device_dense,
            )
        return [
            tf.cast(value, tensor.dtype) for tensor, value in zip(tensors, received, strict=True)
        ]

    def _gather_slices(self, gradient: "tf.IndexedSlices", *, name: str) -> "tf.IndexedSlices":
        """Reduces a sparse gradient: gathers the slices of all ranks.

        The optimizer adds the slices of one row when it applies them.
        """
        # Not Horovod's own reduction of slices: it names its tensors after TensorFlow's, which may
        # differ between ranks, and gives grouped slices the dense shape of their neighbours.
        with tf.device(self.device_sparse):
            values, context = self.compression.compress(sendable(gradient.values))
            values = horovod.allgather(
                values, name=f"{name}.values", ignore_name_scope=True, process_set=self.process_set
            )
            indices = horovod.allgather(
                gradient.indices,
                name=f"{name}.indices",
                ignore_name_scope=True,
                process_set=self.process_set,
            )
        values = tf.cast(self.compression.decompress(values, context), gradient.values.dtype)
        gathered = tf.IndexedSlices(values, indices, gradient.dense_shape)
        return self._scaled(gathered) if self.op == Average else gathered

    def _scaled(self, gradient: "tf.Tensor | tf.IndexedSlices") -> "tf.Tensor | tf.IndexedSlices":
        """Divides a gradient by the number of ranks."""
        sparse = isinstance(gradient, tf.IndexedSlices)
        values = gradient.values if sparse else tf.convert_to_tensor(gradient)
        # An op, asked when it runs: an elastic job changes the number and does not trace anew.
        n_ranks = horovod.size_op(process_set_id=self.process_set.process_set_id)
        values /= tf.cast(n_ranks, values.dtype)
        return (
            tf.IndexedSlices(values, gradient.indices, gradient.dense_shape) if sparse else values
        )


def key(variable: Any) -> Hashable:
    """Returns a key for sets and dictionaries, equal for a Keras variable and its TensorFlow one.

    Variables themselves are not hashable.
    """
    return (variable.value if isinstance(variable, keras.Variable) else variable).ref()  # type: ignore[no-any-return]


def overwrites(variable: object) -> bool:
    """Returns whether the "gradient" of this variable is its next value.

    Keras trains the scales of 8-bit floats so. Over the ranks such a value is reduced to the
    largest.
    """
    return bool(getattr(variable, "overwrite_with_gradient", False))


def resolve_groups(num_groups: int, groups: Groups) -> Groups:
    """Returns the groups, warning of the older name `num_groups` if that was used."""
    if num_groups == 0:
        return groups
    warnings.warn(
        "`num_groups` is Horovod's old name for `groups`; use `groups`",
        DeprecationWarning,
        # The line of the user who called `DistributedOptimizer`.
        stacklevel=3,
    )
    return num_groups if groups is None else groups


def trainable_variables_in(
    layers: "keras.layers.Layer | Iterable[keras.layers.Layer] | None",
) -> "list[keras.Variable]":
    """Returns the trainable variables of layers, which must be built.

    Raises:
        TypeError: if something other than layers is given.
    """
    several = [layers] if isinstance(layers, keras.layers.Layer) else list(layers or [])
    for layer in several:
        if not isinstance(layer, keras.layers.Layer):
            raise TypeError(f"local_layers must be Keras layers; got {type(layer).__name__}")
    return [variable for layer in several for variable in layer.trainable_weights]


def _check(op: int, predivide: float, groups: Groups, process_set: horovod.ProcessSet) -> None:
    if predivide != 1.0 and op != Average:
        raise ValueError(
            f"gradient_predivide_factor={predivide} splits the division of an average; it needs"
            " op=Average"
        )
    if groups is not None and not isinstance(groups, list) and not groups > 0:
        raise ValueError(
            f"groups must be a number above 0, or a list of lists of variables; got {groups}"
        )
    if op == Adasum:
        if process_set.process_set_id != 0:
            raise ValueError("Adasum reduces over all ranks; leave process_set out")
        if is_started() and size() & (size() - 1):
            raise ValueError(f"Adasum needs 2, 4, 8, ... ranks; there are {size()}. Use op=Average")
        if is_started() and size() > 1 and not horovod.mpi_enabled():
            raise ValueError(
                "Horovod has Adasum over MPI only, and this job runs over Gloo. Use op=Average, or"
                " start it with mpirun"
            )
    if process_set.process_set_id is None:
        raise ValueError(
            f"the process set of ranks {process_set.ranks} is not known to Horovod yet; pass it to"
            " init(process_sets=[...])"
        )


def _grouped(
    dense: "list[tuple[int, tf.Tensor]]", variables: Sequence[Any], groups: Groups
) -> "list[list[tuple[int, tf.Tensor]]]":
    """Returns the tensors in groups that travel together; in one group unless more are asked for.

    The tensors of a group have one dtype, as Horovod needs.
    """
    if isinstance(groups, list):
        named = {key(variable): number for number, group in enumerate(groups) for variable in group}
        # A variable in no list travels alone, under a number above all lists.
        chosen = [named.get(key(variables[index]), len(groups) + index) for index, _ in dense]
    else:
        # Five tensors in two groups:  position  0 1 2 3 4
        #                              group     0 0 0 1 1   (position * 2 // 5)
        n_groups = min(groups or 1, max(1, len(dense)))
        chosen = [position * n_groups // len(dense) for position in range(len(dense))]
    together: dict[tuple[int, str], list[tuple[int, tf.Tensor]]] = {}
    for number, (index, tensor) in zip(chosen, dense, strict=True):
        together.setdefault((number, tensor.dtype.name), []).append((index, tensor))
    return list(together.values())
