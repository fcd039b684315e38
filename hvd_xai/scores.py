"""Scores select one number for each example from a model's outputs: the number to explain.

A score is `(outputs, targets) -> [n]`, pure TensorFlow. Each public function of this module that
begins so can be given by its name; its options are bound with `functools.partial`. `evaluate` runs
the model for a score, the same way for all who need one.

The true label's output needs no score of its own: give the labels as targets, as a probe usually
does, and explain `output` or `logit`.

A score with an option `at` gets there, when `Compute` computes it, what the model returns for the
examples themselves, wherever on a path from them `outputs` are from: a choice that the score makes
by them stays as it is.
"""

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float32, Int64, Shaped

from hvd_xai.errors import advise, shorten
from hvd_xai.protocols import Channels, Score
from hvd_xai.tracing.float_inputs import floats_kept
from hvd_xai.tracing.layer_patching import unwrapped
from hvd_xai.tracing.logits import Activation, find_logits

Outputs: TypeAlias = tf.Tensor | Mapping[str, tf.Tensor] | Sequence[tf.Tensor]


def output(
    outputs: Outputs, targets: Shaped[tf.Tensor, "n"], *, head: str | int | None = None
) -> Float32[tf.Tensor, "n"]:
    """Selects the model's output for the target.

    `outputs[i, targets[i]]`, or the value itself where there is but one output.

    Args:
        outputs: what the model returns, `[n, k]`, `[n, 1]` or `[n]`.
        targets: class ids in 0 to k - 1; not read where there is one output.
        head: key or place of the array to explain, where the model returns several.

    Returns:
        One value for each example, in the units of the model's output: a probability after a
        softmax, a logit without it.

    Raises:
        ValueError: if the outputs have another shape, or the targets of several outputs are not
            integers.

    Example:
        >>> probabilities = tf.constant([[0.25, 0.75], [0.5, 0.5]])
        >>> output(probabilities, tf.constant([1, 0])).numpy().tolist()
        [0.75, 0.5]
    """
    return _of_class(one_head(outputs, head), targets, "output")


def logit(
    outputs: Outputs, targets: Shaped[tf.Tensor, "n"], *, head: str | int | None = None
) -> Float32[tf.Tensor, "n"]:
    """Selects the target's logit: the value before the model's final softmax or sigmoid.

    It is the output where the model ends in neither. Where a probability is near 1 its gradient
    vanishes, and explanations with it; a logit's does not.

    Args:
        outputs: what the model returns, `[n, k]`, `[n, 1]` or `[n]`.
        targets: class ids in 0 to k - 1; not read where there is one output.
        head: key or place of the array to explain, where the model returns several.

    Raises:
        ValueError: if the outputs have another shape, the targets of several outputs are not
            integers, or the model ends in something else, so that its logits cannot be found.

    Example:
        Logits are found while the model is traced:

        >>> def logits_of_class(x, k):
        ...     return logit(model(x), tf.fill([4], k))
        >>> compute = tf.function(logits_of_class, autograph=False)
        >>> logits = np.stack([compute(inputs, k) for k in range(3)], axis=1)
        >>> bool(np.allclose(keras.ops.softmax(logits), model(inputs), atol=1e-6))
        True
    """
    logits, _ = find_logits(one_head(outputs, head))
    return _of_class(logits, targets, "logit")


