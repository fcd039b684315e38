"""Scores select the number that is explained."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai import scores
from hvd_xai.attributions.integrated_gradients import integrated_gradients
from hvd_xai.attributions.saliency import saliency
from hvd_xai.compute.attribute import Compute
from hvd_xai.compute.predict import Predict
from hvd_xai.errors import advising_command_line
from hvd_xai.protocols import Attributed, Attribution, Score
from tests import models_under_test as models

# Float32, through one activation and back.
ROUNDING = 1e-6


def test_output_selects_the_target_of_each_example() -> None:
    outputs = tf.constant([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    np.testing.assert_array_equal(scores.output(outputs, tf.constant([2, 0])), [3, 4])


@pytest.mark.parametrize("outputs", [[[1.5], [2.5]], [1.5, 2.5]])
def test_output_of_one_value_is_that_value_whatever_the_target(outputs: list[object]) -> None:
    for targets in (tf.constant([1, 0]), tf.constant([0.3, 7.0])):
        np.testing.assert_array_equal(scores.output(tf.constant(outputs), targets), [1.5, 2.5])


def test_output_does_not_touch_other_classes() -> None:
    outputs = tf.constant([[np.nan, 2.0]])
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        score = scores.output(outputs, tf.constant([1]))
    np.testing.assert_array_equal(score, [2.0])
    np.testing.assert_array_equal(tape.gradient(score, outputs), [[0.0, 1.0]])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_scores_leave_in_float32(dtype: str) -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, dtype=dtype)])
    assert (
        scores.evaluate(model, tf.zeros((4, 2)), tf.zeros(4, tf.int32), "output").dtype
        == tf.float32
    )


def test_outputs_of_another_rank_are_refused() -> None:
    with pytest.raises(
        ValueError,
        match=r"one array of shape \(n, k\) or \(n,\); got \(2, 3, 4\)\. .* score='segmentation'",
    ):
        scores.output(tf.zeros((2, 3, 4)), tf.constant([0, 0]))


def test_values_as_targets_of_classes_are_refused() -> None:
    with pytest.raises(
        ValueError,
        match="a model with 3 outputs needs integer class ids as targets; got dtype float32",
    ):
        scores.output(tf.zeros((2, 3)), tf.constant([0.5, 0.5]))


def test_a_score_that_is_not_one_number_an_example_is_refused() -> None:
    def everything(outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        return outputs

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    with pytest.raises(
        ValueError,
        match=(
            r"a score must return one number an example, shape \(n,\); .* returned shape \(4, 3\)"
        ),
    ):
        scores.evaluate(model, tf.zeros((4, 2)), tf.zeros(4, tf.int32), everything)


def test_what_is_predicted_and_values_do_not_depend_on_targets() -> None:
    ignoring: list[str | Score] = [
        "predicted",
        scores.predicted,
        partial(scores.regression, index=1),
    ]
    assert [scores.reads_targets(score) for score in ignoring] == [False, False, False]
    reading: list[str | Score] = [
        "output",
        scores.segmentation,
        lambda outputs, targets: outputs[:, 0] + targets,
    ]
    assert [scores.reads_targets(score) for score in reading] == [True, True, True]


def test_names_and_functions_resolve() -> None:
    assert scores.resolve("output") is scores.output
    assert scores.resolve(scores.output) is scores.output
    with pytest.raises(
        ValueError,
        match=(
            r"unknown score 'logits'; pass score= one of 'output', 'logit', .* 'segmentation', or a"
            r" function"
        ),
    ):
        scores.resolve("logits")
    resolve = inspect.unwrap(scores.resolve)  # as it is where no types are checked at run time
    with pytest.raises(TypeError, match="a function of outputs and targets; got NoneType"):
        resolve(None)


def ending_in(*ending: keras.Layer) -> keras.Model:
    """Returns a model with the given end, whose weights depend on their shapes alone."""
    return seeded(keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "tanh"), *ending]))


def seeded(model: keras.Model) -> keras.Model:
    generator = np.random.default_rng(3)
    model.set_weights([generator.normal(size=weight.shape) for weight in model.get_weights()])
    return model


def nested_ending(activation: keras.Layer) -> keras.Model:
    inputs = keras.Input((4,))
    head = keras.Sequential([keras.layers.Dense(3), keras.Sequential([activation])])
    return seeded(keras.Model(inputs, head(keras.layers.Dense(8, "tanh")(inputs))))


class WithPlainSoftmax(keras.Model):  # type: ignore[misc]  # keras ships no types
    """A model that applies TensorFlow's softmax itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = keras.layers.Dense(8, "tanh"), keras.layers.Dense(3)
        self(np.zeros((1, 4), np.float32))
        seeded(self)

    def call(self, inputs: object) -> object:
        return tf.nn.softmax(self.last(self.first(inputs)))


