"""Tells what the axes of attributions stand for."""

from typing import Literal

import tensorflow as tf
from jaxtyping import Shaped


def inputs_or_places(
    attributions: Shaped[tf.Tensor, "n ..."], inputs: Shaped[tf.Tensor, "n ..."]
) -> Literal["inputs", "places"]:
    """Returns "inputs" if the attributions have the inputs' own shape, else "places".

    For methods that attribute to parts of the inputs, where a part may be a single value.
    """
    return "inputs" if attributions.shape[1:] == inputs.shape[1:] else "places"
