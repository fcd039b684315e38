"""Finds metrics whose states are no sums over examples, though their variables say so.

Keras's `add_weight` says "sum" of every state, also of one that holds a largest value so far.
"""

import logging
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

log = logging.getLogger(__name__)

# A batch may leave a state as it is, and so tell nothing: several are looked at.
N_BATCHES = 8
_ROUNDING = 1e-3  # of float32 sums over one batch, in whatever order

# Not in attributes of the metrics, which Keras would take for states.
_NO_SUMS: "weakref.WeakKeyDictionary[keras.metrics.Metric, tf.Variable]" = (
    weakref.WeakKeyDictionary()
)


def watch_sums(model: "keras.Model") -> None:
    """Makes metrics that are not Keras's own tell whether their states are sums over examples.

    It works for steps that Keras compiles later, and does not look at steps that run eagerly. The
    metrics' values do not change.
    """
    for metric in _metrics_of(model):
        is_keras = type(metric).__module__.partition(".")[0] == "keras"
        if not is_keras and metric not in _NO_SUMS and metric.variables:
            _NO_SUMS[metric] = tf.Variable(False, trainable=False)
            metric.update_state = _watched(metric, metric.update_state, _NO_SUMS[metric])


def is_no_sum(metric: "keras.metrics.Metric") -> bool:
    """Returns whether a batch that counted twice did not count double in a sum of the metric."""
    return metric in _NO_SUMS and bool(_NO_SUMS[metric])


def leaves(metric: "keras.metrics.Metric") -> "Iterator[keras.metrics.Metric]":
    """Yields the metrics that a metric holds, as Keras holds those of `compile`, then itself."""
    held = getattr(metric, "metrics", None)
    for one in held if isinstance(held, list) else []:
        yield from leaves(one)
    yield metric


def _metrics_of(model: "keras.Model") -> "Iterator[keras.metrics.Metric]":
    # Keras lists the metrics of `compile` only when it has seen a batch, which is too late.
    given = getattr(model, "_compile_metrics", None)
    for name in ("_user_metrics", "_user_weighted_metrics"):
        for metric in keras.tree.flatten(getattr(given, name, None)):
            if isinstance(metric, keras.metrics.Metric):
                yield from leaves(metric)
    for metric in model.metrics:
        yield from leaves(metric)


def _watched(
    metric: "keras.metrics.Metric", update: "Callable[..., Any]", no_sum: "tf.Variable"
) -> "Callable[..., Any]":
    n_left = tf.Variable(N_BATCHES, trainable=False)

    def watched(*args: Any, **kwargs: Any) -> Any:
        # Eagerly, an update that also appends to a list would append twice.
        if not tf.executing_eagerly():

            def look() -> "tf.Tensor":
                n_left.assign_sub(1)
                return _counts_otherwise(metric, lambda: update(*args, **kwargs))

            try:
                found = tf.cond(n_left > 0, look, lambda: tf.constant(False))
                no_sum.assign(tf.logical_or(no_sum, found))
            except Exception as error:  # noqa: BLE001  # a look must not end the training
                log.info("metric '%s' is taken to keep sums: %s", metric.name, error)
        return update(*args, **kwargs)

    return watched


def _counts_otherwise(metric: "keras.metrics.Metric", update: "Callable[[], Any]") -> "tf.Tensor":
    """Returns whether a sum is none: twice is no double of once, or it begins with no zero."""
    states = list(metric.variables)
    kept = [tf.identity(state.value) for state in states]
    nothing = [tf.zeros(state.shape, state.dtype) for state in states]

    def after(values: "list[tf.Tensor]", change: "Callable[[], Any]") -> "list[tf.Tensor]":
        scope = keras.StatelessScope(list(zip(states, values, strict=True)))
        with scope:
            change()
        return [scope.get_current_value(state) for state in states]

    once = after(nothing, update)
    twice = after(once, update)
    empty = after(nothing, metric.reset_state)
    found = [tf.constant(False)]
    for state, one, two, zero in zip(states, once, twice, empty, strict=True):
        # A metric may also have states that are said to be combined in another way.
        if state.aggregation != "sum":
            continue
        first, second = tf.cast(one, tf.float64), tf.cast(two, tf.float64)
        distance = tf.abs(second - 2 * first)
        found += [
            tf.reduce_any(distance > _ROUNDING * (tf.abs(first) + tf.abs(second))),
            tf.reduce_any(tf.cast(zero, tf.float64) != 0),
        ]
    # Within its scope Keras updates other values in the states' place, but an update that goes past
    # Keras, to the variables of TensorFlow, has changed them.
    for state, value in zip(states, kept, strict=True):
        state.assign(value)
    return tf.reduce_any(tf.stack(found))