SOFTMAX_MODELS: dict[str, Callable[[], keras.Model]] = {
    "dense": lambda: ending_in(keras.layers.Dense(3, "softmax")),
    "softmax": lambda: ending_in(keras.layers.Dense(3), keras.layers.Softmax()),
    "activation": lambda: ending_in(keras.layers.Dense(3), keras.layers.Activation("softmax")),
    "log_softmax": lambda: ending_in(keras.layers.Dense(3, "log_softmax")),
    "passed_on": lambda: ending_in(
        keras.layers.Dense(3, "softmax"), keras.layers.Reshape((3,)), keras.layers.Dropout(0.5)
    ),
    "nested": lambda: nested_ending(keras.layers.Softmax()),
    "plain": WithPlainSoftmax,
}
INPUTS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
TARGETS = np.arange(6) % 3


def explained(
    model: keras.Model, score: Any, targets: np.ndarray = TARGETS
) -> tuple[np.ndarray, np.ndarray]:
    """Returns attributions and scores."""
    compute = Compute(model, partial(integrated_gradients, n_steps=8, score=score))
    return (
        compute(INPUTS, targets, np.arange(6)).attributions,
        Predict(model, score=score)(INPUTS, targets).scores,
    )


@pytest.mark.parametrize("build", SOFTMAX_MODELS.values(), ids=SOFTMAX_MODELS)
def test_logits_of_a_softmax_model_are_explained_as_those_of_the_logit_model(
    build: Callable[[], keras.Model],
) -> None:
    logit_model, softmax_model = ending_in(keras.layers.Dense(3)), build()
    before = (
        models.state_of(softmax_model) if not isinstance(softmax_model, WithPlainSoftmax) else None
    )
    for got, want in zip(
        explained(softmax_model, "logit"), explained(logit_model, "output"), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=0, atol=ROUNDING)
    for got, want in zip(
        explained(logit_model, "logit"), explained(logit_model, "output"), strict=True
    ):
        np.testing.assert_array_equal(got, want)
    if before is not None:
        models.assert_same_state(models.state_of(softmax_model), before)


def test_probability_and_odds_are_the_same_whether_the_model_ends_in_logits_or_not() -> None:
    logit_model, softmax_model = (
        ending_in(keras.layers.Dense(3)),
        ending_in(keras.layers.Dense(3, "softmax")),
    )
    p = softmax_model.predict(INPUTS, verbose=0)[np.arange(6), TARGETS]
    for score, want in (("probability", p), ("log_odds", np.log(p / (1 - p)))):
        (one, got), (other, _) = explained(logit_model, score), explained(softmax_model, score)
        np.testing.assert_allclose(got, want, rtol=1e-5)  # 1 - p has lost two digits to p
        np.testing.assert_allclose(one, other, atol=ROUNDING)


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_sigmoids_have_logits_and_odds(n_outputs: int) -> None:
    logit_model, model = (
        ending_in(keras.layers.Dense(n_outputs)),
        ending_in(keras.layers.Dense(n_outputs, "sigmoid")),
    )
    places = TARGETS if n_outputs > 1 else 0 * TARGETS
    z, p = (one.predict(INPUTS, verbose=0)[np.arange(6), places] for one in (logit_model, model))
    for score in ("logit", "log_odds"):
        np.testing.assert_allclose(explained(model, score)[1], z, atol=ROUNDING)
    np.testing.assert_allclose(explained(model, "probability")[1], p, atol=ROUNDING)
    np.testing.assert_allclose(
        explained(logit_model, partial(scores.probability, activation="sigmoid"))[1],
        p,
        atol=ROUNDING,
    )


