"""States that are no sums over examples are found, whatever else they are, and left as they are."""

from typing import Any

import keras
import numpy as np
import pytest

from hvd_xai.keras.metric_sums import is_no_sum, watch_sums

X = np.arange(12, dtype="float32").reshape(6, 2)


class Kept(keras.metrics.Metric):  # type: ignore[misc]  # keras ships no types
    """Keeps what `rule` makes of the state before and the sum of the targets."""

    def __init__(self, rule: Any, initial: float = 0.0) -> None:
        super().__init__(name="kept")
        self.rule, self.initial = rule, initial
        self.kept = self.add_weight(name="kept", initializer="zeros")
        # said to be no sum, and none
        self.last = self.add_variable((), "zeros", aggregation="mean", name="last")
        self.reset_state()

    def reset_state(self) -> None:
        self.kept.assign(self.initial)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.kept.assign(self.rule(self.kept, keras.ops.sum(y_true)))
        self.last.assign(keras.ops.sum(y_true))

    def result(self) -> Any:
        return keras.ops.convert_to_tensor(self.kept)


class Watches(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        watch_sums(model)


@pytest.mark.parametrize(
    ("rule", "initial", "expected"),
    [
        (lambda kept, new: kept + new, 0.0, False),
        (keras.ops.maximum, 0.0, True),
        (keras.ops.minimum, 1e9, True),
        (lambda kept, new: 0.9 * kept + 0.1 * new, 0.0, True),
        (lambda kept, new: new, 0.0, True),
    ],
    ids=["sum", "largest", "smallest", "moving average", "last"],
)
def test_what_is_no_sum_is_found_in_one_batch_and_computed_as_before(
    rule: Any, initial: float, expected: bool
) -> None:
    metrics = [Kept(rule, initial), Kept(rule, initial)]
    for metric, callbacks in zip(metrics, ([], [Watches()]), strict=True):
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", metrics=[metric, "mae"])
        model.fit(X, X[:, :1], batch_size=6, verbose=0, callbacks=callbacks)
    assert [is_no_sum(metric) for metric in metrics] == [False, expected]
    assert float(metrics[0].result()) == float(metrics[1].result())


def test_metrics_of_keras_are_not_looked_at() -> None:
    mean = keras.metrics.MeanAbsoluteError()
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=[mean])
    watch_sums(model)
    assert "update_state" not in vars(mean)
