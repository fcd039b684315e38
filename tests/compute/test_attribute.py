"""What stands around a method: compiled once, in bounded memory, refused before it runs where it
cannot be right."""

from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.attributions.grad_cam import grad_cam
from hvd_xai.attributions.integrated_gradients import integrated_gradients
from hvd_xai.compute.attribute import Compute
from hvd_xai.compute.predict import Predict
from hvd_xai.protocols import Attributed, Attribution
from hvd_xai.tracing import compiled
from tests import models_under_test as models


def inputs_of_block(
    model: keras.Model, inputs: tf.Tensor, targets: tf.Tensor, /, *, ids: tf.Tensor
) -> Attributed:
    """A method that knows nothing of micro-batches, and says how many examples it saw at once."""
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


def test_a_target_out_of_range_names_its_sample() -> None:
    inputs, targets, ids = models.examples(6)
    targets[[2, 4]] = 3, -1
    compute = Compute(models.subclassed(), integrated_gradients)
    message = (
        "the model has 3 outputs, so targets must be class ids 0 to 2; 2 of 6 are not, the first"
        " being 3 of sample 102"
    )
    with pytest.raises(ValueError, match=message):
        compute.check(inputs, targets, ids + 100)
    with pytest.raises(ValueError, match=message):
        compute(inputs, targets, ids + 100)


def test_a_score_of_ones_own_reads_targets_as_it_likes() -> None:
    def largest(outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        return tf.reduce_max(outputs, axis=1)

    inputs, targets, ids = models.examples(4)
    compute = Compute(models.functional(), partial(integrated_gradients, score=largest))
    assert np.all(np.isfinite(compute(inputs, targets + 1000, ids).attributions))


def test_values_as_targets_of_classes_are_refused() -> None:
    inputs, targets, ids = models.examples(4)
    with pytest.raises(
        ValueError,
        match=(
            r"targets must be integer class ids; got dtype float64|integer class ids as targets;"
            r" got dtype float32"
        ),
    ):
        Compute(models.functional(), integrated_gradients).check(inputs, targets.astype(float), ids)


@pytest.mark.parametrize("shape", [(2, 7, 8, 1), (2, 8, 8), (2, 64)])
def test_inputs_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        ValueError,
        match=r"model 'sequential' takes inputs of shape \(None, 8, 8, 1\); got \(None, ",
    ):
        Compute(models.sequential(), integrated_gradients).check(
            np.zeros(shape, np.float32), np.zeros(2, np.int64)
        )


def test_a_model_of_two_inputs_is_refused() -> None:
    one, two = keras.Input((3,)), keras.Input((3,))
    model = keras.Model([one, two], keras.layers.Add()([one, two]), name="two")
    with pytest.raises(
        ValueError, match="model 'two' has 2 inputs; only models of one input can be explained"
    ):
        Compute(model, integrated_gradients).check(
            np.zeros((1, 3), np.float32), np.zeros(1, np.int64)
        )


def test_a_model_without_weights_yet_is_refused() -> None:
    with pytest.raises(
        ValueError, match="model 'subclassed' has no weights yet; build it, or call it once"
    ):
        Compute(models.Subclassed(), integrated_gradients).check(*models.examples(1))


def test_each_example_needs_a_target() -> None:
    inputs, targets, _ = models.examples(4)
    # Type checkers at run time see it first.
    with pytest.raises(
        (ValueError, TypeError),
        match=r"each example needs a target; got 4 inputs and 3 targets|Type-check error",
    ):
        Compute(models.functional(), integrated_gradients).check(inputs, targets[:3])


def test_options_that_the_method_does_not_have_are_refused() -> None:
    with pytest.raises(TypeError, match="bound options do not fit"):
        Compute(models.functional(), partial(integrated_gradients, n_step=3))  # type: ignore[call-arg]


def test_predictions_and_scores_are_the_models() -> None:
    inputs, targets, _ = models.examples(37)
    model = models.with_state()
    predict = Predict(model, micro_batch=16)
    assert predict.check(inputs, targets) == np.int32
    predictions, scores = predict(inputs, targets)
    outputs = model.predict(inputs, verbose=0)
    np.testing.assert_array_equal(predictions, outputs.argmax(axis=1))
    np.testing.assert_allclose(scores, outputs[np.arange(37), targets], rtol=1e-6)
    assert predictions.dtype == np.int32
    assert scores.dtype == np.float32
    assert predict.n_traces == 1


def test_predictions_of_one_output_are_its_values() -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    inputs = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    predict = Predict(model)
    targets = np.linspace(0, 1, 5)
    assert predict.check(inputs, targets) == np.float32
    predictions, scores = predict(inputs, targets)
    np.testing.assert_allclose(predictions, model.predict(inputs, verbose=0)[:, 0], rtol=1e-6)
    np.testing.assert_array_equal(predictions, scores)


def test_a_probability_of_class_1_predicts_the_likelier_class() -> None:
    keras.utils.set_random_seed(3)
    inputs, targets = (
        np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32),
        np.arange(40) % 2,
    )
    dense = [keras.Input((3,)), keras.layers.Dense(1)]
    for ends in (
        [keras.layers.Activation("sigmoid")],
        [keras.layers.Lambda(keras.ops.sigmoid), keras.layers.Flatten()],
    ):
        model = keras.Sequential([*dense, *ends])
        for score in ("output", "logit"):
            predict = Predict(model, score=score, is_binary=True)
            assert predict.check(inputs, targets) == np.int32
            np.testing.assert_array_equal(
                predict(inputs, targets).predictions, model.predict(inputs, verbose=0)[:, 0] > 0.5
            )
        assert Predict(model).check(inputs, targets) == np.float32, "where targets may be anything"
    assert 0 < model.predict(inputs, verbose=0).round().mean() < 1


@pytest.mark.parametrize("activation", [None, "tanh", "relu", "hard_sigmoid"])
def test_one_output_that_is_no_probability_predicts_a_value(activation: str | None) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, activation=activation)])
    assert (
        Predict(model, is_binary=True).check(np.zeros((2, 3), np.float32), np.arange(2))
        == np.float32
    )


def test_predictions_hold_targets_to_the_outputs() -> None:
    inputs, targets, ids = models.examples(4)
    targets[1] = 7
    with pytest.raises(ValueError, match="1 of 4 are not, the first being 7 of sample 51"):
        Predict(models.functional()).check(inputs, targets, ids + 50)
    with pytest.raises(ValueError, match="the first being 7 of sample 1"):
        Predict(models.functional())(inputs, targets)


def test_targets_that_are_no_numbers_are_refused() -> None:
    inputs, targets, _ = models.examples(4)
    with pytest.raises(ValueError, match="targets must be numbers; got dtype <U"):
        Compute(models.functional(), integrated_gradients).check(inputs, targets.astype(str))


def test_no_examples_give_no_predictions() -> None:
    predictions, scores = Predict(models.functional())(*models.examples(0)[:2])
    assert predictions.shape == scores.shape == (0,)


def test_new_weights_are_seen() -> None:
    inputs, targets, _ = models.examples(3)
    model = models.functional()
    predict = Predict(model)
    before = predict(inputs, targets).scores
    model.set_weights([weight * 2 for weight in model.get_weights()])
    assert np.abs(predict(inputs, targets).scores - before).max() > 0
    assert predict.n_traces == 1
