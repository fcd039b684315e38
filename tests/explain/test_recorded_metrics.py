import numpy as np
import tensorflow as tf

from hvd_xai.explain.recorded_metrics import recorded_metrics


def test_arrays_become_lists_and_what_json_cannot_say_is_null_or_left_out() -> None:
    logs = {
        "loss": np.float32(0.5),
        "f1": tf.constant([0.25, np.nan]),
        "matrix": [[1, 2], [3, 4]],
        "half": tf.constant(0.5, tf.bfloat16),
        "diverged": np.inf,
        "note": "warm",
        "nothing": None,
        "ragged": [[1], [2, 3]],
        "huge": np.zeros((101, 100)),
    }
    assert recorded_metrics(logs) == {
        "loss": 0.5,
        "f1": [0.25, None],
        "matrix": [[1.0, 2.0], [3.0, 4.0]],
        "half": 0.5,
    }
