"""Differentiates a score by the inputs, and integrates such gradients along paths."""

import keras
import tensorflow as tf
from jaxtyping import Float32, Shaped

from hvd_xai import scores
from hvd_xai.protocols import Score


def differentiate(
    model: keras.Model,
    inputs: Float32[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    score: str | Score,
) -> Float32[tf.Tensor, "n ..."]:
    """Returns the gradient of each example's score with respect to its input.

    Gradients of the weights are not computed.

    Raises:
        ValueError: if the score has no gradient there.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(inputs)
        # No example depends on another, so the gradient of the sum holds each example's own.
        total = tf.reduce_sum(scores.evaluate(model, inputs, targets, score))
    gradient = tape.gradient(total, inputs)
    if gradient is None:
        raise ValueError(
            "gradients need a score that depends smoothly on the inputs; this one has no gradient"
            " there. Tokens have none: take `layer_integrated_gradients` at their embedding. Images"
            " of integers have one if the model begins with a Rescaling, a Normalization or"
            " keras.ops.cast, or if its Input is of float32."
        )
    return gradient


def integrate(
    model: keras.Model,
    points: Float32[tf.Tensor, "n s ..."],
    velocity: Float32[tf.Tensor, "n s ..."],
    weight: Float32[tf.Tensor, "s"],
    targets: Shaped[tf.Tensor, "n"],
    score: str | Score,
) -> Float32[tf.Tensor, "n ..."]:
    """Returns what some points of each example's path add to the integral along it.

        Σ_s weight_s * velocity_s * ∂F(points_s)

    Args:
        model: any built Keras model of one input.
        points: points of the paths, which all go through the model at once.
        velocity: change of the points per unit of the weights.
        weight: weights of a quadrature rule.
        targets: what the score selects, the same all along a path.
        score: scalar to integrate.

    Raises:
        ValueError: if the score has no gradient at the points.
    """
    n_examples, n_points, *shape = points.shape
    #     row    0 ... s-1        s ... 2s-1       of the flat points
    #            example 0        example 1        and so on, as tf.repeat has the targets
    flat = tf.reshape(points, [n_examples * n_points, *shape])
    gradient = tf.reshape(
        differentiate(model, flat, tf.repeat(targets, n_points), score), points.shape
    )
    return tf.reduce_sum(
        tf.reshape(weight, [1, n_points, *[1] * len(shape)]) * velocity * gradient, axis=1
    )


def convergence_delta(
    model: keras.Model,
    attributions: Float32[tf.Tensor, "n ..."],
    inputs: Float32[tf.Tensor, "n ..."],
    start: Float32[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    score: str | Score,
) -> Float32[tf.Tensor, "n"]:
    """Returns by how much each example's attributions miss what the score gains.

    The gain is the score at the input minus the score at `start`.
    """
    at_end, at_start = tf.split(
        scores.evaluate(model, tf.concat([inputs, start], 0), tf.tile(targets, [2]), score), 2
    )
    return tf.reduce_sum(attributions, axis=list(range(1, attributions.shape.rank))) - (
        at_end - at_start
    )
