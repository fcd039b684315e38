"""In another precision the layers compute, the weights stay, and nothing of it remains."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.primitives import layers
from hvd_xai.tracing.precision import check_precision, computing_in
from tests import models_under_test as models


def dtypes_of(model: keras.Model) -> dict[str, str]:
    """Returns what each layer returns when the model is run."""
    with layers.tap(model) as calls:
        model(models.examples(2)[0], training=False)
    return {call.layer.name: call.output.dtype.name for call in calls if call.output is not None}


def test_layers_compute_in_it_and_are_put_back() -> None:
    model = models.functional_in_subclassed()
    before = models.state_of(model)
    policies = [layer.dtype_policy for layer in model._flatten_layers()]
    with computing_in(model, "bfloat16"):
        assert set(dtypes_of(model).values()) == {"bfloat16"}
    assert set(dtypes_of(model).values()) == {"float32"}
    assert all(
        layer.dtype_policy is policy
        for layer, policy in zip(model._flatten_layers(), policies, strict=True)
    )
    models.assert_same_state(models.state_of(model), before)


def test_policies_are_put_back_after_an_error() -> None:
    model = models.functional()

    def run_and_fail() -> None:
        with computing_in(model, "bfloat16"):
            model(np.zeros((1, 3, 3, 1, 1)))

    with pytest.raises(ValueError, match="expected shape"):
        run_and_fail()
    assert {layer.compute_dtype for layer in model._flatten_layers()} == {"float32"}


def test_layers_of_another_precision_keep_it() -> None:
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(2, dtype="float64", name="exact"),
            keras.layers.Dense(1, name="last"),
        ]
    )
    with computing_in(model, "bfloat16"):
        assert [layer.compute_dtype for layer in model.layers] == ["float64", "bfloat16"]


def test_what_was_traced_in_it_sees_new_weights() -> None:
    model = models.functional()
    inputs = tf.constant(models.examples(2)[0])
    traced = tf.function(
        lambda: tf.cast(model(inputs, training=False), tf.float32), autograph=False
    )
    with computing_in(model, "bfloat16"):
        first = traced()
    model.set_weights([2 * weight for weight in model.get_weights()])
    want = model(inputs, training=False)
    # probabilities, to the 8 bits of bfloat16 a layer
    np.testing.assert_allclose(traced(), want, atol=0.02)
    assert np.abs(first - want).max() > 0.02


def test_other_names_are_refused() -> None:
    with pytest.raises(
        ValueError, match="precision must be 'bfloat16', or None for the model's own; got 'float8'"
    ):
        check_precision("float8")