def probability(
    outputs: Outputs,
    targets: Shaped[tf.Tensor, "n"],
    *,
    activation: Activation | None = None,
    head: str | int | None = None,
) -> Float32[tf.Tensor, "n"]:
    """Selects the target's probability, also where the model returns logits.

    Args:
        outputs: what the model returns, `[n, k]`, `[n, 1]` or `[n]`.
        targets: class ids in 0 to k - 1; of one output, the probability is that of the positive
            class, whatever the target.
        activation: function that makes probabilities of the logits; by default the one that the
            model ends in, and for a model that returns logits the softmax of several, the sigmoid
            of one. Where an example has many labels, say `sigmoid`.
        head: key or place of the array to explain, where the model returns several.

    Raises:
        ValueError: if the outputs have another shape, the targets of several outputs are not
            integers, or the logits cannot be found.

    Example:
        Of a model that ends in a softmax it is the output:

        >>> def both(x, y):
        ...     return probability(model(x), y), output(model(x), y)
        >>> probabilities, outputs = tf.function(both, autograph=False)(inputs, targets)
        >>> bool(np.allclose(probabilities, outputs, atol=1e-6))
        True
    """
    logits, activation = _logits_and_activation(one_head(outputs, head), activation)
    values = tf.nn.softmax(logits) if activation == "softmax" else tf.nn.sigmoid(logits)
    return _of_class(values, targets, "probability")


def target_probability(
    outputs: Outputs,
    targets: Shaped[tf.Tensor, "n"],
    *,
    activation: Activation | None = None,
    head: str | int | None = None,
) -> Float32[tf.Tensor, "n"]:
    """Selects the target's probability, also of class 0 where the model has a single output.

    Of one output, which is the probability p of class 1, it is p for target 1 and `1 - p` for
    target 0: what raises it speaks for the target of each example, whichever that is. Of several
    outputs it is `probability`. Args are those of `probability`.

    Raises:
        ValueError: if the outputs have another shape, the targets are not integers, or the logits
            cannot be found.

    Example:
        >>> binary = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1, "sigmoid")])
        >>> def both(x):
        ...     zeros = tf.zeros([4], tf.int64)
        ...     return target_probability(binary(x), zeros), output(binary(x), zeros)
        >>> of_0, of_1 = tf.function(both, autograph=False)(inputs)
        >>> bool(np.allclose(of_0 + of_1, 1, atol=1e-6))
        True
    """
    array = one_head(outputs, head)
    logits, activation = _logits_and_activation(array, activation)
    rows = _rows(logits, "target_probability")
    if rows.shape[-1] > 1:
        return probability(outputs, targets, activation=activation, head=head)
    _check_class_ids(targets, 2, "target_probability")
    # 1 - p = sigmoid(-z), without the rounding of the difference
    return tf.nn.sigmoid(tf.where(targets == 1, rows[:, 0], -rows[:, 0]))


def log_odds(
    outputs: Outputs,
    targets: Shaped[tf.Tensor, "n"],
    *,
    activation: Activation | None = None,
    head: str | int | None = None,
) -> Float32[tf.Tensor, "n"]:
    """Selects the logarithm of the target's odds, `log p / (1 - p)`.

    It is the target's logit against those of all other classes together. Unlike the logit, it does
    not change when all logits rise alike; unlike the probability, it does not saturate. Args and
    errors are those of `probability`.

    Example:
        >>> def both(x, y):
        ...     return log_odds(model(x), y), output(model(x), y)
        >>> odds, p = tf.function(both, autograph=False)(inputs, targets)
        >>> bool(np.allclose(odds, np.log(p / (1 - p)), atol=1e-5))
        True
    """
    logits, activation = _logits_and_activation(one_head(outputs, head), activation)
    selected = _of_class(logits, targets, "log_odds")
    if activation == "sigmoid":
        return selected
    # The lowest number there is, added to the target's own logit, leaves it out of the sum.
    others = tf.one_hot(targets, logits.shape[-1], on_value=logits.dtype.min, off_value=0.0)
    # not tf.reduce_logsumexp, which stops the gradient of the largest: it cancels, but what follows
    # changes themselves would miss it
    theirs = logits + others
    largest = tf.reduce_max(theirs, axis=-1)
    return (
        selected - largest - tf.math.log(tf.reduce_sum(tf.exp(theirs - largest[:, None]), axis=-1))
    )


