"""What a metric stands behind is taken from its states, in one process too."""

import numpy as np

import hvd_xai.keras as hvd
from hvd_xai.keras.callbacks.logs_of_all_ranks import Part, logs_of_all_ranks
from hvd_xai.keras.metric_states import Results


def test_results_of_metrics_are_replaced_and_other_numbers_are_averaged() -> None:
    results = Results(
        {"mae": np.array(0.5), "f1": np.array([1.0, np.nan]), "loss": np.array(0.0)},
        {"mae": np.array(0.25), "f1": np.array([0.5, np.nan]), "loss": np.array(0.0)},
    )
    logs = {
        "mae": 0.5 * (1 + 1e-7),  # as a compiled step rounds it
        "f1": np.array([1.0, np.nan], "float32"),
        "loss": 0.75,  # of a step that does not use the metric
        "val_mae": 0.5,
        "note": "warm",
    }
    validation = Results({"mae": np.array(0.5)}, {"mae": np.array(2.0)})
    parts = [Part("", results, 3), Part("val_", validation, 0)]
    together = logs_of_all_ranks(hvd.init(), logs, parts)
    np.testing.assert_equal(
        together, {"mae": 0.25, "f1": np.array([0.5, np.nan]), "loss": 0.75, "val_mae": 2.0}
    )
