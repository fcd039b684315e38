"""Integrated gradients."""

from collections.abc import Callable

import keras
import tensorflow as tf
from jaxtyping import Int64, Shaped

from hvd_xai import baselines, quadrature, rows, scores
from hvd_xai.types import Attributed, Baseline, Score


def integrated_gradients(
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    /,
    *,
    ids: Int64[tf.Tensor, "n"],
    n_steps: int = 50,
    rule: str = "midpoint",
    baseline: str | Baseline = "zero",
    score: str | Score = "output",
    micro_batch: int = 256,
) -> Attributed:
    """Averages gradients along the straight path from a baseline to the input, and multiplies them by input minus baseline.

    The attributions of an example sum to what the score gains on the way, `F(x) - F(x')`; how far they miss it is returned beside them.
    Right for any differentiable model; features that the model does not use get exactly 0.

        IG_i(x) = (x_i - x'_i) * ∫_0^1 ∂F(x' + α (x - x')) / ∂x_i dα

    Args:
        model: any built Keras model of one input.
        inputs: `[n, ...]`, computed in float32.
        targets: `[n]`, what the score selects.
        ids: sample ids, which seed baselines that are random.
        n_steps: points of the path, at least 1. 50 leaves a gap of about 0.1 % on small convolutional networks.
        rule: quadrature rule, `midpoint` or `gauss_legendre`; both leave out the ends of the path.
        baseline: where paths start: a name of `hvd_xai.baselines`, or a function of the inputs. Of several references, attributions and
            scores are averaged, which takes as many times as long.
        score: what is explained: a name of `hvd_xai.scores`, or a function of outputs and targets.
        micro_batch: the most (example x point) rows that go through the model at once; bounds the memory, not the numbers.

    Returns:
        Attributions of the shape of the inputs, signed, float32, in the units of the score; beside them `convergence_delta` `[n]`, the sum
        of an example's attributions minus `F(x) - F(x')`.

    Raises:
        ValueError: if an option is out of range, the baseline has another shape, or the score has no gradient at the inputs.

    Reference:
        M. Sundararajan, A. Taly, Q. Yan: Axiomatic Attribution for Deep Networks. ICML 2017. https://arxiv.org/abs/1703.01365, equation 1.
        Its equation 3 sums at the right ends of equal steps; the rules here have the smaller error.
    """
    if n_steps < 1:
        raise ValueError(f"`integrated_gradients` needs n_steps >= 1; got {n_steps}")
    blocks = rows.cut(*quadrature.resolve(rule)(n_steps), micro_batch)
    start = baselines.resolve(baseline)
    n_examples, n_nodes = blocks.n_examples, blocks.nodes.shape[1]

    def attribute_path(x: tf.Tensor, x_start: tf.Tensor, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        difference = x - x_start
        target_of_row = tf.repeat(target, n_nodes)

        def weighted_gradient(alpha: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
            of_node = [1, n_nodes, *[1] * (x.shape.rank - 1)]
            path = x_start[:, None] + tf.reshape(alpha, of_node) * difference[:, None]
            points = tf.reshape(path, [n_examples * n_nodes, *x.shape[1:]])
            gradient = _gradient(model, points, target_of_row, score)
            return tf.reduce_sum(tf.reshape(weight, of_node) * tf.reshape(gradient, path.shape), axis=1)

        attributions = difference * rows.sum_over_chunks(weighted_gradient, blocks, tuple(x.shape))
        at_end, at_start = tf.split(scores.evaluate(model, tf.concat([x, x_start], 0), tf.tile(target, [2]), score), 2)
        summed = tf.reduce_sum(attributions, axis=list(range(1, x.shape.rank)))
        return attributions, summed - (at_end - at_start)

    def attribute(x: tf.Tensor, target: tf.Tensor, sample_id: tf.Tensor) -> Attributed:
        paths = baselines.references(start, x, sample_id)
        total, gap = _sum(lambda of_all: attribute_path(x, tf.broadcast_to(of_all, x.shape), target), paths)
        return Attributed(total / paths.shape[0], {"convergence_delta": gap / paths.shape[0]})

    attributed: Attributed = rows.map_rows(attribute, (tf.cast(inputs, tf.float32), targets, ids), n_examples)
    return attributed


def _gradient(model: keras.Model, points: tf.Tensor, targets: tf.Tensor, score: str | Score) -> tf.Tensor:
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(points)
        total = tf.reduce_sum(scores.evaluate(model, points, targets, score))
    gradient = tape.gradient(total, points)
    if gradient is None:
        raise ValueError(
            "`integrated_gradients` needs a score that depends smoothly on the inputs; this one has no gradient there. A model of"
            " integer inputs (tokens, a cast) has none: explain the part after its embedding."
        )
    return gradient


def _sum(function: Callable[[tf.Tensor], tuple[tf.Tensor, ...]], of: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Returns the sums of what a function returns for each entry of a tensor's first axis; traces it once however many there are."""
    if of.shape[0] == 1:
        return function(of[0])
    one = tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec(of.shape[1:], of.dtype))

    def body(index: tf.Tensor, totals: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        return index + 1, tuple(total + new for total, new in zip(totals, one(of[index]), strict=True))

    _, totals = tf.while_loop(lambda index, _: index < of.shape[0], body, (tf.constant(1), tuple(one(of[0]))), parallel_iterations=1)
    return tuple(totals)
