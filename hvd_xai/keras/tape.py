"""Wraps a gradient tape so that it returns the gradients of all ranks."""

import weakref
from collections.abc import Iterable
from dataclasses import replace
from types import TracebackType
from typing import Any

import horovod.tensorflow as horovod
import keras
import tensorflow as tf
from horovod.tensorflow.compression import Compressor

from hvd_xai.keras.collectives import Calls, count_call
from hvd_xai.keras.horovod_names import Average, Compression
from hvd_xai.keras.reduction import (
    Gradient,
    Groups,
    Reduction,
    resolve_groups,
    trainable_variables_in,
)
from hvd_xai.keras.xla import refuse_xla

_GRADIENTS: Calls = weakref.WeakKeyDictionary()


def DistributedGradientTape(  # noqa: N802, PLR0913  # Horovod's name and signature
    gradtape: "tf.GradientTape",
    device_dense: str = "",
    device_sparse: str = "",
    compression: type[Compressor] = Compression.none,
    sparse_as_dense: bool = False,
    op: int = Average,
    gradient_predivide_factor: float = 1.0,
    num_groups: int = 0,
    groups: Groups = None,
    process_set: horovod.ProcessSet = horovod.global_process_set,
    scale_local_gradients: bool = True,
) -> "DistributedTape":
    """Wraps a tape so that its `gradient` returns the gradients of all ranks.

    Use it in a training loop of your own, with a plain optimizer. With a `DistributedOptimizer` use
    a plain tape instead: the optimizer reduces the gradients that it is given.

    Args:
        gradtape: tape, before or after it has recorded.
        device_dense: device that reduces dense gradients, such as "/gpu:0"; TensorFlow chooses if
            it is empty.
        device_sparse: device that gathers sparse gradients; TensorFlow chooses if it is empty.
        compression: encoding of what travels. `Compression.fp16` halves the traffic; gradients
            below 6e-8 become zero.
        sparse_as_dense: whether sparse gradients are made dense before they are reduced.
        op: `Average`, `Sum` or `Adasum`.
        gradient_predivide_factor: factor f that splits the division of an average into
            sum(gradient / f) * f / size.
        num_groups: Horovod's older name for `groups`.
        groups: number of allreduces that the gradients are shared out to, or lists of variables
            that travel together while each other variable travels alone.
        process_set: ranks to reduce over; a rank outside keeps its own gradients.
        scale_local_gradients: whether gradients of local sources are divided by the number of
            ranks.

    Returns:
        A tape whose `gradient` reduces over the ranks; all else is that of the tape given.

    Raises:
        ValueError: if the options do not fit together.

    Example:
        >>> import tensorflow as tf
        >>> import hvd_xai.keras as hvd
        >>> world = hvd.init()
        >>> weight = tf.Variable(3.0)
        >>> with hvd.DistributedGradientTape(tf.GradientTape()) as tape:
        ...     loss = weight**2
        >>> float(tape.gradient(loss, weight))
        6.0
    """
    return DistributedTape(
        gradtape,
        Reduction(
            # One name for all tapes, since a loop makes a tape at each step.
            name="hvd_xai.tape",
            op=op,
            compression=compression,
            sparse_as_dense=sparse_as_dense,
            gradient_predivide_factor=gradient_predivide_factor,
            groups=resolve_groups(num_groups, groups),
            process_set=process_set,
            scale_local_gradients=scale_local_gradients,
            device_dense=device_dense,
            device_sparse=device_sparse,
        ),
    )


def PartialDistributedGradientTape(  # noqa: N802, PLR0913  # Horovod's name and signature
    gradtape: "tf.GradientTape",
    device_dense: str = "",
    device_sparse: str = "",
    compression: type[Compressor] = Compression.none,
    sparse_as_dense: bool = False,
    op: int = Average,
    gradient_predivide_factor: float = 1.0,
    num_groups: int = 0,
    groups: Groups = None,
    process_set: horovod.ProcessSet = horovod.global_process_set,
    local_layers: "keras.layers.Layer | Iterable[keras.layers.Layer] | None" = None,
    scale_local_gradients: bool = True,
) -> "DistributedTape":
    """Wraps a tape so that it reduces all gradients but those of some local layers.

    All parameters but `local_layers` are those of `DistributedGradientTape`, which says more of
    each.

    Args:
        gradtape: tape, before or after it has recorded.
        device_dense: device that reduces dense gradients; TensorFlow chooses if it is empty.
        device_sparse: device that gathers sparse gradients; TensorFlow chooses if it is empty.
        compression: encoding of what travels.
        sparse_as_dense: whether sparse gradients are made dense before they are reduced.
        op: `Average`, `Sum` or `Adasum`.
        gradient_predivide_factor: factor that splits the division of an average.
        num_groups: Horovod's older name for `groups`.
        groups: number of allreduces, or lists of variables that travel together.
        process_set: ranks to reduce over.
        local_layers: built layer or layers whose gradients stay on their rank.
        scale_local_gradients: whether gradients of local layers are divided by the number of ranks.

    Returns:
        A tape whose `gradient` reduces over the ranks; all else is that of the tape given.

    Raises:
        TypeError: if `local_layers` are no layers.
        ValueError: if the options do not fit together.

    Example:
        >>> import keras
        >>> import tensorflow as tf
        >>> import hvd_xai.keras as hvd
        >>> world = hvd.init()
        >>> expert = keras.layers.Dense(1)
        >>> expert.build((None, 2))
        >>> tape = hvd.PartialDistributedGradientTape(tf.GradientTape(), local_layers=expert)
        >>> with tape:
        ...     loss = tf.reduce_sum(expert(tf.ones((1, 2))))
        >>> [gradient.shape.as_list() for gradient in tape.gradient(loss, expert.variables)]
        [[2, 1], [1]]
    """
    tape = DistributedGradientTape(
        gradtape,
        device_dense,
        device_sparse,
        compression,
        sparse_as_dense,
        op,
        gradient_predivide_factor,
        num_groups,
        groups,
        process_set,
        scale_local_gradients,
    )
    for variable in trainable_variables_in(local_layers):
        tape.register_local_source(variable)
    return tape


