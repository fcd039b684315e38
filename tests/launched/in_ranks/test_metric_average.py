"""What is logged at the end of an epoch is that of all ranks, however it came into the logs."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import hvd_xai.keras as hvd
from hvd_xai.ranks.world import World
from tests.launched.fitting import Callbacks, first_callbacks, make_model, same_everywhere, zeros


def _rows_of(world: World) -> slice:
    """Cuts 48 rows into shards of 4, 6, 8, ... rows; the last rank has the rest."""
    edges = np.cumsum([0, *[4 + 2 * rank for rank in range(world.size - 1)], 48])[: world.size + 1]
    edges[-1] = 48
    return slice(edges[world.rank], edges[world.rank + 1])


class Worst(keras.metrics.Metric):  # type: ignore[misc]  # keras ships no types
    """The largest error of the epoch."""

    def __init__(self, aggregation: str) -> None:
        super().__init__(name="worst")
        self.largest = self.add_variable((), "zeros", aggregation=aggregation, name="largest")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        error = keras.ops.max(keras.ops.abs(y_true - y_pred))
        self.largest.assign(keras.ops.maximum(self.largest, error))

    def result(self) -> Any:
        return keras.ops.convert_to_tensor(self.largest)


class OfClasses(keras.metrics.Metric):  # type: ignore[misc]  # keras ships no types
    """Mean prediction of each class, and of all, as a dictionary."""

    def __init__(self) -> None:
        super().__init__(name="of_classes")
        self.total = self.add_variable((3,), "zeros", name="total")
        self.n_rows = self.add_variable((), "zeros", name="n_rows")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.total.assign_add(keras.ops.sum(y_pred, axis=0))
        self.n_rows.assign_add(keras.ops.shape(y_pred)[0])

    def result(self) -> Any:
        means = self.total / keras.ops.maximum(self.n_rows, 1)
        return {"each_class": means, "all_classes": keras.ops.mean(means)}


def _classifier(metrics: list[Any]) -> keras.Model:
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3, activation="softmax")])
    optimizer = hvd.DistributedOptimizer(keras.optimizers.SGD(0.0))
    model.compile(optimizer, "categorical_crossentropy", metrics=metrics)
    return model


def _classes() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    classes = np.eye(3, dtype="float32")[random.integers(0, 3, 48)]
    return random.normal(size=(48, 5)).astype("float32"), classes


def _fit(model: keras.Model, world: World, callbacks: Callbacks | None = None) -> dict[str, Any]:
    """Trains on this rank's uneven shard, and validates on it."""
    x, y = (array[_rows_of(world)] for array in _classes())
    history: dict[str, Any] = model.fit(
        *(x, y),
        batch_size=64,
        validation_data=(x, y),
        epochs=2,
        verbose=0,
        callbacks=first_callbacks() if callbacks is None else callbacks,
    ).history
    return history


def test_metrics_are_those_of_all_examples_even_over_uneven_shards(world: World) -> None:
    model = _classifier(
        ["accuracy", keras.metrics.AUC(name="auc"), keras.metrics.F1Score(name="f1"), OfClasses()]
    )
    expected = model.evaluate(*_classes(), verbose=0, return_dict=True)
    shapes = {name: np.shape(value) for name, value in expected.items()}
    assert (shapes["f1"], shapes["each_class"], shapes["all_classes"]) == ((3,), (3,), ())
    history = _fit(model, world)
    for epoch in range(2):
        for name, value in expected.items():
            np.testing.assert_allclose(history[name][epoch], value, atol=1e-6)
            np.testing.assert_allclose(history[f"val_{name}"][epoch], value, atol=1e-6)


class Steps(keras.Model):  # type: ignore[misc]  # keras ships no types
    """A model with steps of its own, which log tensors and the result of a metric."""

    def __init__(self, log: Callable[[Any], dict[str, Any]]) -> None:
        super().__init__()
        self.dense, self.log = keras.layers.Dense(3), log
        self.mean = keras.metrics.Mean(name="mean")
        self(np.zeros((1, 5), "float32"))

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def train_step(self, data: Any) -> dict[str, Any]:
        self.mean.update_state(data[1])
        return {**self.log(data[1]), "mean": self.mean.result()}

    test_step = train_step


def test_what_no_metric_stands_behind_is_averaged_by_the_rows_of_the_ranks(world: World) -> None:
    """`loss` is also the name of Keras's own tracker, which such a step leaves at zero."""
    model = Steps(
        lambda y: {
            "loss": tf.reduce_max(y),
            "per_class": tf.reduce_max(y, 0),
            "double": tf.cast(tf.reduce_max(y), tf.float64) / 3,
        }
    )
    model.compile(hvd.DistributedOptimizer(keras.optimizers.SGD(0.0)), "mse")
    n_rows = np.arange(world.size) + 2
    mine = np.full((n_rows[world.rank], 3), [[1.0, 2.0, 5.0 + world.rank]], "float32")
    inputs = np.zeros((len(mine), 5), "float32")
    history = model.fit(
        *(inputs, mine),
        validation_data=(np.concatenate([inputs] * 2), np.concatenate([mine] * 2)),
        batch_size=64,
        verbose=0,
        callbacks=first_callbacks(),
    ).history
    last = float(np.average(5.0 + np.arange(world.size), weights=n_rows))
    for prefix in ("", "val_"):
        assert history[f"{prefix}loss"] == [pytest.approx(last, rel=1e-7)]
        assert history[f"{prefix}double"] == [pytest.approx(last / 3, rel=1e-15)]
        np.testing.assert_allclose(history[f"{prefix}per_class"], [[1.0, 2.0, last]], rtol=1e-7)
        # the mean over all ranks' rows, of which the metric knows the number
        assert history[f"{prefix}mean"] == [pytest.approx((3.0 + last) / 3, rel=1e-6)]


