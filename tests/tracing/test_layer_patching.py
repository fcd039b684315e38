import keras
import pytest
import tensorflow as tf

from hvd_xai.tracing.layer_patching import replaced, unwrapped
from tests import models_under_test as models


def test_nothing_stays_replaced_after_an_error_of_the_replacement_itself() -> None:
    model = models.functional()

    def make(layer: keras.Layer, call: object) -> object:
        if layer.name == "pool":
            raise RuntimeError("no replacement")
        return call

    def replace() -> None:
        with replaced(model.layers[1:], "call", make):
            raise AssertionError("this must not be reached")

    with pytest.raises(RuntimeError, match="no replacement"):
        replace()
    assert not [layer.name for layer in model.layers if "call" in vars(layer)]


def test_a_model_without_tf_functions_is_left_alone_and_a_wrapped_call_comes_back() -> None:
    model = models.functional()
    with unwrapped(model):
        assert not [layer.name for layer in model.layers if "call" in vars(layer)]
    dense = model.layers[-1]
    dense.call = wrapped = tf.function(dense.call)
    with unwrapped(model):
        assert dense.call is not wrapped
        assert not isinstance(dense.call, tf.types.experimental.PolymorphicFunction)
    assert dense.call is wrapped
