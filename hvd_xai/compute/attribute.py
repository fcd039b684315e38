"""Computes attributions of any number of examples by a compiled method, in bounded memory."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float32, Shaped

from hvd_xai import scores
from hvd_xai.checkpoint.rows import STANDARD_ERRORS
from hvd_xai.compute.fits_model import TargetCheck, check_inputs
from hvd_xai.lookup.resolve import Method, bind_score, resolve_one
from hvd_xai.protocols import Attributed, AttributedTo, Attribution
from hvd_xai.tracing import micro_batches
from hvd_xai.tracing.compiled import EXAMPLES_AT_ONCE, Compiled
from hvd_xai.tracing.precision import Precision, check_precision, computing_in


@dataclass(frozen=True, slots=True)
class Computed:
    """Attributions of many examples, and the values that the method returned beside them.

    Attributes:
        attributions: attributions `[n, ...]`.
        per_sample: arrays `[n]` by name, one value for each example; `standard_errors` have the
            shape of the attributions.
    """

    attributions: Float32[np.ndarray, "n ..."]
    per_sample: Mapping[str, Shaped[np.ndarray, "n ..."]]


class Compute:
    """Computes a method's attributions for any number of examples.

    The method is compiled once for each shape of an example, for any number of examples; later
    calls reuse it for other examples and new weights. Everything runs in micro-batches of one fixed
    size, so that the numbers of an example do not depend on the other examples. The model's
    weights, statistics and random streams do not change.

    Args:
        model: any built Keras model of one input; not copied.
        method: a method that `resolve` returned, or a function with its options bound by
            `functools.partial`. A method with an option `micro_batch` forms its own micro-batches,
            of the size below unless another is bound; any other is called on at most 64 examples.
        micro_batch: largest number of rows (examples, or points of their paths) that go through the
            model at once; `micro_batches.propose_size` proposes one for a shape. It changes memory,
            speed below about 100, and numbers by no more than float32 rounding.
        precision: `bfloat16` to compute in it while the model is explained. That takes less than
            half the time on hardware that has it, and makes errors of some percent; sums stay
            float32, and the model itself does not change. None for the model's own precision.

    Attributes:
        method: resolved method, with its micro-batch bound.
        precision: precision that the model computes in.
        micro_batch: largest number of rows that go through the model at once; examples are best
            handed over in multiples of it.
        sample_shape: shape of one example's attributions; known after `check`.
        per_sample: dtypes of the values beside an example's attributions, by name; known after
            `check`.
        attributed_to: "inputs", "places" or "units", to which attributions belong; None if the
            method does not say. Known after `check`.
        signed: whether attributions have a sign by definition; None if the method does not say.
            Known after `check`.

    Raises:
        TypeError: if the method does not take the options that are bound to it.
        ValueError: if the method has no name, the micro-batch is less than 1, or there is no such
            precision.

    Example:
        >>> from hvd_xai.attributions.integrated_gradients import integrated_gradients
        >>> compute = Compute(model, partial(integrated_gradients, n_steps=8))
        >>> computed = compute(inputs, targets, ids)
        >>> computed.attributions.shape, list(computed.per_sample)
        ((4, 8, 8, 1), ['convergence_delta'])
    """

    def __init__(
        self,
        model: keras.Model,
        method: Method | Attribution,
        *,
        micro_batch: int = 256,
        precision: Precision | None = None,
    ) -> None:
        micro_batches.check_micro_batch(micro_batch)
        check_precision(precision)
        resolved = method if isinstance(method, Method) else resolve_one(method)
        self.method = resolved.with_micro_batch(micro_batch)
        self.precision = precision
        self.micro_batch = (
            micro_batch if self.method.forms_micro_batches else min(micro_batch, EXAMPLES_AT_ONCE)
        )
        self.sample_shape: tuple[int, ...] = ()
        self.per_sample: Mapping[str, np.dtype] = {}
        self.attributed_to: AttributedTo | None = None
        self.signed: bool | None = None
        self._model = model
        self._targets = TargetCheck(model, self.method.score)
        self._compiled = Compiled(self._attribute, self.micro_batch)

    @property
    def n_traces(self) -> int:
        """Number of times that the method was traced: once for each shape and dtype of example."""
        return self._compiled.n_traces

    def check(
        self,
        inputs: Shaped[np.ndarray, "n ..."],
        targets: Shaped[np.ndarray, "n"],
        ids: Shaped[np.ndarray, "n"] | None = None,
    ) -> None:
        """Compiles the method, and finds all errors that show without running the model.

        It works without any examples, too.

        Args:
            inputs: inputs `[n, ...]`, of which only shape and dtype matter.
            targets: targets `[n]`, all of which are checked.
            ids: sample ids `[n]` for messages; numbers of rows if None.

        Raises:
            ValueError: if inputs and model, targets and outputs, or options do not fit. The
                method's own errors come through.
        """
        check_inputs(self._model, inputs, targets)
        attributed = self._compiled.trace(inputs, targets).structured_outputs
        self._targets.check(inputs, targets, ids)
        shape = attributed.attributions.shape[1:]
        if not shape.is_fully_defined():
            raise ValueError(
                "the method's attributions must have a shape that is known before it runs; got"
                f" {(None, *shape)}"
            )
        if attributed.attributed_to == "inputs" and shape != inputs.shape[1:]:
            raise ValueError(
                "the method says that it attributes to the inputs, and so must return attributions"
                f" of their shape {(None, *inputs.shape[1:])}; got {(None, *shape)}. Let it say"
                " 'places' or 'units'."
            )
        errors = attributed.per_sample.get(STANDARD_ERRORS)
        if errors is not None and errors.shape[1:] != shape:
            raise ValueError(
                f"the method's `{STANDARD_ERRORS}` must have the shape of its attributions"
                f" {(None, *shape)}; got {(None, *errors.shape[1:])}. Call one number an example"
                " `standard_error`."
            )
        self.attributed_to, self.signed = attributed.attributed_to, attributed.signed
        self.sample_shape = tuple(shape)
        self.per_sample = {
            name: np.dtype(tensor.dtype.as_numpy_dtype)
            for name, tensor in attributed.per_sample.items()
        }

    def __call__(
        self,
        inputs: Shaped[np.ndarray, "n ..."],
        targets: Shaped[np.ndarray, "n"],
        ids: Shaped[np.ndarray, "n"],
    ) -> Computed:
        """Computes attributions.

        Args:
            inputs: inputs of the model, `[n, ...]`; n may be 0. They may be mapped into memory.
            targets: class ids or values that the score selects, `[n]`.
            ids: sample ids, `[n]`, which seed the randomness of methods that have any.

        Returns:
            The attributions and the values beside them, in the order of the inputs.

        Raises:
            ValueError: if inputs and model, or targets and outputs, do not fit, or the method
                returns another number of attributions than of examples.
        """
        check_inputs(self._model, inputs, targets)
        self._targets.check(inputs, targets, ids)
        attributed = self._compiled(inputs, targets, ids)
        if len(attributed.attributions) != len(inputs):
            raise ValueError(
                f"the method returned {len(attributed.attributions)} attributions for {len(inputs)}"
                " examples"
            )
        return Computed(attributed.attributions, dict(attributed.per_sample))

    def _attribute(self, inputs: tf.Tensor, targets: tf.Tensor, ids: tf.Tensor) -> Attributed:
        # Only tracing needs the precision: what is traced keeps it.
        with computing_in(self._model, self.precision):
            return self._attribute_in_precision(inputs, targets, ids)

    def _attribute_in_precision(
        self, inputs: tf.Tensor, targets: tf.Tensor, ids: tf.Tensor
    ) -> Attributed:
        method = self.method.bound
        score = scores.resolve(self.method.recorded_score)
        if "at" in inspect.signature(score).parameters:
            # The score chooses by the model's outputs for the examples themselves. Paths lead away
            # from the examples, so those outputs are computed first, and targets become the rows
            # that select from them.
            n_rows = min(self.micro_batch, EXAMPLES_AT_ONCE)
            outputs = micro_batches.map_blocks(
                lambda x: self._model(x, training=False), (inputs,), n_rows
            )
            method = bind_score(method, scores.AtExamples(score, outputs, targets))
            targets = tf.range(tf.size(targets, tf.int64))
        if self.method.forms_micro_batches:
            return _to_record(method(self._model, inputs, targets, ids=ids))
        attributed: Attributed = micro_batches.map_blocks(
            lambda x, target, sample_id: _to_record(method(self._model, x, target, ids=sample_id)),
            (inputs, targets, ids),
            self.micro_batch,
        )
        return attributed


def _to_record(returned: tf.Tensor | Attributed) -> Attributed:
    """Returns a method's result as a record, attributions in float32."""
    attributed = returned if isinstance(returned, Attributed) else Attributed(returned)
    return replace(
        attributed,
        attributions=tf.cast(attributed.attributions, tf.float32),
        per_sample=dict(attributed.per_sample),
    )