def test_log_odds_do_not_saturate() -> None:
    outputs = tf.function(
        lambda: scores.log_odds(tf.linalg.matmul([[1.0]], [[60.0, -60.0, 0.0]]), tf.constant([0]))
    )()
    np.testing.assert_allclose(outputs, [60.0], rtol=1e-6)


@pytest.mark.parametrize(
    "ending",
    [
        [keras.layers.Dense(3, "relu")],
        [
            keras.layers.Dense(3),
            keras.layers.Lambda(
                lambda x: tf.exp(x) / tf.reduce_sum(tf.exp(x), axis=1, keepdims=True)
            ),
        ],
        [keras.layers.Dense(3, "softmax"), keras.layers.Rescaling(0.5)],
    ],
    ids=["relu", "softmax_by_hand", "scaled_softmax"],
)
def test_logits_that_cannot_be_found_are_an_error(ending: list[keras.Layer]) -> None:
    with pytest.raises(
        ValueError, match=r"logits cannot be found: it ends in '(Relu|RealDiv|AddV2|Mul)'"
    ):
        Compute(ending_in(*ending), partial(integrated_gradients, score="logit")).check(
            INPUTS, TARGETS
        )


def test_logits_without_a_graph_are_an_error() -> None:
    with pytest.raises(
        ValueError, match="logits are found in the graph of the model, and there is none here"
    ):
        scores.logit(tf.zeros((2, 3)), tf.constant([0, 1]))


def test_predicted_is_the_class_of_the_example_all_along_its_path() -> None:
    model = ending_in(keras.layers.Dense(3))
    likeliest = model.predict(INPUTS, verbose=0).argmax(axis=1)
    at_baseline = model.predict(0 * INPUTS, verbose=0).argmax(axis=1)
    # the class changes along some paths, and none is followed there
    assert np.any(likeliest != at_baseline)
    for got, want in zip(
        explained(model, "predicted", TARGETS + 50),
        explained(model, "output", likeliest),
        strict=True,
    ):
        np.testing.assert_allclose(got, want, atol=ROUNDING)


def doubled(
    model: keras.Model,
    inputs: tf.Tensor,
    targets: tf.Tensor,
    /,
    *,
    ids: tf.Tensor,
    method: Attribution = integrated_gradients,
) -> tf.Tensor:
    """Doubles the attributions of another method."""
    attributed = method(model, inputs, targets, ids=ids)
    assert isinstance(attributed, Attributed)
    return 2 * attributed.attributions


def test_predicted_reaches_the_method_that_is_transformed() -> None:
    model = ending_in(keras.layers.Dense(3))
    method = partial(integrated_gradients, n_steps=8, score="predicted")
    compute = Compute(model, partial(doubled, method=method))
    assert compute.method.recorded_score == "predicted"
    np.testing.assert_allclose(
        compute(INPUTS, TARGETS, np.arange(6)).attributions,
        2 * explained(model, "predicted")[0],
        atol=ROUNDING,
    )


def test_regression_selects_one_of_several_values() -> None:
    model = ending_in(keras.layers.Dense(3))
    targets = np.linspace(0, 1, 6)
    score = partial(scores.regression, index=1)
    want = model.predict(INPUTS, verbose=0)[:, 1]
    np.testing.assert_allclose(explained(model, score, targets)[1], want, atol=ROUNDING)
    np.testing.assert_allclose(
        Predict(model, score=score)(INPUTS, targets).predictions, want, atol=ROUNDING
    )
    for options, message in (
        ({}, "of a model with 3 outputs needs index="),
        ({"index": 3}, "has outputs 0 to 2; got index=3"),
    ):
        with pytest.raises(ValueError, match=message):
            Predict(model, score=partial(scores.regression, **options)).check(INPUTS, targets)


def segmenter() -> keras.Model:
    keras.utils.set_random_seed(5)
    return keras.Sequential(
        [keras.Input((6, 5, 2)), keras.layers.Conv2D(3, 3, padding="same", activation="softmax")]
    )


