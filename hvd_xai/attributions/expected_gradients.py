"""Expected gradients."""

import functools
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float64, Int64, Shaped

from hvd_xai import baselines, scores
from hvd_xai.primitives import coalitions, gradients, quadrature
from hvd_xai.protocols import Attributed, Baseline, Score
from hvd_xai.tracing import micro_batches


def expected_gradients(
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    /,
    *,
    ids: Int64[tf.Tensor, "n"],
    background: str | Baseline | np.ndarray = "zero",
    n_steps: int = 20,
    rule: str = "midpoint",
    score: str | Score = "output",
    micro_batch: int = 256,
) -> Attributed:
    """Averages integrated gradients over many starts: the examples of a background.

    No single baseline has to be chosen, and features that an example has in common with the
    background get little. The attributions of an example sum to `F(x) - mean_b F(b)`;
    `convergence_delta` says how far they miss it. They approximate Shapley values, for any
    differentiable model.

        EG_i(x) = E_b [ (x_i - b_i) * ∫_0^1 ∂F(b + α (x - b)) / ∂x_i dα ]

    Args:
        model: any built Keras model of one input.
        inputs: examples `[n, ...]`; computed in float32.
        targets: what the score selects for each example, such as a class id, `[n]`.
        ids: sample ids, `[n]`, which seed random backgrounds.
        background: examples `[b, ...]` that all inputs share, best some tens drawn from the
            training data; or name of a baseline in `hvd_xai.baselines`, or function of the inputs
            that returns one start `[n, ...]` or several `[b, n, ...]` for each input. With the
            default, zeros, the method is integrated gradients.
        n_steps: number of points of each path, at least 1: fewer than integrated gradients needs,
            because the errors of many paths average out.
        rule: quadrature rule, `midpoint` or `gauss_legendre`.
        score: scalar to explain: name of a score in `hvd_xai.scores`, or function of outputs and
            targets.
        micro_batch: largest number of (example x background x point) micro-batch rows that go
            through the model at once; it bounds the memory and leaves the attributions as they are.

    Returns:
        Attributions of the shape of the inputs, signed, float32, in the units of the score; in
        `per_sample` `expected_value` `[n]`, the mean score of the background, and
        `convergence_delta` `[n]`, the sum of an example's attributions minus `F(x) - mean_b F(b)`.

    Raises:
        ValueError: if an option is out of range, the background does not fit the inputs, or the
            score has no gradient at the inputs.

    Example:
        >>> method = partial(expected_gradients, background=inputs)
        >>> computed = Compute(model, method)(inputs, targets, ids)
        >>> computed.attributions.shape
        (4, 8, 8, 1)
        >>> sorted(computed.per_sample)
        ['convergence_delta', 'expected_value']
        >>> bool(np.abs(computed.per_sample["convergence_delta"]).max() < 0.01)
        True

    Reference:
        G. Erion, J. D. Janizek, P. Sturmfels, S. M. Lundberg, S.-I. Lee: Improving performance of
        deep learning models with axiomatic attribution priors and expected gradients. Nature
        Machine Intelligence 2021. https://arxiv.org/abs/1906.10670. It draws pairs of b and α at
        random, and so sums to the gain in expectation only; here each b gets every α of the rule.
    """
    if n_steps < 1:
        raise ValueError(f"`expected_gradients` needs n_steps >= 1; got {n_steps}")
    start, n_background = _background(model, background, inputs.shape[1:])
    nodes, weights = quadrature.resolve(rule)(n_steps)
    # A row is a pair of a background example and a node: row r stands for background r // n_steps,
    # node r % n_steps.
    pairs = _cut(np.tile(weights / n_background, n_background), micro_batch)
    each = _cut(np.full(n_background, 1.0 / n_background), micro_batch)

    def attribute(x: tf.Tensor, target: tf.Tensor, sample_id: tf.Tensor) -> Attributed:
        x_start = start(x, sample_id)

        def weighted_gradient(row: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
            index = tf.cast(row, tf.int32)
            alpha = tf.gather(tf.constant(nodes, tf.float32), index % n_steps)
            of_row = tf.gather(x_start, index // n_steps, axis=1)
            difference = x[:, None] - of_row
            points = of_row + tf.reshape(alpha, [1, -1, *[1] * (x.shape.rank - 1)]) * difference
            return gradients.integrate(model, points, difference, weight, target, score)

        def weighted_score(row: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
            of_row = tf.gather(x_start, tf.cast(row, tf.int32), axis=1)
            points = tf.broadcast_to(of_row, [x.shape[0], *of_row.shape[1:]])
            values = coalitions.evaluate(model, points, target, score)
            return tf.reduce_sum(weight * values, axis=1)

        attributions = micro_batches.sum_over_chunks(weighted_gradient, pairs, tuple(x.shape))
        expected = micro_batches.sum_over_chunks(weighted_score, each, (x.shape[0],))
        # Completeness: Σ_i EG_i = F(x) - mean_b F(b)
        gain = scores.evaluate(model, x, target, score) - expected
        summed = tf.reduce_sum(attributions, axis=list(range(1, x.shape.rank)))
        return Attributed(
            attributions,
            {"expected_value": expected, "convergence_delta": summed - gain},
            attributed_to="inputs",
            signed=True,
        )

    attributed: Attributed = micro_batches.map_blocks(
        attribute, (tf.cast(inputs, tf.float32), targets, ids), pairs.n_examples
    )
    return attributed


def _cut(weights: Float64[np.ndarray, "r"], micro_batch: int) -> micro_batches.Blocks:
    """Cuts rows of these weights to fit micro-batches; their nodes are the numbers of the rows."""
    return micro_batches.cut(np.arange(len(weights), dtype=np.float64), weights, micro_batch)


def _background(
    model: keras.Model, background: str | Baseline | np.ndarray, shape: tf.TensorShape
) -> tuple[Callable[[tf.Tensor, tf.Tensor], tf.Tensor], int]:
    """Returns a function that gives inputs their background, and the background's size b.

    The function takes inputs `[n, ...]` and sample ids, and returns `[n, b, ...]`, or `[1, b, ...]`
    where all inputs share one background.
    """
    baseline = (
        functools.partial(baselines.samples, data=background)
        if isinstance(background, np.ndarray)
        else background
    )

    def start(x: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
        several = baselines.held(model, x, baselines.references(baseline, model, x, ids))
        return tf.transpose(several, [1, 0, *range(2, several.shape.rank)])

    of_one = (tf.TensorSpec([1, *shape], tf.float32), tf.TensorSpec([1], tf.int64))
    traced = tf.function(start, autograph=False).get_concrete_function(*of_one)
    return start, int(traced.structured_outputs.shape[1])
