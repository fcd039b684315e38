"""A method is compiled once, runs in bounded memory, and is refused before it runs where it cannot
be right."""

from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.attributions.grad_cam import grad_cam
from hvd_xai.attributions.integrated_gradients import integrated_gradients
from hvd_xai.compute.attribute import Compute
from hvd_xai.protocols import Attributed, Attribution
from hvd_xai.tracing import compiled
from tests import models_under_test as models


def inputs_of_block(
    model: keras.Model, inputs: tf.Tensor, targets: tf.Tensor, /, *, ids: tf.Tensor
) -> Attributed:
    """Returns the inputs, and how many examples came at once; it knows nothing of micro-batches."""
    return Attributed(
        tf.cast(inputs, tf.float32),
        {"n_seen": tf.fill([inputs.shape[0]], inputs.shape[0]), "id": ids},
    )


def test_a_plain_method_gets_blocks_of_the_micro_batch() -> None:
    inputs, targets, ids = models.examples(10)
    compute = Compute(models.functional(), inputs_of_block, micro_batch=4)
    computed = compute(inputs, targets, ids + 100)
    np.testing.assert_array_equal(computed.attributions, inputs)
    np.testing.assert_array_equal(computed.per_sample["n_seen"], np.full(10, 4))
    np.testing.assert_array_equal(computed.per_sample["id"], ids + 100)


def half_of_each_input(
    model: keras.Model, inputs: tf.Tensor, targets: tf.Tensor, /, *, ids: tf.Tensor
) -> Attributed:
    return Attributed(inputs[:, ::2], attributed_to="inputs")


def test_what_a_method_says_of_its_attributions_is_known_after_check() -> None:
    inputs, targets, _ = models.examples(0)
    says: list[tuple[Attribution, tuple[str, bool]]] = [
        (integrated_gradients, ("inputs", True)),
        (grad_cam, ("places", False)),
    ]
    for method, want in says:
        compute = Compute(models.functional(), method)
        compute.check(inputs, targets)
        assert (compute.attributed_to, compute.signed) == want
    unsaid = Compute(models.functional(), inputs_of_block)
    unsaid.check(inputs, targets)
    assert (unsaid.attributed_to, unsaid.signed) == (None, None)


def test_attributions_to_inputs_of_another_shape_are_refused() -> None:
    inputs, targets, _ = models.examples(0)
    with pytest.raises(ValueError, match=r"their shape \(None, 8, 8, 1\); got \(None, 4, 8, 1\)"):
        Compute(models.functional(), half_of_each_input).check(inputs, targets)


def test_a_bound_micro_batch_is_kept() -> None:
    model = models.functional()
    formed = Compute(model, integrated_gradients, micro_batch=32).method
    assert formed.options["micro_batch"] == 32
    bound = partial(integrated_gradients, micro_batch=8, n_steps=4)
    method = Compute(model, bound, micro_batch=32).method
    assert method.function == "integrated_gradients"
    assert method.options == {
        "n_steps": 4,
        "rule": "midpoint",
        "baseline": "zero",
        "score": "output",
        "micro_batch": 8,
        "tolerance": None,
    }


def test_more_examples_than_one_call_takes_go_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, targets, ids = models.examples(100)
    compute = Compute(models.with_state(), partial(integrated_gradients, n_steps=4), micro_batch=16)
    want = compute(inputs, targets, ids)
    monkeypatch.setattr(compiled, "_BYTES_PER_CALL", 1)
    got = compute(inputs, targets, ids)
    np.testing.assert_allclose(
        got.attributions, want.attributions, rtol=0, atol=1e-6 * np.abs(want.attributions).max()
    )
    assert got.per_sample["convergence_delta"].shape == (100,)
    assert compute.n_traces == 1


def test_a_path_longer_than_a_micro_batch_is_summed_in_parts() -> None:
    inputs, targets, ids = models.examples(1)
    model = models.functional()
    whole = Compute(model, partial(integrated_gradients, n_steps=1000), micro_batch=1000)(
        inputs, targets, ids
    )
    parts = Compute(model, partial(integrated_gradients, n_steps=1000), micro_batch=64)(
        inputs, targets, ids
    )
    # 1,000 float32 terms in another order: 1,000 roundings of 6e-8, most of which cancel.
    np.testing.assert_allclose(
        parts.attributions, whole.attributions, rtol=0, atol=1e-5 * np.abs(whole.attributions).max()
    )


def test_shape_and_dtypes_are_known_from_no_examples() -> None:
    compute = Compute(models.functional(), integrated_gradients)
    compute.check(*models.examples(0))
    assert compute.sample_shape == models.INPUT_SHAPE
    assert compute.per_sample == {"convergence_delta": np.dtype("float32")}
    assert compute.n_traces == 1


def test_integer_images_are_taken() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, *models.INPUT_SHAPE), dtype=np.uint8)
    targets, ids = np.arange(3), np.arange(3)
    model = models.functional()
    for method in (integrated_gradients, grad_cam):
        got, want = (
            Compute(model, method)(images, targets, ids),
            Compute(model, method)(images.astype(np.float32), targets, ids),
        )
        np.testing.assert_array_equal(got.attributions, want.attributions)


def test_options_that_the_method_does_not_have_are_refused() -> None:
    with pytest.raises(TypeError, match="bound options do not fit"):
        Compute(models.functional(), partial(integrated_gradients, n_step=3))  # type: ignore[call-arg]