def predicted(
    outputs: Outputs,
    targets: Shaped[tf.Tensor, "n"],
    *,
    head: str | int | None = None,
    at: Outputs | None = None,
) -> Float32[tf.Tensor, "n"]:
    """Selects the output of the class that is most likely for the example, whatever its target.

    Args:
        outputs: what the model returns, `[n, k]`; of one output the value itself.
        targets: class ids; not read.
        head: key or place of the array to explain, where the model returns several.
        at: what the model returns for the examples themselves, which chooses the classes; by
            default `outputs`.

    Raises:
        ValueError: if the outputs have another shape.

    Example:
        >>> probabilities = tf.constant([[0.25, 0.75], [0.875, 0.125]])
        >>> predicted(probabilities, tf.constant([0, 0])).numpy().tolist()
        [0.75, 0.875]
    """
    del targets
    chosen = one_head(outputs if at is None else at, head)
    classes = (
        tf.argmax(tf.cast(chosen, tf.float32), axis=-1)
        if chosen.shape.rank == 2
        else tf.zeros(tf.shape(chosen)[:1], tf.int64)
    )
    return _of_class(one_head(outputs, head), classes, "predicted")


def regression(
    outputs: Outputs,
    targets: Shaped[tf.Tensor, "n"],
    *,
    index: int | None = None,
    head: str | int | None = None,
) -> Float32[tf.Tensor, "n"]:
    """Selects a value that the model predicts, one and the same for all examples.

    Args:
        outputs: what the model returns, `[n, k]`, `[n, 1]` or `[n]`.
        targets: any values, such as those to predict; not read.
        index: place of the value among several; needed where there are several.
        head: key or place of the array to explain, where the model returns several.

    Raises:
        ValueError: if there is no such value, or several and no index.

    Example:
        >>> values = tf.constant([[2.0, 3.0], [4.0, 5.0]])
        >>> regression(values, tf.constant([0, 0]), index=1).numpy().tolist()
        [3.0, 5.0]
    """
    del targets
    values = _rows(one_head(outputs, head), "regression")
    if index is None and values.shape[-1] != 1:
        raise ValueError(
            f"score 'regression' of a model with {values.shape[-1]} outputs needs index= which of"
            " them"
        )
    if not 0 <= (index or 0) < values.shape[-1]:
        raise ValueError(
            f"score 'regression' has outputs 0 to {values.shape[-1] - 1}; got index={index}"
        )
    return values[:, index or 0]


def segmentation(
    outputs: Outputs,
    targets: Shaped[tf.Tensor, "n"],
    *,
    mask: np.ndarray | None = None,
    threshold: float = 0.5,
    channels: Channels = "last",
    head: str | int | None = None,
    at: Outputs | None = None,
) -> Float32[tf.Tensor, "n"]:
    """Averages the target's output over a region of places.

    By default the region is where the target is the most likely class of the example.

    Args:
        outputs: what the model returns, `[n, h, w, k]` or `[n, k, h, w]`, or as many places as the
            data have.
        targets: class ids in 0 to k - 1; not read where each place has one output.
        mask: region `[h, w]` that all examples share; its weights are not negative.
        threshold: value above which a place with one output is in the region: 0.5 for
            probabilities, 0 for logits.
        channels: axis of the classes in the outputs, `last` or `first`.
        head: key or place of the array to explain, where the model returns several.
        at: what the model returns for the examples themselves, where the region is found; by
            default `outputs`.

    Returns:
        One value for each example; 0 where the region is empty.

    Raises:
        ValueError: if the outputs have no places, the mask other ones, or the targets are not
            integers.

    Example:
        Of two places, only the first is most likely of class 0:

        >>> probabilities = tf.constant([[[0.75, 0.25], [0.375, 0.625]]])
        >>> segmentation(probabilities, tf.constant([0])).numpy().tolist()
        [0.75]
    """
    values = tf.cast(classes_last(one_head(outputs, head), channels), tf.float32)
    if values.shape.rank < 3:
        raise ValueError(
            f"score 'segmentation' needs outputs of shape (n, h, w, k); got {tuple(values.shape)}"
        )
    is_one_output = values.shape[-1] == 1
    if not is_one_output:
        _check_class_ids(targets, values.shape[-1], "segmentation")
    of_target = values[..., 0] if is_one_output else _places_of(values, targets)
    if mask is None:
        there = one_head(outputs if at is None else at, head)
        chosen = tf.cast(classes_last(there, channels), tf.float32)
        ids = tf.reshape(tf.cast(targets, tf.int64), [-1] + [1] * (values.shape.rank - 2))
        region = tf.cast(
            chosen[..., 0] > threshold if is_one_output else tf.argmax(chosen, axis=-1) == ids,
            tf.float32,
        )
    else:
        if mask.shape != tuple(values.shape[1:-1]):
            raise ValueError(
                f"the mask of score 'segmentation' must have shape {tuple(values.shape[1:-1])}; got"
                f" {mask.shape}"
            )
        region = tf.broadcast_to(tf.constant(mask, tf.float32), tf.shape(of_target))
    places = list(range(1, of_target.shape.rank))
    return tf.math.divide_no_nan(
        tf.reduce_sum(of_target * region, places), tf.reduce_sum(region, places)
    )