def test_a_metric_that_keeps_more_than_variables_is_averaged_as_it_was_logged(
    world: World,
) -> None:
    class Outside(keras.metrics.Metric):  # type: ignore[misc]  # keras ships no types
        def update_state(self, *args: Any, **kwargs: Any) -> None:
            pass

        def result(self) -> float:
            return float(world.rank)

    model = _classifier([Outside(name="outside")])
    model.run_eagerly = True
    history = _fit(model, world)
    weights = world.allgather("testing", len(_classes()[0][_rows_of(world)]))
    mean = float(np.average(np.arange(world.size), weights=weights))
    assert history["val_outside"] == [pytest.approx(mean)] * 2


@pytest.mark.parametrize("where", ["before", "behind"])
def test_what_some_ranks_log_is_an_error_that_names_it_unless_it_is_logged_behind(
    world: World, where: str
) -> None:
    def log(epoch: int, logs: dict[str, Any]) -> None:
        logs["extra"] = 0.5

    callbacks = first_callbacks()
    if world.rank == world.size - 1:
        logs = keras.callbacks.LambdaCallback(on_epoch_end=log)
        callbacks.insert(1 if where == "before" else 2, logs)
    if where == "behind" or world.size == 1:
        make_model().fit(*zeros(), verbose=0, callbacks=callbacks)
        return
    with pytest.raises(ValueError, match=rf"rank {world.size - 1} logs 'extra' and rank 0 does"):
        make_model().fit(*zeros(), verbose=0, callbacks=callbacks)


def test_shapes_that_differ_between_ranks_are_an_error(world: World) -> None:
    log = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.update(extra=np.zeros(2 + world.rank))
    )
    if world.size > 1:
        with pytest.raises(ValueError, match=r"'extra' has the shape \(2,\) on rank 0 and \(3,\)"):
            make_model().fit(*zeros(), verbose=0, callbacks=[log, *first_callbacks()])


def test_validation_on_some_ranks_only_is_an_error(world: World) -> None:
    validation = {} if world.rank else {"validation_data": zeros()}
    if world.size > 1:
        with pytest.raises(ValueError, match=r"on rank 0 the validation begins while on rank 1 an"):
            make_model().fit(*zeros(), verbose=0, callbacks=first_callbacks(), **validation)


@pytest.mark.parametrize(
    ("aggregation", "why"), [("none", "its aggregation is 'none'"), ("sum", "they are no sums")]
)
def test_a_state_is_refused_after_one_batch_unless_it_is_known_how_it_is_combined(
    world: World, aggregation: str, why: str
) -> None:
    if world.size > 1:
        with pytest.raises(ValueError, match=why + r".*aggregation=\{'worst': 'max'\}"):
            _fit(_classifier([Worst(aggregation)]), world)


def test_the_largest_error_of_all_ranks_is_the_largest_of_theirs(world: World) -> None:
    x, y = _classes()
    expected = _classifier([Worst("sum")]).evaluate(x, y, verbose=0, return_dict=True)["worst"]
    first, _ = first_callbacks()
    average = hvd.callbacks.MetricAverageCallback(aggregation={"worst": "max"})
    history = _fit(_classifier([Worst("sum")]), world, [first, average])
    assert same_everywhere(world, history["worst"]) == [pytest.approx(expected)] * 2
    with pytest.raises(ValueError, match="'best'; metrics with states are: 'loss', 'worst'"):
        hvd.callbacks.metrics_of_all_ranks(
            _compiled_and_run(world, Worst("sum")), aggregation={"best": "max"}
        )


def _compiled_and_run(world: World, metric: keras.metrics.Metric) -> keras.Model:
    model = _classifier([metric])
    model.evaluate(*(array[_rows_of(world)] for array in _classes()), verbose=0)
    return model


@pytest.mark.parametrize("aggregation", ["mean", "only_first_replica"])
def test_states_are_combined_as_their_variables_say(world: World, aggregation: str) -> None:
    metric = Worst(aggregation)
    model = _compiled_and_run(world, metric)
    ranks = world.allgather("testing", float(metric.result()))
    expected = {"mean": float(np.mean(ranks)), "only_first_replica": ranks[0]}
    together = hvd.callbacks.metrics_of_all_ranks(model)["worst"]
    assert together == pytest.approx(expected[aggregation])
    assert float(metric.result()) == ranks[world.rank]  # this rank's own is left as it was


def test_states_in_double_precision_keep_it(world: World) -> None:
    mean = keras.metrics.MeanAbsoluteError(name="mean", dtype="float64")
    model = _compiled_and_run(world, mean)
    sums = world.allgather("testing", [float(state.numpy()) for state in mean.variables])
    together = hvd.callbacks.metrics_of_all_ranks(model)["mean"]
    total, count = np.sum(sums, 0)
    assert total != np.float32(total)
    assert together == pytest.approx(total / count, rel=1e-15)
    assert [float(state.numpy()) for state in mean.variables] == sums[world.rank]
