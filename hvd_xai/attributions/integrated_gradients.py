"""Integrated gradients."""

import functools
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Int64, Shaped

from hvd_xai import baselines, gradients, quadrature, rows, scores
from hvd_xai.types import Attributed, Baseline, Score

_N_LEVELS = 5  # of refinement: 3, 9, 27, 81 and 243 nodes
_FLOOR = 1e-5  # of the scores at both ends: a gap that float32 cannot be expected to close


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
    tolerance: float | None = None,
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
        tolerance: the gap to be left, as a part of what the score gains. Instead of `n_steps` points, each example gets 3, 9, 27, 81 and at
            most 243, none computed twice, until `|δ| <= max(tolerance * |F(x) - F(x')|, 1e-5 * (|F(x)| + |F(x')|))`; the second is what
            float32 can resolve. The gap is that of the sum: the attributions themselves are off by some 2 or 3 times as much.

    Returns:
        Attributions of the shape of the inputs, signed, float32, in the units of the score; beside them `convergence_delta` `[n]`, δ, the
        sum of an example's attributions minus `F(x) - F(x')`. With a tolerance also `n_nodes` `[n]`, int32, the points that were computed,
        of all references together, and `converged` `[n]`, whether every reference's gap was closed.

    Raises:
        ValueError: if an option is out of range, the baseline has another shape, or the score has no gradient at the inputs.

    Reference:
        M. Sundararajan, A. Taly, Q. Yan: Axiomatic Attribution for Deep Networks. ICML 2017. https://arxiv.org/abs/1703.01365, equation 1.
        Its equation 3 sums at the right ends of equal steps; the rules here have the smaller error.
    """
    if n_steps < 1:
        raise ValueError(f"`integrated_gradients` needs n_steps >= 1; got {n_steps}")
    if tolerance is not None and not (tolerance > 0 and rule == "midpoint"):
        raise ValueError(f"`integrated_gradients` refines the midpoint rule to a tolerance > 0; got {tolerance}, with rule {rule!r}")
    start = baselines.resolve(baseline)
    x = tf.cast(inputs, tf.float32)

    def gradient(points: tf.Tensor, of: tf.Tensor) -> tf.Tensor:
        return gradients.of_score(model, points, of, score)

    if tolerance is not None:
        paths = baselines.held(model, x, baselines.references(start, x, ids))
        to_tolerance = functools.partial(_refined, model, score, gradient, x, targets, tolerance, micro_batch)
        total, gap, n_nodes, n_converged = _sum(lambda one: to_tolerance(tf.broadcast_to(one, tf.shape(x))), paths)
        n_paths = paths.shape[0]
        per_sample = {"convergence_delta": gap / n_paths, "n_nodes": n_nodes, "converged": n_converged == n_paths}
        return Attributed(total / n_paths, per_sample)
    blocks = rows.cut(*quadrature.resolve(rule)(n_steps), micro_batch)

    def attribute(x: tf.Tensor, target: tf.Tensor, sample_id: tf.Tensor) -> Attributed:
        def of_path(one: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            x_start = tf.broadcast_to(one, x.shape)
            attributions = (x - x_start) * _weighted_gradients(gradient, blocks, x, x_start, target)
            at_end, at_start = _ends(model, score, x, x_start, target)
            return attributions, _total(attributions) - (at_end - at_start)

        paths = baselines.held(model, x, baselines.references(start, x, sample_id))
        total, gap = _sum(of_path, paths)
        return Attributed(total / paths.shape[0], {"convergence_delta": gap / paths.shape[0]})

    attributed: Attributed = rows.map_rows(attribute, (x, targets, ids), blocks.n_examples)
    return attributed


def _refined(
    model: keras.Model,
    score: str | Score,
    gradient: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    x: tf.Tensor,
    targets: tf.Tensor,
    tolerance: float,
    micro_batch: int,
    x_start: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns attributions, gaps, nodes spent and whether (1 or 0) the gap was closed, of one path an example."""
    # Every level fills micro-batches of this many rows: whole examples, or equal parts of one.
    n_rows = next(n for n in (162, 54, 18, 6, 3, 1) if n <= micro_batch)
    n_rows *= micro_batch // n_rows if n_rows == 162 else 1
    at_end, at_start = rows.map_rows(functools.partial(_ends, model, score), (x, x_start, targets), max(1, n_rows // 2))
    gain = at_end - at_start
    allowed = tf.maximum(tolerance * tf.abs(gain), _FLOOR * (tf.abs(at_end) + tf.abs(at_start)))
    gradient = tf.function(gradient, autograph=False)  # traced once for all levels
    sums, n_nodes = tf.zeros_like(x), tf.zeros_like(gain)
    attributions, gap, is_open = sums, gain, tf.ones_like(gain, tf.bool)
    for level in range(1, _N_LEVELS + 1):
        nodes = quadrature.nested_midpoint(level)
        blocks = rows.cut(nodes, np.ones_like(nodes), n_rows)
        unfinished = tf.where(is_open)
        of_unfinished = [tf.gather(array, unfinished[:, 0]) for array in (x, x_start, targets)]
        added = rows.map_rows(functools.partial(_weighted_gradients, gradient, blocks), tuple(of_unfinished), blocks.n_examples)
        sums = tf.tensor_scatter_nd_add(sums, unfinished, added)
        n_nodes = tf.where(is_open, float(3**level), n_nodes)
        attributions = (x - x_start) * sums / tf.reshape(n_nodes, [-1] + [1] * (x.shape.rank - 1))
        gap = _total(attributions) - gain
        is_open = ~(tf.abs(gap) <= allowed)  # a NaN stays open
    return attributions, gap, tf.cast(n_nodes, tf.int32), tf.cast(~is_open, tf.int32)


def _weighted_gradients(
    gradient: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], blocks: rows.Blocks, x: tf.Tensor, x_start: tf.Tensor, targets: tf.Tensor
) -> tf.Tensor:
    """Returns the weighted sum of the gradients at the nodes of each path; there are as many as the blocks have examples."""
    n_examples, n_nodes = blocks.n_examples, blocks.nodes.shape[1]
    of_node = [1, n_nodes, *[1] * (x.shape.rank - 1)]
    target_of_row = tf.repeat(targets, n_nodes)

    def at_nodes(alpha: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        path = x_start[:, None] + tf.reshape(alpha, of_node) * (x - x_start)[:, None]
        points = tf.reshape(path, [n_examples * n_nodes, *x.shape[1:]])
        return tf.reduce_sum(tf.reshape(weight, of_node) * tf.reshape(gradient(points, target_of_row), path.shape), axis=1)

    return rows.sum_over_chunks(at_nodes, blocks, tuple(x.shape))


def _ends(model: keras.Model, score: str | Score, x: tf.Tensor, x_start: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the scores at the end and the start of each path."""
    at_end, at_start = tf.split(scores.evaluate(model, tf.concat([x, x_start], 0), tf.tile(targets, [2]), score), 2)
    return at_end, at_start


def _total(attributions: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(attributions, axis=list(range(1, attributions.shape.rank)))


def _sum(function: Callable[[tf.Tensor], tuple[tf.Tensor, ...]], of: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Returns the sums of what a function returns for each entry of a tensor's first axis; traces it once however many there are."""
    if of.shape[0] == 1:
        return function(of[0])
    one = tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec(of.shape[1:], of.dtype))

    def body(index: tf.Tensor, totals: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        return index + 1, tuple(total + new for total, new in zip(totals, one(of[index]), strict=True))

    _, totals = tf.while_loop(lambda index, _: index < of.shape[0], body, (tf.constant(1), tuple(one(of[0]))), parallel_iterations=1)
    return tuple(totals)
