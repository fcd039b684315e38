"""Methods are resolved once into records, and what cannot be resolved is refused by name."""

from functools import partial

import keras
import pytest
import tensorflow as tf

from hvd_xai import scores
from hvd_xai.attributions.grad_cam import grad_cam
from hvd_xai.attributions.integrated_gradients import integrated_gradients
from hvd_xai.attributions.smoothgrad import smoothgrad
from hvd_xai.errors import RecipeError
from hvd_xai.lookup.resolve import bind_score, resolve, resolve_one
from hvd_xai.protocols import Methods

OF_PREDICTED = partial(integrated_gradients, score="predicted")


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ([], "no method was given"),
        ({}, "no method was given"),
        (
            ["saliency", "saliency"],
            r"'saliency' is given 2 times. Pass a mapping .* methods=\{'one': partial\(saliency, ",
        ),
        (
            {".hidden": "saliency"},
            r"letters, digits, '_' and '-', and begin with a letter or '_', .* got '\.hidden'",
        ),
        ({"a/b": "saliency"}, "for it names a folder; got 'a/b'"),
        ({"saliency": "salience"}, "there is no method 'salience'"),
    ],
)
def test_methods_that_cannot_be_told_apart_or_named_are_refused(
    methods: Methods, message: str
) -> None:
    with pytest.raises((ValueError, RecipeError), match=message):
        resolve(methods)


def test_a_record_holds_names_options_and_score() -> None:
    named, plain = resolve({"steep": partial(smoothgrad, n_samples=2), "saliency": "saliency"})
    assert (named.name, named.function, named.score) == ("steep", "smoothgrad", "output")
    assert named.options["n_samples"] == 2
    assert named.options["method"] == "saliency"
    assert (plain.name, plain.function) == ("saliency", "saliency")
    assert plain.sources == {}
    assert [method.name for method in resolve("saliency")] == ["saliency"]


def test_a_micro_batch_is_bound_where_the_method_forms_its_own() -> None:
    forms, does_not = resolve([integrated_gradients, grad_cam])
    assert forms.with_micro_batch(32).options["micro_batch"] == 32
    assert list(forms.with_micro_batch(32).options) == list(forms.options)
    assert does_not.with_micro_batch(32) is does_not
    bound = resolve_one(partial(integrated_gradients, micro_batch=8))
    assert bound.with_micro_batch(32) is bound


def test_another_score_is_bound_within_a_transform() -> None:
    def transform(*, ids: object, method: str = "saliency") -> None:
        del ids, method

    assert resolve_one(transform).score == "output"  # type: ignore[arg-type]  # is not called
    method = bind_score(partial(transform, method="grad_cam"), scores.logit)
    assert method.keywords["method"].keywords == {"score": scores.logit}  # type: ignore[attr-defined]  # a partial


def test_a_score_that_does_not_exist_is_refused_with_the_methods_name() -> None:
    with pytest.raises(ValueError, match="method 'steep': unknown score 'logits'"):
        resolve({"steep": partial(integrated_gradients, score="logits")})


def test_options_that_a_function_does_not_take_are_refused() -> None:
    with pytest.raises(TypeError, match="bound options do not fit"):
        resolve([partial(grad_cam, n_step=3)])  # type: ignore[call-arg]  # the mistake


def own(
    model: keras.Model, inputs: tf.Tensor, targets: tf.Tensor, /, *, ids: tf.Tensor
) -> tf.Tensor:
    """Reads targets as it likes, and has no option `score`."""
    return inputs * tf.cast(targets, tf.float32)[:, None]


def _read_targets(methods: Methods) -> bool:
    return any(method.reads_targets for method in resolve(methods))


def test_targets_are_needed_where_any_method_reads_them() -> None:
    of_values = partial(grad_cam, score=scores.regression)
    without: list[Methods] = [
        [OF_PREDICTED],
        [OF_PREDICTED, of_values],
        [partial(smoothgrad, score="predicted")],
    ]
    assert [_read_targets(methods) for methods in without] == [False, False, False]
    reading: list[Methods] = [
        ["saliency"],
        [OF_PREDICTED, "grad_cam"],
        [own],
        {"a": OF_PREDICTED, "b": own},
    ]
    assert [_read_targets(methods) for methods in reading] == [True, True, True, True]
