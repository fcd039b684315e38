import numpy as np
import tensorflow as tf

from hvd_xai.keras.metric_states import numbers_in


def test_numbers_and_arrays_are_found_and_names_within_dictionaries_are_flat() -> None:
    numbers = numbers_in(
        {
            "loss": tf.constant(0.1, tf.float64),
            "nested": {"f1": [1, 2], "again": {"half": tf.constant(0.5, tf.bfloat16)}},
            "words": "0.5",
            "nothing": None,
            "ragged": [[1], [2, 3]],
        }
    )
    assert {name: value.tolist() for name, value in numbers.items()} == {
        "loss": 0.1,
        "f1": [1.0, 2.0],
        "half": 0.5,
    }
    assert {value.dtype for value in numbers.values()} == {np.dtype("f8")}
