"""A model's steps count the rows of their last batch, whatever the batch is made of."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.keras.callbacks.counted_rows import count_rows, rows_of_last


class Counts(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        count_rows(model)


def test_the_last_batch_of_training_and_of_validation_are_counted() -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x, y = np.zeros((7, 2), "float32"), np.zeros((7, 1), "float32")
    assert rows_of_last(model, "train_step") == 0
    for epochs in (1, 2):  # the second time with the steps that are compiled already
        options: dict[str, Any] = {"validation_data": (x[:3], y[:3]), "callbacks": [Counts()]}
        model.fit(x, y, batch_size=4, epochs=epochs, verbose=0, **options)
        counted = [rows_of_last(model, "train_step"), rows_of_last(model, "test_step")]
        assert counted == [3, 3]


@pytest.mark.parametrize(
    ("data", "n_rows"),
    [
        (({"b": None, "c": tf.zeros((5, 2))}, tf.zeros(5)), 5),
        (tf.ragged.constant([[1], [2, 3]]), 2),
        (tf.sparse.from_dense(tf.ones((4, 3))), 4),
        (tf.zeros(()), 0),
        ((None, "words"), 0),
    ],
)
def test_rows_of_any_batch_are_counted_and_0_says_that_they_are_not_known(
    data: Any, n_rows: int
) -> None:
    class Steps(keras.Model):  # type: ignore[misc]  # keras ships no types
        def train_step(self, data: Any) -> str:
            return "what the step returned"

    model = Steps()
    count_rows(model)
    assert model.train_step(data) == "what the step returned"
    assert rows_of_last(model, "train_step") == n_rows
