"""The gradient tape that returns the gradients of all ranks."""

from collections.abc import Iterable
from types import TracebackType
from typing import Any

import horovod.tensorflow as horovod
import keras
import tensorflow as tf
from horovod.tensorflow.compression import Compressor

from hvd_xai.keras.collectives import Average, Compression
from hvd_xai.keras.reduction import (
    Gradient,
    Groups,
    Reduction,
    local_variables_of,
    refuse_xla,
    resolve_groups,
)


def DistributedGradientTape(  # noqa: N802
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
    """Wraps a tape so that it returns the gradients of all ranks; for a plain optimizer in a
    training loop of one's own.

    With a `DistributedOptimizer` use a plain tape: the optimizer reduces what it is given.

    Args:
        gradtape: the tape, before or after it has recorded.
        device_dense: as the following, an argument of `DistributedOptimizer`.
        device_sparse: see there.
        compression: see there.
        sparse_as_dense: see there.
        op: see there.
        gradient_predivide_factor: see there.
        num_groups: see there.
        groups: see there.
        process_set: see there.
        scale_local_gradients: see there.

    Returns:
        A tape whose `gradient` reduces over the ranks, and which otherwise does what the given one
        does.

    Raises:
        ValueError: if the options do not fit together.
    """
    return DistributedTape(
        gradtape,
        # one name for all tapes: a loop makes one per step, and TensorFlow numbers those of one
        # graph
        Reduction(
            name="hvd_xai.tape",
            op=op, compression=compression, sparse_as_dense=sparse_as_dense, gradient_predivide_factor=gradient_predivide_factor,
            groups=resolve_groups(num_groups, groups), process_set=process_set, scale_local_gradients=scale_local_gradients,
            device_dense=device_dense, device_sparse=device_sparse,
        ),
    )  # fmt: skip


def PartialDistributedGradientTape(  # noqa: N802
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
    """Wraps a tape so that it returns the gradients of all ranks, but for those of layers that each
    rank has for itself.

    Args:
        gradtape: as everything but `local_layers`, an argument of `DistributedGradientTape`.
        device_dense: see there.
        device_sparse: see there.
        compression: see there.
        sparse_as_dense: see there.
        op: see there.
        gradient_predivide_factor: see there.
        num_groups: see there.
        groups: see there.
        process_set: see there.
        local_layers: built layers whose gradients stay on their rank.
        scale_local_gradients: see there.

    Returns:
        As `DistributedGradientTape`.
    """
    tape = DistributedGradientTape(
        gradtape, device_dense, device_sparse, compression, sparse_as_dense, op, gradient_predivide_factor, num_groups, groups, process_set,
        scale_local_gradients,
    )  # fmt: skip
    for variable in local_variables_of(local_layers):
        tape.register_local_source(variable)
    return tape


class DistributedTape:
    """What `DistributedGradientTape` returns.

    Args:
        tape: that records.
        reduction: over the ranks.
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
        if name == "_tape":  # not set yet, as while it is copied
            raise AttributeError(name)
        return getattr(self._tape, name)

    def watch(self, tensor: Any) -> None:
        """Records what is computed from this."""
        self._tape.watch(_of_tensorflow(tensor))

    def gradient(
        self,
        target: Any,
        sources: Any,
        output_gradients: Any = None,
        use_generic_names: bool = False,
    ) -> Any:
        """Returns the gradients of all ranks. Collective: every rank must call this.

        Args:
            target: what to differentiate.
            sources: Keras's variables, TensorFlow's, or watched tensors, in any structure.
            output_gradients: as TensorFlow's tape takes them.
            use_generic_names: has no effect.

        Returns:
            The gradients in the structure of `sources`; None where `target` does not depend on a
            source.
        """
        refuse_xla()
        flat = [_of_tensorflow(source) for source in tf.nest.flatten(sources)]
        gradients = self._tape.gradient(target, flat, output_gradients)
        return tf.nest.pack_sequence_as(sources, self._reduction.reduce(gradients, flat))

    def register_local_source(self, source: object) -> None:
        """Takes a source out of the reduction: it is this rank's own."""
        self._reduction.keep_local([source])

    def get_local_and_global_gradients(
        self,
        target: Any,
        sources: Any,
        output_gradients: Any = None,
        use_generic_names: bool = False,
    ) -> "tuple[list[tuple[Any, Gradient]], list[tuple[Any, Gradient]]]":
        """Returns (source, gradient) of the local sources, and of the others.

        Collective: every rank must call this.
        """
        pairs = list(
            zip(
                sources,
                self.gradient(target, sources, output_gradients, use_generic_names),
                strict=True,
            )
        )
        local = [pair for pair in pairs if self._reduction.is_local(pair[0])]
        return local, [pair for pair in pairs if not self._reduction.is_local(pair[0])]


def _of_tensorflow(source: Any) -> Any:
    return source.value if isinstance(source, keras.Variable) else source
