"""Traces a function once for each shape and dtype of an example, and keeps the result."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

# Enough to fill the hardware; the last block is padded to it, which more would make dearer.
EXAMPLES_AT_ONCE = 64
# inputs handed to TensorFlow at once; more examples go in several calls
_BYTES_PER_CALL = 256 * 2**20
ExampleSignature: TypeAlias = tuple[tuple[int, ...], str, str]


class Compiled:
    """Calls a TensorFlow function on any number of examples.

    The function is traced once for each shape and dtype of an example; the number of examples stays
    open.

    Args:
        function: function of `(inputs, targets, ids)` that returns a nest of tensors `[n, ...]`.
        micro_batch: number of which every call but the last gets a multiple of examples.
    """

    def __init__(
        self, function: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], Any], micro_batch: int
    ) -> None:
        self.n_traces = 0
        self._function = function
        self._micro_batch = micro_batch
        self._traced: dict[ExampleSignature, Any] = {}

    def trace(self, inputs: np.ndarray, targets: np.ndarray) -> Any:
        """Returns TensorFlow's concrete function for inputs and targets like these."""
        signature = read_signature(inputs, targets)
        if signature not in self._traced:
            shape, input_dtype, target_dtype = signature

            def counted(x: tf.Tensor, target: tf.Tensor, sample_id: tf.Tensor) -> Any:
                self.n_traces += 1
                return self._function(x, target, sample_id)

            self._traced[signature] = tf.function(counted, autograph=False).get_concrete_function(
                tf.TensorSpec([None, *shape], input_dtype),
                tf.TensorSpec([None], target_dtype),
                tf.TensorSpec([None], "int64"),
            )
        return self._traced[signature]

    def __call__(self, inputs: np.ndarray, targets: np.ndarray, ids: np.ndarray) -> Any:
        """Runs the function on the examples and returns its nest as NumPy arrays."""
        compiled = self.trace(inputs, targets)
        shape, input_dtype, target_dtype = read_signature(inputs, targets)
        n_bytes = max(1, int(np.prod(shape)) * np.dtype(input_dtype).itemsize)
        # Whole micro-batches, so that only the last call has one that is not full.
        n_per_call = self._micro_batch * max(1, _BYTES_PER_CALL // n_bytes // self._micro_batch)
        parts = []
        # No examples are a call of their own: it returns empty arrays of the right shapes.
        for start in range(0, max(1, len(inputs)), n_per_call):
            part = slice(start, start + n_per_call)
            returned = compiled(
                tf.constant(np.asarray(inputs[part], input_dtype)),
                tf.constant(np.asarray(targets[part], target_dtype)),
                tf.constant(np.asarray(ids[part], np.int64)),
            )
            parts.append(tf.nest.map_structure(lambda tensor: tensor.numpy(), returned))
        return (
            parts[0]
            if len(parts) == 1
            else tf.nest.map_structure(lambda *arrays: np.concatenate(arrays), *parts)
        )


def read_signature(inputs: np.ndarray, targets: np.ndarray) -> ExampleSignature:
    """Returns the shape of an example and the dtypes of its input and its target in TensorFlow.

    Floats of any width become float32. Integer inputs keep their dtype; integer targets become
    int64.
    """
    input_dtype = "float32" if np.issubdtype(inputs.dtype, np.floating) else str(inputs.dtype)
    target_dtype = "float32" if np.issubdtype(targets.dtype, np.floating) else "int64"
    return tuple(inputs.shape[1:]), input_dtype, target_dtype
