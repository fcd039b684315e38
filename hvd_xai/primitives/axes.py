"""Tells what the axes of attributions stand for."""

from typing import Literal

import tensorflow as tf
from jaxtyping import Shaped


def inputs_or_places(
    attributions: Shaped[tf.Tensor, "n ..."], inputs: Shaped[tf.Tensor, "n ..."]
) -> Literal["inputs", "places"]:
    """Returns what attributions of parts of the inputs are attributed to: "inputs" if each value of
    an input has its own, else "places".
    """
    return "inputs" if attributions.shape[1:] == inputs.shape[1:] else "places"
