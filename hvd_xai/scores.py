"""What is explained: functions that select one number an example from a model's outputs.

A score is `(outputs, targets) -> [n]`, pure TensorFlow. `evaluate` runs the model for it, the same way for all who need a score.
"""

import keras
import tensorflow as tf
from jaxtyping import Float32, Shaped

from hvd_xai.types import Score


def output(outputs: tf.Tensor, targets: Shaped[tf.Tensor, "n"]) -> Float32[tf.Tensor, "n"]:
    """Selects the model's output for the target: `outputs[i, targets[i]]`, or the value itself where there is but one output.

    Args:
        outputs: what the model returns, `[n, k]`, `[n, 1]` or `[n]`.
        targets: class ids in 0 to k - 1; not looked at where there is one output.

    Returns:
        One value an example, in the units of the model's output: a probability after a softmax, a logit without it.

    Raises:
        ValueError: if the outputs have another shape, or the targets of several outputs are not integers.
    """
    if not isinstance(outputs, tf.Tensor) or outputs.shape.rank not in {1, 2}:
        what = tuple(outputs.shape) if isinstance(outputs, tf.Tensor) else type(outputs).__name__
        raise ValueError(f"score 'output' needs a model that returns one array of shape (n, k) or (n,); got {what}. Pass a function.")
    values = tf.cast(outputs, tf.float32)
    if values.shape.rank == 1:
        return values
    if values.shape[-1] == 1:
        return values[:, 0]
    if not targets.dtype.is_integer:
        raise ValueError(
            f"score 'output' of a model with {values.shape[-1]} outputs needs integer class ids as targets; got dtype {targets.dtype.name}"
        )
    return tf.gather(values, targets, batch_dims=1)


_SCORES: dict[str, Score] = {"output": output}


def resolve(score: str | Score) -> Score:
    """Returns the score of that name; a function is returned as it is.

    Raises:
        ValueError: if there is none of that name.
    """
    if not isinstance(score, str):
        return score
    if score not in _SCORES:
        names = ", ".join(map(repr, _SCORES))
        raise ValueError(f"unknown score {score!r}; pass score= one of {names}, or a function of outputs and targets")
    return _SCORES[score]


def evaluate(
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    score: str | Score,
) -> Float32[tf.Tensor, "n"]:
    """Runs the model in inference mode and returns the score of each example.

    The score leaves in float32 whatever the model computes in, so that sums over examples do not lose it.

    Raises:
        ValueError: if the score is not one number an example.
    """
    values = resolve(score)(model(inputs, training=False), targets)
    if values.shape.rank != 1:
        raise ValueError(f"a score must return one number an example, shape (n,); {score!r} returned shape {tuple(values.shape)}")
    return tf.cast(values, tf.float32)
