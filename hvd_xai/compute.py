"""Runs a method, or the model itself, over many examples: compiles once, bounds memory, validates before it starts."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float32, Shaped

from hvd_xai import provenance, rows, scores
from hvd_xai.loading import load_method
from hvd_xai.precision import Precision, computing_in
from hvd_xai.precision import check as check_precision
from hvd_xai.types import Attributed, Attribution, Score

EXAMPLES_AT_ONCE = 64  # enough to fill the hardware; the last block is padded to it, which more would make dearer

_BYTES_PER_CALL = 256 * 2**20  # inputs handed to TensorFlow at once; more examples go in several calls
_Signature: TypeAlias = tuple[tuple[int, ...], str, str]


@dataclass(frozen=True, slots=True)
class Computed:
    """What a method returned for many examples.

    Attributes:
        attributions: `[n, ...]`.
        per_sample: one value an example by name.
    """

    attributions: Float32[np.ndarray, "n ..."]
    per_sample: Mapping[str, Shaped[np.ndarray, "n"]]


class Predicted(NamedTuple):
    """What the model returned for many examples.

    Attributes:
        predictions: the most likely class, int32, where targets are class ids of several outputs (over all places on average, of a
            segmentation), or of one output that is a probability (`Predict`); the one output where it is another, and otherwise the
            score, float32.
        scores: the score that is explained.
    """

    predictions: Shaped[np.ndarray, "n"]
    scores: Float32[np.ndarray, "n"]


class Compute:
    """Computes a method's attributions for any number of examples.

    The method is compiled once per shape of an example, the number of examples left open, and kept: later calls, with other examples, other
    numbers of them and new weights, reuse it. Everything runs in micro-batches of one fixed size, so an example's numbers depend neither
    on how many others there are nor on which. The model's weights, statistics and random streams are left as they are.

    Args:
        model: any built Keras model of one input; not copied.
        method: an `Attribution`, options bound with `functools.partial`. One that has an option `micro_batch` is given it, unless it is
            bound already, and forms its own micro-batches; any other is called on at most 64 examples at a time.
        micro_batch: the most rows (examples, or points of their paths) that go through the model at once; `rows.fitting` proposes a number
            for a shape. The numbers stay the same to float32 rounding; what it changes is memory, and speed below about 100.
        precision: `bfloat16` makes the model compute in it while it is explained, which takes less than half the time where the hardware
            has it, for errors of some percent; sums stay float32, and the model itself is not touched. None leaves the model as it is.

    Attributes:
        described: name and options of the method, as they are recorded; the micro-batch is among them if the method forms its own, and
            the precision if one was asked for.
        sources: files of the method and of functions among its options that are not ours, with their digests.
        score: what the method explains, by name or as a function.
        micro_batch: the most rows that go through the model at once; examples are best handed over in multiples of it.
        sample_shape: shape of one example's attributions; known after `check`.
        per_sample: dtype of each number that the method returns beside an example's attributions, by name; known after `check`.

    Raises:
        TypeError: if the method does not take the options that are bound to it.
        ValueError: if it has no name, the micro-batch is less than 1, or there is no such precision.
    """

    def __init__(self, model: keras.Model, method: Attribution, *, micro_batch: int = 256, precision: Precision | None = None) -> None:
        rows.check_micro_batch(micro_batch)
        check_precision(precision)
        try:
            options = {name: parameter.default for name, parameter in inspect.signature(method).parameters.items()}
        except ValueError as error:
            raise TypeError(f"the method's bound options do not fit it: {error}") from error
        self._forms_micro_batches = "micro_batch" in options
        bound: Callable[..., Any] = method
        if self._forms_micro_batches and "micro_batch" not in getattr(method, "keywords", {}):
            bound = partial(bound, micro_batch=micro_batch)
        name, recorded = provenance.describe(bound)
        self.described = name, recorded if precision is None else {**recorded, "precision": precision}
        self.sources = provenance.sources(method)
        explained = _score_of(method)
        self.score: str | Score = "output" if explained is None else explained
        self.micro_batch = micro_batch if self._forms_micro_batches else min(micro_batch, EXAMPLES_AT_ONCE)
        self.sample_shape: tuple[int, ...] = ()
        self.per_sample: Mapping[str, np.dtype] = {}
        self._model = model
        self._method = bound
        self._precision = precision
        self._class_ids = _ClassIds(model, explained)
        self._compiled = _Compiled(self._attribute, self.micro_batch)

    @property
    def n_traces(self) -> int:
        """How often the method was traced so far: once for each shape and dtype of an example."""
        return self._compiled.n_traces

    def check(
        self, inputs: Shaped[np.ndarray, "n ..."], targets: Shaped[np.ndarray, "n"], ids: Shaped[np.ndarray, "n"] | None = None
    ) -> None:
        """Finds what can be found wrong without running the model, and compiles the method. Works with no examples, too.

        Args:
            inputs: `[n, ...]`; only shape and dtype are looked at.
            targets: `[n]`, all of them are looked at.
            ids: sample ids, `[n]`, to name a sample by; its row if left out.

        Raises:
            ValueError: if inputs and model, targets and outputs, or options do not fit. The method's own errors come through.
        """
        _check_inputs(self._model, inputs, targets)
        attributed = self._compiled.trace(inputs, targets).structured_outputs
        self.check_targets(inputs, targets, ids)
        shape = attributed.attributions.shape[1:]
        if not shape.is_fully_defined():
            raise ValueError(f"the method's attributions must have a shape that is known before it runs; got {(None, *shape)}")
        self.sample_shape = tuple(shape)
        self.per_sample = {name: np.dtype(tensor.dtype.as_numpy_dtype) for name, tensor in attributed.per_sample.items()}

    def check_targets(
        self, inputs: Shaped[np.ndarray, "n ..."], targets: Shaped[np.ndarray, "n"], ids: Shaped[np.ndarray, "n"] | None = None
    ) -> None:
        """Raises `ValueError`, naming the first bad sample, if class ids are not among the model's outputs.

        Scores that are functions of one's own read targets as they like.
        """
        self._class_ids.check(inputs, targets, ids)

    def __call__(self, inputs: Shaped[np.ndarray, "n ..."], targets: Shaped[np.ndarray, "n"], ids: Shaped[np.ndarray, "n"]) -> Computed:
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
        _check_inputs(self._model, inputs, targets)
        self.check_targets(inputs, targets, ids)
        attributed = self._compiled(inputs, targets, ids)
        if len(attributed.attributions) != len(inputs):
            raise ValueError(f"the method returned {len(attributed.attributions)} attributions for {len(inputs)} examples")
        return Computed(attributed.attributions, dict(attributed.per_sample))

    def _attribute(self, inputs: tf.Tensor, targets: tf.Tensor, ids: tf.Tensor) -> Attributed:
        with computing_in(self._model, self._precision):
            return self._attribute_in_precision(inputs, targets, ids)

    def _attribute_in_precision(self, inputs: tf.Tensor, targets: tf.Tensor, ids: tf.Tensor) -> Attributed:
        method = self._method
        score = scores.resolve(self.score)
        if "at" in inspect.signature(score).parameters:
            n_rows = min(self.micro_batch, EXAMPLES_AT_ONCE)
            outputs = rows.map_rows(lambda x: self._model(x, training=False), (inputs,), n_rows)
            method = _with_score(method, scores.AtExamples(score, outputs, targets))
            targets = tf.range(tf.size(targets, tf.int64))
        if not self._forms_micro_batches:
            attributed: Attributed = rows.map_rows(
                lambda x, target, sample_id: _attributed(method(self._model, x, target, ids=sample_id)),
                (inputs, targets, ids),
                self.micro_batch,
            )
            return attributed
        return _attributed(method(self._model, inputs, targets, ids=ids))


class Predict:
    """Computes a model's predictions and scores for any number of examples, compiled and cut up as `Compute` does.

    Args:
        model: any built Keras model of one input.
        score: the score that is explained: a name of `hvd_xai.scores`, or a function of outputs and targets.
        micro_batch: the most examples that go through the model at once; more than 64 make no difference.
        is_binary: whether all targets are 0 or 1, class ids. One output that comes from a sigmoid is then the probability of class 1; of
            any other nobody knows from where on it means class 1.

    Attributes:
        micro_batch: examples that go through the model at once; they are best handed over in multiples of it.
    """

    def __init__(self, model: keras.Model, *, score: str | Score = "output", micro_batch: int = 256, is_binary: bool = False) -> None:
        rows.check_micro_batch(micro_batch)
        self._model = model
        self._score = scores.resolve(score)
        self._is_binary = is_binary
        self._class_ids = _ClassIds(model, score)
        self.micro_batch = min(micro_batch, EXAMPLES_AT_ONCE)
        self._compiled = _Compiled(self._predict, self.micro_batch)

    @property
    def n_traces(self) -> int:
        """How often the model was traced so far: once for each shape and dtype of an example."""
        return self._compiled.n_traces

    def check(
        self, inputs: Shaped[np.ndarray, "n ..."], targets: Shaped[np.ndarray, "n"], ids: Shaped[np.ndarray, "n"] | None = None
    ) -> np.dtype:
        """Compiles, and returns the dtype of the predictions. Works with no examples, too; `ids` are to name a sample by.

        Raises:
            ValueError: if inputs and model, or targets and outputs, do not fit.
        """
        _check_inputs(self._model, inputs, targets)
        predictions, _ = self._compiled.trace(inputs, targets).structured_outputs
        self._class_ids.check(inputs, targets, ids)
        dtype: np.dtype = np.dtype(predictions.dtype.as_numpy_dtype)
        return dtype

    def __call__(self, inputs: Shaped[np.ndarray, "n ..."], targets: Shaped[np.ndarray, "n"]) -> Predicted:
        """Computes predictions and scores of `inputs` `[n, ...]` for `targets` `[n]`, in their order; n may be 0.

        Raises:
            ValueError: as `check`.
        """
        _check_inputs(self._model, inputs, targets)
        self._class_ids.check(inputs, targets, None)
        predictions, values = self._compiled(inputs, targets, np.zeros(len(targets), np.int64))
        return Predicted(predictions, values)

    def _predict(self, inputs: tf.Tensor, targets: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        def predict(x: tf.Tensor, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            predictions: list[tf.Tensor] = []

            def keep_prediction(outputs: scores.Outputs, targets: tf.Tensor) -> tf.Tensor:
                values = self._score(outputs, targets)
                predictions.append(_prediction(outputs, targets, self._score, values, is_binary=self._is_binary))
                return values

            values = scores.evaluate(self._model, x, target, keep_prediction)
            return predictions[0], values

        predicted: tuple[tf.Tensor, tf.Tensor] = rows.map_rows(predict, (inputs, targets), self.micro_batch)
        return predicted


class _ClassIds:
    """Holds targets to the model's outputs where the score says that they are class ids.

    Args:
        model: a built model.
        score: the score that is explained; None if the method has none.
    """

    def __init__(self, model: keras.Model, score: str | Score | None) -> None:
        self._model = model
        self._score = score
        self._n_outputs: dict[_Signature, int | None] = {}

    def check(self, inputs: np.ndarray, targets: np.ndarray, ids: np.ndarray | None) -> None:
        """Raises `ValueError`, naming the first bad sample."""
        if self._score is None or not scores.takes_class_ids(self._score):
            return
        signature = _signature(inputs, targets)
        if signature not in self._n_outputs:
            self._n_outputs[signature] = _n_outputs(self._model, inputs, scores.resolve(self._score))
        n_outputs = self._n_outputs[signature]
        if n_outputs is None or n_outputs == 1 or len(targets) == 0:
            return
        if not np.issubdtype(targets.dtype, np.integer):
            raise ValueError(f"the model has {n_outputs} outputs, so targets must be integer class ids; got dtype {targets.dtype}")
        bad = (targets < 0) | (targets >= n_outputs)
        if bad.any():
            first = int(np.argmax(bad))
            raise ValueError(
                f"the model has {n_outputs} outputs, so targets must be class ids 0 to {n_outputs - 1}; {int(bad.sum())} of {len(targets)}"
                f" are not, the first being {targets[first]} of sample {first if ids is None else ids[first]}. Correct the targets, or pass"
                " score= a function that reads them otherwise."
            )


class _Compiled:
    """A function of `(inputs, targets, ids)`, traced once for each shape and dtype of an example, for any number of them.

    Args:
        function: returns a nest of tensors `[n, ...]`.
        micro_batch: examples are handed over in multiples of it.
    """

    def __init__(self, function: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], Any], micro_batch: int) -> None:
        self.n_traces = 0
        self._function = function
        self._micro_batch = micro_batch
        self._traced: dict[_Signature, Any] = {}

    def trace(self, inputs: np.ndarray, targets: np.ndarray) -> Any:
        """Returns TensorFlow's concrete function for such inputs and targets."""
        signature = _signature(inputs, targets)
        if signature not in self._traced:
            shape, input_dtype, target_dtype = signature

            def counted(x: tf.Tensor, target: tf.Tensor, sample_id: tf.Tensor) -> Any:
                self.n_traces += 1
                return self._function(x, target, sample_id)

            self._traced[signature] = tf.function(counted, autograph=False).get_concrete_function(
                tf.TensorSpec([None, *shape], input_dtype), tf.TensorSpec([None], target_dtype), tf.TensorSpec([None], "int64")
            )
        return self._traced[signature]

    def __call__(self, inputs: np.ndarray, targets: np.ndarray, ids: np.ndarray) -> Any:
        """Returns the function's nest as NumPy arrays."""
        compiled = self.trace(inputs, targets)
        shape, input_dtype, target_dtype = _signature(inputs, targets)
        n_bytes = max(1, int(np.prod(shape)) * np.dtype(input_dtype).itemsize)
        n_per_call = self._micro_batch * max(1, _BYTES_PER_CALL // n_bytes // self._micro_batch)
        parts = []
        for start in range(0, max(1, len(inputs)), n_per_call):
            part = slice(start, start + n_per_call)
            returned = compiled(
                tf.constant(np.asarray(inputs[part], input_dtype)),
                tf.constant(np.asarray(targets[part], target_dtype)),
                tf.constant(np.asarray(ids[part], np.int64)),
            )
            parts.append(tf.nest.map_structure(lambda tensor: tensor.numpy(), returned))
        return parts[0] if len(parts) == 1 else tf.nest.map_structure(lambda *arrays: np.concatenate(arrays), *parts)


def _signature(inputs: np.ndarray, targets: np.ndarray) -> _Signature:
    """Returns the shape of an example, and the dtypes its input and its target are handed over in: integer inputs stay what they are."""
    input_dtype = "float32" if np.issubdtype(inputs.dtype, np.floating) else str(inputs.dtype)
    target_dtype = "float32" if np.issubdtype(targets.dtype, np.floating) else "int64"
    return tuple(inputs.shape[1:]), input_dtype, target_dtype


def _attributed(returned: tf.Tensor | Attributed) -> Attributed:
    """Returns what a method returned as a record, attributions in float32."""
    attributions, per_sample = returned if isinstance(returned, Attributed) else (returned, {})
    return Attributed(tf.cast(attributions, tf.float32), dict(per_sample))


def _score_of(method: Attribution) -> str | Score | None:
    """Returns the score that a method explains, or the method that it transforms; None if it has none."""
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


def _head(score: Score) -> str | int | None:
    option = inspect.signature(score).parameters.get("head")
    head: str | int | None = None if option is None else option.default
    return head


def _prediction(outputs: scores.Outputs, targets: tf.Tensor, score: Score, values: tf.Tensor, *, is_binary: bool) -> tf.Tensor:
    """Returns what `Predicted` says of each example."""
    head = _head(score)
    if isinstance(outputs, tf.Tensor) or head is not None:
        one = tf.cast(scores.one_head(outputs, head), tf.float32)
        if one.shape.rank == 1 or one.shape[1:] == [1]:
            is_probability = is_binary and scores.ends_in_sigmoid(one)
            return tf.cast(tf.reshape(one, [-1]) > 0.5, tf.int32) if is_probability else tf.reshape(one, [-1])
        if targets.dtype.is_integer and one.shape.rank >= 2 and one.shape[-1] > 1:
            return tf.argmax(tf.reduce_mean(one, axis=list(range(1, one.shape.rank - 1))), axis=1, output_type=tf.int32)
    return tf.cast(values, tf.float32)


def _n_outputs(model: keras.Model, inputs: np.ndarray, score: Score) -> int | None:
    """Returns how many classes the outputs have that the score looks at; None if they are not an array."""
    dtype, _ = _signature(inputs, inputs)[1:]
    traced = tf.function(lambda x: model(x, training=False), autograph=False).get_concrete_function(
        tf.TensorSpec([1, *inputs.shape[1:]], dtype)
    )
    outputs = traced.structured_outputs
    head = _head(score)
    if not isinstance(outputs, tf.Tensor) and head is None:
        return None
    one = scores.one_head(outputs, head)
    n_outputs: int | None = one.shape[-1] if one.shape.rank >= 2 else 1
    return n_outputs


def _check_inputs(model: keras.Model, inputs: np.ndarray, targets: np.ndarray) -> None:
    """Raises `ValueError` if the arrays do not fit each other, or the inputs not the model."""
    if not model.built:
        raise ValueError(f"model '{model.name}' has no weights yet; build it, or call it once, before it is explained")
    if len(targets) != len(inputs):
        raise ValueError(f"each example needs a target; got {len(inputs)} inputs and {len(targets)} targets")
    for name, values in (("inputs", inputs), ("targets", targets)):
        if values.dtype.kind not in "fiub":
            raise ValueError(f"{name} must be numbers; got dtype {values.dtype}")
    expected = getattr(model, "inputs", None)  # only functional and Sequential models know theirs; others complain when they are traced
    if expected is None:
        return
    if len(expected) != 1:
        raise ValueError(f"model '{model.name}' has {len(expected)} inputs; only models of one input can be explained")
    shape = tuple(expected[0].shape)
    if len(shape) != inputs.ndim or any(want not in {None, got} for want, got in zip(shape[1:], inputs.shape[1:], strict=True)):
        raise ValueError(f"model '{model.name}' takes inputs of shape {shape}; got {(None, *inputs.shape[1:])}. Reshape the inputs.")
