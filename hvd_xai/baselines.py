"""Where a path to the inputs starts: functions `inputs -> reference inputs` of the same shape."""

import tensorflow as tf
from jaxtyping import Float32

from hvd_xai.types import Baseline


def zero(inputs: Float32[tf.Tensor, "n ..."]) -> Float32[tf.Tensor, "n ..."]:
    """Returns zeros: a black image, or the mean where inputs are standardised."""
    return tf.zeros_like(inputs)


_BASELINES: dict[str, Baseline] = {"zero": zero}


def resolve(baseline: str | Baseline) -> Baseline:
    """Returns the baseline of that name; a function is returned as it is.

    Raises:
        ValueError: if there is none of that name.
    """
    if not isinstance(baseline, str):
        return baseline
    if baseline not in _BASELINES:
        names = ", ".join(map(repr, _BASELINES))
        raise ValueError(f"unknown baseline {baseline!r}; pass baseline= one of {names}, or a function of the inputs")
    return _BASELINES[baseline]