def test_segmentation_averages_over_where_the_example_has_the_class() -> None:
    model, images = (
        segmenter(),
        np.random.default_rng(1).normal(size=(4, 6, 5, 2)).astype(np.float32),
    )
    targets = np.arange(4) % 3
    outputs = model.predict(images, verbose=0)
    of_target = np.stack([outputs[i, :, :, target] for i, target in enumerate(targets)])
    region = outputs.argmax(axis=-1) == targets[:, None, None]
    computed = Compute(model, partial(integrated_gradients, score="segmentation"))(
        images, targets, np.arange(4)
    )
    predictions, values = Predict(model, score="segmentation")(images, targets)
    assert region.any(axis=(1, 2)).all()
    np.testing.assert_allclose(
        values, (of_target * region).sum(axis=(1, 2)) / region.sum(axis=(1, 2)), atol=ROUNDING
    )
    np.testing.assert_array_equal(predictions, outputs.mean(axis=(1, 2)).argmax(axis=1))
    # The region stays that of the example along the path; one that moved would leave a gap the size
    # of the gain.
    assert np.abs(computed.per_sample["convergence_delta"]).max() < 1e-3
    with pytest.raises(ValueError, match="targets must be class ids 0 to 2"):
        Predict(model, score="segmentation").check(images, targets + 2)


def test_classes_of_places_may_come_first() -> None:
    def segment(data_format: str, shape: tuple[int, ...]) -> keras.Model:
        keras.utils.set_random_seed(5)
        conv = keras.layers.Conv2D(3, 3, padding="same", data_format=data_format)
        return keras.Sequential([keras.Input(shape), conv])

    images = np.random.default_rng(1).normal(size=(4, 6, 5, 2)).astype(np.float32)
    targets, score = np.arange(4) % 3, partial(scores.segmentation, channels="first")
    last, first = segment("channels_last", (6, 5, 2)), segment("channels_first", (2, 6, 5))
    turned = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    wanted = Predict(last, score="segmentation")(images, targets)
    got = Predict(first, score=score)(turned, targets)
    np.testing.assert_array_equal(got.predictions, wanted.predictions)
    np.testing.assert_allclose(got.scores, wanted.scores, atol=ROUNDING)
    slopes = [
        Compute(model, partial(saliency, score=of))(values, targets, np.arange(4)).attributions
        for model, of, values in ((first, score, turned), (last, "segmentation", images))
    ]
    np.testing.assert_allclose(slopes[0].transpose(0, 2, 3, 1), slopes[1], atol=ROUNDING)
    with pytest.raises(ValueError, match="targets must be class ids 0 to 2"):
        Predict(first, score=score).check(turned, targets + 2)
    with pytest.raises(ValueError, match="on the axis 'last' or 'first'; got 'none'"):
        scores.segmentation(tf.zeros((1, 2, 2, 2)), tf.constant([0]), channels="none")


def test_segmentation_takes_a_mask() -> None:
    outputs = tf.reshape(tf.range(24.0), (2, 2, 3, 2))
    mask = np.array([[1, 0, 0], [0, 0, 1]])
    got = scores.segmentation(outputs, tf.constant([0, 1]), mask=mask)
    np.testing.assert_allclose(got, [(0 + 10) / 2, (13 + 23) / 2])
    np.testing.assert_array_equal(
        scores.segmentation(outputs, tf.constant([0, 1]), mask=0 * mask), [0, 0]
    )
    with pytest.raises(ValueError, match=r"must have shape \(2, 3\); got \(3, 2\)"):
        scores.segmentation(outputs, tf.constant([0, 1]), mask=mask.T)


