"""Attributions of parts of the inputs say what they are attributed to."""

import tensorflow as tf

from hvd_xai.primitives.axes import inputs_or_places


def test_values_are_inputs_and_coarser_parts_are_places() -> None:
    table, images = tf.zeros([2, 5]), tf.zeros([2, 4, 4, 3])
    assert inputs_or_places(tf.zeros([2, 5]), table) == "inputs"
    assert inputs_or_places(tf.zeros([2, 3]), table) == "places"
    assert inputs_or_places(tf.zeros([2, 4, 4]), images) == "places"
