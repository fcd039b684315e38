"""Guided integrated gradients."""

import keras
import tensorflow as tf
from jaxtyping import Int64, Shaped

from hvd_xai import baselines
from hvd_xai.primitives import gradients
from hvd_xai.protocols import Attributed, Baseline, Score


def guided_integrated_gradients(
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    /,
    *,
    ids: Int64[tf.Tensor, "n"],
    n_steps: int = 50,
    fraction: float = 0.25,
    max_distance: float = 0.02,
    baseline: str | Baseline = "zero",
    score: str | Score = "output",
) -> Attributed:
    """Integrates gradients along a path that first moves the features of the smallest gradients.

    The straight path of integrated gradients crosses regions where gradients are large for reasons
    that are not the example's; this path goes around them and leaves less noise. The attributions
    of an example sum to the score's gain along the path, `F(x) - F(x')`; `convergence_delta` says
    how far they miss it. The points of a path follow one another, so the method keeps the hardware
    busy only with many examples.

        a_i = ∫_0^1 ∂F(γ(t)) / ∂γ_i * dγ_i/dt dt
        dγ_i/dt ≠ 0 only where |∂F(γ(t)) / ∂γ_i| is among the smallest

    Args:
        model: any built Keras model of one input.
        inputs: examples `[n, ...]`; computed in float32.
        targets: what the score selects for each example, such as a class id, `[n]`.
        ids: sample ids, `[n]`, which seed random baselines.
        n_steps: number of steps of the path, at least 1; each covers the same share of the L1
            distance from baseline to input.
        fraction: share of the features that move together, those of the smallest gradients; above
            0, up to 1.
        max_distance: distance that a feature may run ahead of the straight path or lag behind it,
            as a share of its way, 0 to 1. 0 is integrated gradients; 0.02 is the authors' choice; 1
            leaves the path free, which takes some 200 steps for a gap of 1 %.
        baseline: start of the paths: name of a baseline in `hvd_xai.baselines`, or function of the
            inputs.
        score: scalar to explain: name of a score in `hvd_xai.scores`, or function of outputs and
            targets.

    Returns:
        Attributions of the shape of the inputs, signed, float32, in the units of the score; in
        `per_sample` `convergence_delta` `[n]`, the sum of an example's attributions minus `F(x) -
        F(x')`.

    Raises:
        ValueError: if an option is out of range, the baseline has another shape, or the score has
            no gradient at the inputs.

    Example:
        >>> method = partial(guided_integrated_gradients, n_steps=100)
        >>> computed = Compute(model, method)(inputs, targets, ids)
        >>> computed.attributions.shape
        (4, 8, 8, 1)
        >>> bool(np.abs(computed.per_sample["convergence_delta"]).max() < 0.01)
        True

    Reference:
        A. Kapishnikov, S. Venugopalan, B. Avci, B. Wedin, M. Terry, T. Bolukbasi: Guided Integrated
        Gradients: an Adaptive Path Method for Removing Noise. CVPR 2021.
        https://arxiv.org/abs/2106.09788, with the bounds of the authors' code. Where that takes the
        gradient at the start of each step, here it is the mean of both ends, which has the smaller
        error; and the first gradient is taken half a step from the baseline, as a network of
        rectifiers without biases has none at zero.
    """
    if n_steps < 1 or not 0 < fraction <= 1 or not 0 <= max_distance <= 1:
        raise ValueError(
            "`guided_integrated_gradients` needs n_steps >= 1, 0 < fraction <= 1 and 0 <="
            f" max_distance <= 1; got {n_steps}, {fraction} and {max_distance}"
        )
    x = tf.cast(inputs, tf.float32)
    start = baselines.held(model, x, baselines.reference(baseline, model, x, ids))
    n_features = x.shape[1:].num_elements()
    difference = x - start
    # The L1 distance is shared among the features: steps of equal length cover equal shares of it.
    way = tf.reshape(tf.abs(difference), [-1, n_features])
    share_of_way = tf.math.divide_no_nan(way, tf.reduce_sum(way, axis=1, keepdims=True))

    # Along the path each feature is where it stands between baseline (0) and input (1).
    def gradient_at(position: tf.Tensor) -> tf.Tensor:
        point = start + tf.reshape(position, tf.shape(x)) * difference
        return tf.reshape(gradients.differentiate(model, point, targets, score), [-1, n_features])

    def step(
        index: tf.Tensor, position: tf.Tensor, gradient: tf.Tensor, total: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        alpha = tf.cast(index + 1, tf.float32) / n_steps
        low, high = tf.maximum(alpha - max_distance, 0.0), tf.minimum(alpha + max_distance, 1.0)
        # at last all have arrived, whatever rounding says
        low = tf.where(index + 1 < n_steps, low, 1.0)
        moved = _move(
            tf.maximum(position, low), high, alpha, share_of_way, tf.abs(gradient), fraction
        )
        after = gradient_at(moved)
        return index + 1, moved, after, total + (gradient + after) / 2 * (moved - position)

    at_start = tf.zeros_like(way)
    first = gradient_at(at_start + 0.5 / n_steps)
    _, _, _, total = tf.while_loop(
        lambda index, *_: index < n_steps,
        step,
        (tf.constant(0), at_start, first, at_start),
        parallel_iterations=1,
    )
    attributions = difference * tf.reshape(total, tf.shape(x))
    delta = gradients.convergence_delta(model, attributions, x, start, targets, score)
    return Attributed(
        attributions, {"convergence_delta": delta}, attributed_to="inputs", signed=True
    )


def _move(
    position: tf.Tensor,
    high: tf.Tensor,
    alpha: tf.Tensor,
    share_of_way: tf.Tensor,
    magnitude: tf.Tensor,
    fraction: float,
) -> tf.Tensor:
    """Moves features towards `high`, smallest gradients first, until `alpha` of the way is covered.

    Args:
        position: place of each feature between baseline (0) and input (1), at most `high`, `[n,
            d]`.
        high: place beyond which no feature may go.
        alpha: share of the whole way that is covered afterwards.
        share_of_way: share that each feature has of the whole way, `[n, d]`.
        magnitude: magnitudes of the gradients, `[n, d]`.
        fraction: share of the features that move together.

    Returns:
        The new positions `[n, d]`.
    """
    n_features = position.shape[1]
    last_of_group = int(fraction * (n_features - 1))

    def move_a_group(position: tf.Tensor, missing: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        is_free = (position < high) & (share_of_way > 0)
        rank_by = tf.where(is_free, magnitude, float("inf"))
        group = is_free & (rank_by <= tf.sort(rank_by, axis=1)[:, last_of_group, None])
        room = tf.reduce_sum(
            tf.where(group, share_of_way * (high - position), 0.0), axis=1, keepdims=True
        )
        # Where rounding has used up the room, nothing is left to move, and this is the end too.
        is_last = (missing <= room) | (room == 0)
        nearer = position + tf.math.divide_no_nan(missing, room) * (high - position)
        moved = tf.where(group & (missing > 0), tf.where(is_last, nearer, high), position)
        return moved, tf.where(is_last, 0.0, missing - room)

    missing = alpha - tf.reduce_sum(share_of_way * position, axis=1, keepdims=True)
    moved, _ = tf.while_loop(
        lambda _, missing: tf.reduce_any(missing > 0),
        move_a_group,
        (position, missing),
        parallel_iterations=1,
    )
    return moved