class DistributedTape:
    """A tape whose gradients are those of all ranks; `DistributedGradientTape` returns it.

    Everything but the methods below is handed on to the tape that records.

    Args:
        tape: tape that records.
        reduction: how its gradients are reduced.

    Example:
        >>> import tensorflow as tf
        >>> import hvd_xai.keras as hvd
        >>> world = hvd.init()
        >>> with hvd.DistributedGradientTape(tf.GradientTape()) as tape:
        ...     tape.watch(start := tf.constant(2.0))
        ...     loss = start**3
        >>> float(tape.gradient(loss, start))
        12.0
    """

    def __init__(self, tape: "tf.GradientTape", reduction: Reduction) -> None:
        self._tape = tape
        self._reduction = reduction

    def __enter__(self) -> "DistributedTape":
        self._tape.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tape.__exit__(kind, error, trace)

    def __getattr__(self, name: str) -> Any:
        # Not set yet, as while a copy is made: looking it up below would never end.
        if name == "_tape":
            raise AttributeError(name)
        return getattr(self._tape, name)

    def watch(self, tensor: Any) -> None:
        """Records operations on a tensor, or on a structure of tensors."""
        self._tape.watch(_tensorflow_variable(tensor))

    def gradient(
        self,
        target: Any,
        sources: Any,
        output_gradients: Any = None,
        use_generic_names: bool = False,
    ) -> Any:
        """Returns the gradients of all ranks. Collective: every rank must call this.

        Args:
            target: tensor, or structure of tensors, to differentiate.
            sources: Keras's variables, TensorFlow's variables or watched tensors, in any structure.
            output_gradients: gradients of something else with respect to `target`, which they
                multiply; ones if None.
            use_generic_names: no effect; the names of collectives are generic already.

        Returns:
            The gradients in the structure of `sources`; None where `target` does not depend on a
            source.
        """
        refuse_xla()
        flat = [_tensorflow_variable(source) for source in tf.nest.flatten(sources)]
        gradients = self._tape.gradient(target, flat, output_gradients)
        # Tapes of one step, as of a generator and a discriminator, may be at work at once.
        name = f"{self._reduction.name}.{count_call(_GRADIENTS)}"
        reduced = replace(self._reduction, name=name).reduce(gradients, flat)
        return tf.nest.pack_sequence_as(sources, reduced)

    def register_local_source(self, source: object) -> None:
        """Leaves the gradient of a source on its rank."""
        self._reduction.keep_local([source])

    def get_local_and_global_gradients(
        self,
        target: Any,
        sources: Any,
        output_gradients: Any = None,
        use_generic_names: bool = False,
    ) -> "tuple[list[tuple[Any, Gradient]], list[tuple[Any, Gradient]]]":
        """Returns the gradients of local sources and of the others, each with its source.

        Collective: every rank must call this.

        Args:
            target: tensor, or structure of tensors, to differentiate.
            sources: sequence of variables or watched tensors.
            output_gradients: gradients of something else with respect to `target`; ones if None.
            use_generic_names: no effect; the names of collectives are generic already.

        Returns:
            Two lists of `(source, gradient)`: the local ones, and those of all ranks.
        """
        gradients = self.gradient(target, sources, output_gradients, use_generic_names)
        pairs = list(zip(sources, gradients, strict=True))
        local = [pair for pair in pairs if self._reduction.is_local(pair[0])]
        return local, [pair for pair in pairs if not self._reduction.is_local(pair[0])]


def _tensorflow_variable(source: Any) -> Any:
    # TensorFlow's tape knows no Keras variables.
    return source.value if isinstance(source, keras.Variable) else source
