"""Rows hold what was computed for each example, and are not computed twice."""

import numpy as np
import pytest

from hvd_xai.checkpoint.rows import decode, row_dtype
from hvd_xai.compute.attribute import Compute
from hvd_xai.compute.predict import Predict, Predicted
from hvd_xai.explain.rows import compute_rows
from hvd_xai.explain.share import ProbeShare
from hvd_xai.lookup.resolve import resolve
from hvd_xai.probe.probe import Probe
from hvd_xai.ranks.world import World
from hvd_xai.recording.row_buffer import RowBuffer
from tests.models_under_test import examples, functional

N = 7
PROBE = Probe(*examples(N), labels=(np.arange(N) + 1) % 3)
SHARE = ProbeShare.cut(PROBE, World.alone())


@pytest.fixture(scope="module")
def computes() -> dict[str, Compute]:
    model = functional()
    made = {}
    for method in resolve(["saliency", "integrated_gradients"]):
        made[method.name] = Compute(model, method, micro_batch=2)
        made[method.name].check(*SHARE.examples())
    return made


@pytest.fixture(scope="module")
def predicted() -> Predicted:
    return Predict(functional())(PROBE.inputs, PROBE.targets)


def buffer_for(compute: Compute, predicted: Predicted) -> RowBuffer:
    dtype = row_dtype(
        compute.sample_shape,
        target=PROBE.targets.dtype,
        prediction=predicted.predictions.dtype,
        per_sample=compute.per_sample,
    )
    return RowBuffer(dtype)


def test_each_row_holds_what_is_known_of_its_example(
    computes: dict[str, Compute], predicted: Predicted
) -> None:
    compute = computes["saliency"]
    with buffer_for(compute, predicted) as buffer:
        deltas = compute_rows(compute, SHARE, predicted, buffer, lambda _: None)
        rows = buffer.read(0, N)
    assert len(deltas) == 0
    for name, values in (
        ("sample_id", PROBE.sample_ids),
        ("target", PROBE.targets),
        ("label", PROBE.labels),
        ("prediction", predicted.predictions),
        ("score", predicted.scores),
    ):
        np.testing.assert_array_equal(rows[name], values)
    # rows hold float16 times a float32 scale for each sample: 11 bits of its largest magnitude
    np.testing.assert_allclose(
        decode(rows),
        compute(*SHARE.examples()).attributions,
        rtol=0,
        atol=2.0**-11 * float(rows["scale"].max()),
    )


def test_deltas_are_returned_and_progress_ends_at_the_last_row(
    computes: dict[str, Compute], predicted: Predicted
) -> None:
    done: list[int] = []
    compute = computes["integrated_gradients"]
    with buffer_for(compute, predicted) as buffer:
        deltas = compute_rows(compute, SHARE, predicted, buffer, done.append)
        np.testing.assert_array_equal(deltas, buffer.column("convergence_delta", 0, N))
    assert done == sorted(done)
    assert done[-1] == N


def test_rows_that_are_there_already_are_kept_as_they_are(
    computes: dict[str, Compute], predicted: Predicted
) -> None:
    compute = computes["integrated_gradients"]
    with buffer_for(compute, predicted) as whole, buffer_for(compute, predicted) as again:
        deltas = compute_rows(compute, SHARE, predicted, whole, lambda _: None)
        again.append(whole.read(0, N))
        other = Predicted(predicted.predictions, predicted.scores + 1)
        np.testing.assert_array_equal(
            compute_rows(compute, SHARE, other, again, lambda _: None), deltas
        )
        np.testing.assert_array_equal(again.read(0, N), whole.read(0, N))