def test_segmentation_of_one_output_averages_over_where_the_example_has_it() -> None:
    outputs = tf.constant([[[[0.9], [0.2]], [[0.6], [0.4]]], [[[0.1], [0.2]], [[0.3], [0.8]]]])
    # background and object, as masks have them: there is one output all the same
    for targets in (
        [0, 0],
        [1, 1],
    ):
        np.testing.assert_allclose(
            scores.segmentation(outputs, tf.constant(targets)), [0.75, 0.8], rtol=ROUNDING
        )
    of_the_other = scores.segmentation(outputs, tf.constant([1, 1]), at=outputs[::-1])
    np.testing.assert_allclose(of_the_other, [0.4, 0.2], rtol=ROUNDING)
    np.testing.assert_allclose(
        scores.segmentation(outputs - 0.5, tf.constant([1, 1]), threshold=0.0),
        [0.25, 0.3],
        rtol=ROUNDING,
    )


@pytest.mark.parametrize(("as_dict", "head"), [(True, "second"), (False, 1)])
def test_one_of_several_outputs_is_explained(as_dict: bool, head: str | int) -> None:
    keras.utils.set_random_seed(3)
    inputs = keras.Input((4,))
    first, second = keras.layers.Dense(2)(inputs), keras.layers.Dense(3, "softmax")(inputs)
    model = keras.Model(inputs, {"first": first, "second": second} if as_dict else [first, second])
    single = keras.Model(inputs, second)
    score = partial(scores.logit, head=head)
    for got, want in zip(explained(model, score), explained(single, "logit"), strict=True):
        np.testing.assert_allclose(got, want, atol=ROUNDING)
    np.testing.assert_array_equal(
        Predict(model, score=score)(INPUTS, TARGETS).predictions,
        Predict(single)(INPUTS, TARGETS).predictions,
    )
    with pytest.raises(ValueError, match="the model returns several arrays; bind head= one of"):
        Predict(model).check(INPUTS, TARGETS)
    with (
        advising_command_line(),
        pytest.raises(ValueError, match=r"several arrays; give --set score\.head= one of"),
    ):
        Predict(model).check(INPUTS, TARGETS)


@pytest.mark.parametrize("wrap", [lambda one: {"only": one}, lambda one: [one]])
def test_a_dict_or_list_of_one_output_is_one_output(wrap: Callable[[Any], Any]) -> None:
    keras.utils.set_random_seed(3)
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(3, "softmax")(inputs)
    model, single = keras.Model(inputs, wrap(outputs)), keras.Model(inputs, outputs)
    for got, want in zip(explained(model, "logit"), explained(single, "logit"), strict=True):
        np.testing.assert_allclose(got, want, atol=ROUNDING)
    np.testing.assert_array_equal(
        Predict(model)(INPUTS, TARGETS).predictions, Predict(single)(INPUTS, TARGETS).predictions
    )
    with pytest.raises(ValueError, match="the model has 3 outputs"):
        Predict(model).check(INPUTS, TARGETS + 9)


def test_a_head_of_a_model_with_one_output_is_refused() -> None:
    with pytest.raises(
        ValueError, match="the model returns one array, so there is no head 'other'"
    ):
        scores.output(tf.zeros((2, 3)), tf.constant([0, 1]), head="other")


def test_target_probability_of_one_output_is_that_of_either_class() -> None:
    logit = tf.constant([[3.0], [3.0], [-40.0], [-40.0]])
    targets = tf.constant([1, 0, 1, 0])

    def score(z: tf.Tensor) -> tf.Tensor:
        return scores.target_probability(tf.sigmoid(z), targets)

    p = 1 / (1 + np.exp([-3.0, 3.0, 40.0, -40.0]))
    got = tf.function(score, autograph=False)(logit).numpy()
    # relative, for e^-40 is no difference of ones
    np.testing.assert_allclose(got, p, rtol=10 * ROUNDING)
    several = tf.function(lambda z: scores.target_probability(tf.nn.softmax(z), targets[:1]))
    np.testing.assert_allclose(several(tf.constant([[0.0, 3.0]])), p[:1], rtol=10 * ROUNDING)


def test_target_probability_needs_class_ids() -> None:
    def score(z: tf.Tensor, of: tf.Tensor) -> tf.Tensor:
        return scores.target_probability(tf.sigmoid(z), of)

    with pytest.raises(ValueError, match=r"'target_probability'.*integer class ids"):
        tf.function(score, autograph=False)(tf.ones([2, 1]), tf.constant([0.5, 1.0]))