def resolve(score: str | Score) -> Score:
    """Returns the score of that name; a function is returned as it is.

    Raises:
        TypeError: if it is neither.
        ValueError: if there is none of that name.
    """
    if callable(score):
        return score
    if not isinstance(score, str):
        raise TypeError(
            f"a score is a name, or a function of outputs and targets; got {type(score).__name__}"
        )
    named = _scores_by_name()
    if score not in named:
        names = ", ".join(map(repr, named))
        raise ValueError(
            f"unknown score {shorten(score)}; pass score= one of {names}, or a function of outputs"
            " and targets"
        )
    return named[score]


# Kept, because a name is resolved for every micro-batch, and signatures are slow to read.
@functools.cache
def _scores_by_name() -> dict[str, Score]:
    """Returns all scores of this module by their names."""
    return {
        name: value
        for name, value in globals().items()
        if inspect.isfunction(value)
        and not name.startswith("_")
        and [*inspect.signature(value).parameters][:2] == ["outputs", "targets"]
    }


def evaluate(
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    score: str | Score,
) -> Float32[tf.Tensor, "n"]:
    """Runs the model in inference mode and returns the score of each example.

    The score leaves in float32 whatever the model computes in, so that sums over examples do not
    lose it.

    Raises:
        ValueError: if the score is not one number an example.
    """
    with unwrapped(model), floats_kept(model):
        outputs = model(inputs, training=False)
    values = resolve(score)(outputs, targets)
    if values.shape.rank != 1:
        raise ValueError(
            f"a score must return one number an example, shape (n,); {shorten(score)} returned"
            f" shape {tuple(values.shape)}"
        )
    return tf.cast(values, tf.float32)


def takes_class_ids(score: str | Score) -> bool:
    """Returns whether the score's targets must be ids of the model's classes.

    Some scores ignore targets, and a user's own functions read them as they like.
    """
    return _unbound(score) in {
        output,
        logit,
        probability,
        target_probability,
        log_odds,
        segmentation,
    }


def reads_targets(score: str | Score) -> bool:
    """Returns whether a score may depend on the targets; a user's own functions may."""
    return _unbound(score) not in (predicted, regression)


def _unbound(score: str | Score) -> Score:
    function = resolve(score)
    while isinstance(function, functools.partial):
        function = function.func
    return function


