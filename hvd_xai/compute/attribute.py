"""Runs a method, or the model itself, over many examples: compiles once, bounds memory, validates
before it starts.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float32, Shaped

from hvd_xai import scores
from hvd_xai.compute.checks import ClassIds, check_inputs
from hvd_xai.lookup.describe import describe, sources
from hvd_xai.lookup.methods import load_method
from hvd_xai.protocols import Attributed, AttributedTo, Attribution, Score
from hvd_xai.tracing import micro_batches
from hvd_xai.tracing.compiled import EXAMPLES_AT_ONCE, Compiled
from hvd_xai.tracing.precision import Precision, computing_in
from hvd_xai.tracing.precision import check as check_precision


@dataclass(frozen=True, slots=True)
class Computed:
    """What a method returned for many examples.

    Attributes:
        attributions: `[n, ...]`.
        per_sample: one value an example by name.
    """

    attributions: Float32[np.ndarray, "n ..."]
    per_sample: Mapping[str, Shaped[np.ndarray, "n"]]


class Compute:
    """Computes a method's attributions for any number of examples.

    The method is compiled once per shape of an example, the number of examples left open, and kept:
    later calls, with other examples, other numbers of them and new weights, reuse it. Everything
    runs in micro-batches of one fixed size, so an example's numbers depend neither on how many
    others there are nor on which. The model's weights, statistics and random streams are left as
    they are.

    Args:
        model: any built Keras model of one input; not copied.
        method: an `Attribution`, options bound with `functools.partial`. One that has an option
            `micro_batch` is given it, unless it is bound already, and forms its own micro-batches;
            any other is called on at most 64 examples at a time.
        micro_batch: the most rows (examples, or points of their paths) that go through the model at
            once; `micro_batches.fitting` proposes a number for a shape. The numbers stay the same
            to float32 rounding; what it changes is memory, and speed below about 100.
        precision: `bfloat16` makes the model compute in it while it is explained, which takes less
            than half the time where the hardware has it, for errors of some percent; sums stay
            float32, and the model itself is not touched. None leaves the model as it is.

    Attributes:
        described: name and options of the method, as they are recorded; the micro-batch is among
            them if the method forms its own, and the precision if one was asked for.
        sources: files of the method and of functions among its options that are not ours, with
            their digests.
        score: what the method explains, by name or as a function.
        micro_batch: the most rows that go through the model at once; examples are best handed over
            in multiples of it.
        sample_shape: shape of one example's attributions; known after `check`.
        per_sample: dtype of each number that the method returns beside an example's attributions,
            by name; known after `check`.
        attributed_to: what the method says that it attributes to, as in `Attributed`; known after
            `check`.
        signed: whether the method says that its attributions have a sign; known after `check`.

    Raises:
        TypeError: if the method does not take the options that are bound to it.
        ValueError: if it has no name, the micro-batch is less than 1, or there is no such
            precision.
    """

    def __init__(
        self,
        model: keras.Model,
        method: Attribution,
        *,
        micro_batch: int = 256,
        precision: Precision | None = None,
    ) -> None:
        micro_batches.check_micro_batch(micro_batch)
        check_precision(precision)
        try:
            options = {
                name: parameter.default
                for name, parameter in inspect.signature(method).parameters.items()
            }
        except ValueError as error:
            raise TypeError(f"the method's bound options do not fit it: {error}") from error
        self._forms_micro_batches = "micro_batch" in options
        bound: Callable[..., Any] = method
        if self._forms_micro_batches and "micro_batch" not in getattr(method, "keywords", {}):
            bound = partial(bound, micro_batch=micro_batch)
        name, recorded = describe(bound)
        self.described = (
            name,
            recorded if precision is None else {**recorded, "precision": precision},
        )
        self.sources = sources(method)
        explained = _score_of(method)
        self.score: str | Score = "output" if explained is None else explained
        self.micro_batch = (
            micro_batch if self._forms_micro_batches else min(micro_batch, EXAMPLES_AT_ONCE)
        )
        self.sample_shape: tuple[int, ...] = ()
        self.per_sample: Mapping[str, np.dtype] = {}
        self.attributed_to: AttributedTo | None = None
        self.signed: bool | None = None
        self._model = model
        self._method = bound
        self._precision = precision
        self._class_ids = ClassIds(model, explained)
        self._compiled = Compiled(self._attribute, self.micro_batch)

    @property
    def n_traces(self) -> int:
        """How often the method was traced so far: once for each shape and dtype of an example."""
        return self._compiled.n_traces

    def check(
        self,
        inputs: Shaped[np.ndarray, "n ..."],
        targets: Shaped[np.ndarray, "n"],
        ids: Shaped[np.ndarray, "n"] | None = None,
    ) -> None:
        """Finds what can be found wrong without running the model, and compiles the method.

        Works with no examples, too.

        Args:
            inputs: `[n, ...]`; only shape and dtype are looked at.
            targets: `[n]`, all of them are looked at.
            ids: sample ids, `[n]`, to name a sample by; its row if left out.

        Raises:
            ValueError: if inputs and model, targets and outputs, or options do not fit. The
                method's own errors come through.
        """
        check_inputs(self._model, inputs, targets)
        attributed = self._compiled.trace(inputs, targets).structured_outputs
        self.check_targets(inputs, targets, ids)
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
        self.attributed_to, self.signed = attributed.attributed_to, attributed.signed
        self.sample_shape = tuple(shape)
        self.per_sample = {
            name: np.dtype(tensor.dtype.as_numpy_dtype)
            for name, tensor in attributed.per_sample.items()
        }

    def check_targets(
        self,
        inputs: Shaped[np.ndarray, "n ..."],
        targets: Shaped[np.ndarray, "n"],
        ids: Shaped[np.ndarray, "n"] | None = None,
    ) -> None:
        """Raises `ValueError`, naming the first bad sample, if class ids are not among the model's
        outputs.

        Scores that are functions of one's own read targets as they like.
        """
        self._class_ids.check(inputs, targets, ids)

    def __call__(
        self,
        inputs: Shaped[np.ndarray, "n ..."],
        targets: Shaped[np.ndarray, "n"],
        ids: Shaped[np.ndarray, "n"],
    ) -> Computed:
        """Computes attributions.

        Args:
            inputs: `[n, ...]`, what the model takes; n may be 0. A memory-mapped array will do.
            targets: `[n]`, what the score selects.
            ids: sample ids, `[n]`, which seed the randomness of methods that have any.

        Returns:
            Attributions and the values beside them, in the order of the inputs.

        Raises:
            ValueError: as `check`.
        """
        check_inputs(self._model, inputs, targets)
        self.check_targets(inputs, targets, ids)
        attributed = self._compiled(inputs, targets, ids)
        if len(attributed.attributions) != len(inputs):
            raise ValueError(
                f"the method returned {len(attributed.attributions)} attributions for {len(inputs)}"
                " examples"
            )
        return Computed(attributed.attributions, dict(attributed.per_sample))

    def _attribute(self, inputs: tf.Tensor, targets: tf.Tensor, ids: tf.Tensor) -> Attributed:
        with computing_in(self._model, self._precision):
            return self._attribute_in_precision(inputs, targets, ids)

    def _attribute_in_precision(
        self, inputs: tf.Tensor, targets: tf.Tensor, ids: tf.Tensor
    ) -> Attributed:
        method = self._method
        score = scores.resolve(self.score)
        if "at" in inspect.signature(score).parameters:
            n_rows = min(self.micro_batch, EXAMPLES_AT_ONCE)
            outputs = micro_batches.map_rows(
                lambda x: self._model(x, training=False), (inputs,), n_rows
            )
            method = _with_score(method, scores.AtExamples(score, outputs, targets))
            targets = tf.range(tf.size(targets, tf.int64))
        if not self._forms_micro_batches:
            attributed: Attributed = micro_batches.map_rows(
                lambda x, target, sample_id: _attributed(
                    method(self._model, x, target, ids=sample_id)
                ),
                (inputs, targets, ids),
                self.micro_batch,
            )
            return attributed
        return _attributed(method(self._model, inputs, targets, ids=ids))


def _attributed(returned: tf.Tensor | Attributed) -> Attributed:
    """Returns what a method returned as a record, attributions in float32."""
    attributed = returned if isinstance(returned, Attributed) else Attributed(returned)
    return replace(
        attributed,
        attributions=tf.cast(attributed.attributions, tf.float32),
        per_sample=dict(attributed.per_sample),
    )


def _score_of(method: Attribution) -> str | Score | None:
    """Returns the score that a method explains, or the method that it transforms; None if it has
    none.
    """
    options = inspect.signature(method).parameters
    if "score" in options:
        score: str | Score = options["score"].default
        return score
    return _score_of(_inner(options["method"].default)) if "method" in options else None


def _with_score(method: Callable[..., Any], score: Score) -> Callable[..., Any]:
    """Returns the method, or the transform of a method, with another score."""
    options = inspect.signature(method).parameters
    if "score" in options:
        return partial(method, score=score)
    return partial(method, method=_with_score(_inner(options["method"].default), score))


def _inner(method: str | Attribution) -> Attribution:
    return load_method(method) if isinstance(method, str) else method