class AtExamples:
    """A score whose choices were made at the examples; its targets are the examples' rows.

    Args:
        score: score with an option `at`.
        outputs: what the model returned for the examples.
        targets: targets of the examples.
    """

    def __init__(self, score: Score, outputs: Outputs, targets: Shaped[tf.Tensor, "n"]) -> None:
        self._score: Any = score
        self._outputs = outputs
        self._targets = targets

    def __call__(
        self, outputs: Outputs, targets: Int64[tf.Tensor, "r"], /
    ) -> Float32[tf.Tensor, "r"]:
        """Returns the score of outputs that belong to these rows of the examples."""
        at = tf.nest.map_structure(lambda array: tf.gather(array, targets), self._outputs)
        values: tf.Tensor = self._score(outputs, tf.gather(self._targets, targets), at=at)
        return values


def is_one_array(returned: Outputs) -> bool:
    """Returns whether a model returned one array, by itself or in a dict or list of one."""
    return isinstance(returned, tf.Tensor) or len(returned) == 1


def one_head(returned: Outputs, head: str | int | None) -> tf.Tensor:
    """Returns the array to explain among those that a model returned.

    Raises:
        ValueError: if there are several and none is named, or there is none of that name.
    """
    if isinstance(returned, tf.Tensor):
        if head not in {None, 0}:
            raise ValueError(
                f"the model returns one array, so there is no head {shorten(head)}; leave head= out"
            )
        return returned
    pairs = returned.items() if isinstance(returned, Mapping) else enumerate(returned)
    there: dict[str | int | None, tf.Tensor] = dict(pairs)
    if head is None and is_one_array(returned):
        return next(iter(there.values()))
    if head not in there:
        count = "one array" if len(there) == 1 else "several arrays"
        asked = "" if head is None else f", and none is {shorten(head)}"
        names = ", ".join(map(repr, there))
        raise ValueError(
            f"the model returns {count}{asked}; "
            + advise(
                script=f"bind head= one of {names} to the score",
                command=f"give --set score.head= one of {names}",
            )
        )
    return there[head]


def classes_last(array: tf.Tensor, channels: Channels) -> tf.Tensor:
    """Returns outputs of places, `[n, k, h, w]` if channels come first, as `[n, h, w, k]`."""
    if channels == "last" or array.shape.rank < 3:
        return array
    if channels != "first":
        raise ValueError(f"classes of outputs are on the axis 'last' or 'first'; got {channels!r}")
    return tf.transpose(array, [0, *range(2, array.shape.rank), 1])


def _logits_and_activation(
    tensor: tf.Tensor, activation: Activation | None
) -> tuple[tf.Tensor, Activation]:
    logits, found = find_logits(tensor)
    one_output = logits.shape.rank == 1 or logits.shape[-1] == 1
    return logits, activation or found or ("sigmoid" if one_output else "softmax")


def _rows(tensor: tf.Tensor, name: str) -> tf.Tensor:
    """Returns outputs as `[n, k]` in float32."""
    if tensor.shape.rank not in {1, 2}:
        raise ValueError(
            f"score {name!r} needs a model that returns one array of shape (n, k) or (n,); got"
            f" {tuple(tensor.shape)}. Pass a function, or of outputs for each place"
            " score='segmentation'."
        )
    values = tf.cast(tensor, tf.float32)
    return values[:, None] if values.shape.rank == 1 else values


def _of_class(tensor: tf.Tensor, targets: tf.Tensor, name: str) -> tf.Tensor:
    """Returns the value of each example's target, or the only value that there is."""
    values = _rows(tensor, name)
    if values.shape[-1] == 1:
        return values[:, 0]
    _check_class_ids(targets, values.shape[-1], name)
    return tf.gather(values, targets, batch_dims=1)


def _places_of(values: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Returns the target's value at every place: `[n, ..., k]` and `[n]` to `[n, ...]`."""
    return tf.gather(values, targets[:, None], axis=-1, batch_dims=1)[..., 0]


def _check_class_ids(targets: tf.Tensor, n_outputs: int, name: str) -> None:
    if not targets.dtype.is_integer:
        raise ValueError(
            f"score {name!r} of a model with {n_outputs} outputs needs integer class ids as"
            f" targets; got dtype {targets.dtype.name}"
        )
