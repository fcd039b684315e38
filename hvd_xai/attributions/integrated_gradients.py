"""Integrated gradients."""

import functools
import math
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Int64, Shaped

from hvd_xai import baselines, scores
from hvd_xai.primitives import gradients, quadrature
from hvd_xai.protocols import Attributed, Baseline, Score
from hvd_xai.tracing import micro_batches

# Number of equal parts of a path, each refined by itself.
_N_PANELS = 9
# Number of levels of a panel: it has 1, 3, 9 or 27 nodes.
_N_LEVELS = 4
# Share of the scores at both ends that float32 cannot resolve: no smaller gap is asked for.
_FLOOR = 1e-5


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
    """Integrates gradients along the straight path from a baseline to the input.

    The mean gradient on the path is multiplied by input minus baseline. The attributions of an
    example sum to the score's gain along the path, `F(x) - F(x')`; `convergence_delta` says how far
    they miss it. It suits any differentiable model; features that the model does not use get
    exactly 0.

        IG_i(x) = (x_i - x'_i) * ∫_0^1 ∂F(x' + α (x - x')) / ∂x_i dα

    Args:
        model: any built Keras model of one input.
        inputs: examples `[n, ...]`; computed in float32.
        targets: what the score selects for each example, such as a class id, `[n]`.
        ids: sample ids, `[n]`, which seed baselines that are random.
        n_steps: number of points of the path, at least 1. 50 leaves a gap of about 0.1 % on small
            convolutional networks.
        rule: quadrature rule, `midpoint` or `gauss_legendre`; neither evaluates the ends of the
            path.
        baseline: start of the paths: name of a baseline in `hvd_xai.baselines`, or function of the
            inputs. Attributions and scores are averaged over several references, which takes as
            many times as long.
        score: scalar to explain: name of a score in `hvd_xai.scores`, or function of outputs and
            targets.
        micro_batch: largest number of (example x point) micro-batch rows that go through the model
            at once; it bounds the memory and leaves the attributions as they are.
        tolerance: gap to leave, as a part of the score's gain. Instead of `n_steps` points, each
            example gets 3, then one in each ninth of its path; ninths whose own gap is more than a
            ninth of the allowed gap then get 3, 9 and at most 27, none computed twice, until `|δ|
            <= max(tolerance * |F(x) - F(x')|, 1e-5 * (|F(x)| + |F(x')|))`; the second term is what
            float32 can resolve. It costs 8 scores inside the path besides, and the memory of 9
            times the inputs. The gap is that of the sum: the attributions themselves are off by
            some 1 to 3 times as much.

    Returns:
        Attributions of the shape of the inputs, signed, float32, in the units of the score; in
        `per_sample` `convergence_delta` `[n]`, δ, the sum of an example's attributions minus `F(x)
        - F(x')`. With a tolerance also `n_nodes` `[n]`, int32, the number of points computed for
        all references together, and `converged` `[n]`, whether every reference's gap was closed.

    Raises:
        ValueError: if an option is out of range, the baseline has another shape, or the score has
            no gradient at the inputs.

    Example:
        >>> computed = Compute(model, integrated_gradients)(inputs, targets, ids)
        >>> computed.attributions.shape
        (4, 8, 8, 1)
        >>> bool(np.abs(computed.per_sample["convergence_delta"]).max() < 0.01)
        True

    Reference:
        M. Sundararajan, A. Taly, Q. Yan: Axiomatic Attribution for Deep Networks. ICML 2017.
        https://arxiv.org/abs/1703.01365, equation 1. Its equation 3 sums at the right ends of equal
        steps; the rules here have the smaller error.
    """
    if n_steps < 1:
        raise ValueError(f"`integrated_gradients` needs n_steps >= 1; got {n_steps}")
    if tolerance is not None and not (tolerance > 0 and rule == "midpoint"):
        raise ValueError(
            f"`integrated_gradients` refines the midpoint rule to a tolerance > 0; got {tolerance},"
            f" with rule {rule!r}"
        )
    start = baselines.resolve(baseline)
    x = tf.cast(inputs, tf.float32)

    def gradient(points: tf.Tensor, of: tf.Tensor) -> tf.Tensor:
        return gradients.differentiate(model, points, of, score)

    if tolerance is not None:
        paths = baselines.held(model, x, baselines.references(start, model, x, ids))
        to_tolerance = functools.partial(
            _refined, model, score, gradient, x, targets, tolerance, micro_batch
        )
        return _mean_of_refined(to_tolerance, x, paths)
    blocks = micro_batches.cut(*quadrature.resolve(rule)(n_steps), micro_batch)

    def attribute(x: tf.Tensor, target: tf.Tensor, sample_id: tf.Tensor) -> Attributed:
        def of_path(one: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            x_start = tf.broadcast_to(one, x.shape)
            # IG_i = (x_i - x'_i) Σ_s w_s ∂F(x' + α_s (x - x')) / ∂x_i
            attributions = (x - x_start) * _weighted_gradients(gradient, blocks, x, x_start, target)
            at_end, at_start = _ends(model, score, x, x_start, target)
            return attributions, _total(attributions) - (at_end - at_start)

        paths = baselines.held(model, x, baselines.references(start, model, x, sample_id))
        total, gap = _sum(of_path, paths)
        return Attributed(
            total / paths.shape[0],
            {"convergence_delta": gap / paths.shape[0]},
            attributed_to="inputs",
            signed=True,
        )

    attributed: Attributed = micro_batches.map_blocks(
        attribute, (x, targets, ids), blocks.n_examples
    )
    return attributed


def _mean_of_refined(
    refined: Callable[[tf.Tensor], tuple[tf.Tensor, ...]], x: tf.Tensor, paths: tf.Tensor
) -> Attributed:
    """Returns the mean attributions of several paths, each refined from its own start."""
    total, gap, n_nodes, n_converged = _sum(
        lambda one: refined(tf.broadcast_to(one, tf.shape(x))), paths
    )
    n_paths = paths.shape[0]
    per_sample = {
        "convergence_delta": gap / n_paths,
        "n_nodes": n_nodes,
        "converged": n_converged == n_paths,
    }
    return Attributed(total / n_paths, per_sample, attributed_to="inputs", signed=True)


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
    """Returns attributions, gaps, numbers of nodes, and whether (1 or 0) each gap was closed.

    Each example has one path. Attributions of a part of a path sum to what the
    score gains there, so each panel has a gap of its own and is refined by itself.
    """
    micro_batches.check_micro_batch(micro_batch)
    # Every level fills micro-batches of this many rows: whole panels, or equal parts of one.
    n_rows = micro_batch // 18 * 18 or next(n for n in (6, 2, 1) if n <= micro_batch)
    at_edges = _at_edges(model, score, x, x_start, targets, n_rows)
    at_start, at_end = at_edges[:, 0], at_edges[:, -1]
    allowed = tf.maximum(
        tolerance * tf.abs(at_end - at_start), _FLOOR * (tf.abs(at_end) + tf.abs(at_start))
    )
    # One function for all levels, so that the model is traced once.
    gradient = tf.function(gradient, autograph=False)
    added = functools.partial(_at_nodes_of, gradient, x, x_start, targets, n_rows)
    n_examples, n_values = tf.shape(x)[0], math.prod(x.shape[1:])
    change = tf.reshape(x - x_start, [n_examples, n_values])
    gaps = functools.partial(_gaps, change, at_edges)
    counts = tf.ones([n_examples, _N_PANELS])
    sums, has_all = _one_node_each(added, gaps, allowed, n_values)
    for level in range(1, _N_LEVELS):
        gap = gaps(sums, counts)
        is_open = ~(tf.abs(tf.reduce_sum(gap, axis=1)) <= allowed)
        # Where no panel misses more than its share, the path misses no more than is allowed.
        unfinished = tf.where(is_open[:, None] & ~(tf.abs(gap) <= allowed[:, None] / _N_PANELS))
        sums = tf.tensor_scatter_nd_add(sums, unfinished, added(unfinished, level))
        counts = tf.tensor_scatter_nd_update(
            counts, unfinished, tf.fill(tf.shape(unfinished)[:1], 3.0**level)
        )
    delta = tf.reduce_sum(gaps(sums, counts), axis=1)
    attributions = tf.reshape(
        change * tf.linalg.matvec(sums, 1 / (_N_PANELS * counts), transpose_a=True), tf.shape(x)
    )
    n_nodes = tf.where(has_all, tf.reduce_sum(counts, axis=1), _N_PANELS / 3)
    return (
        attributions,
        delta,
        tf.cast(n_nodes, tf.int32),
        tf.cast(tf.abs(delta) <= allowed, tf.int32),
    )


def _gaps(change: tf.Tensor, at_edges: tf.Tensor, sums: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    """Returns by how much the attributions of each panel miss what the score gains there."""
    gain = at_edges[:, 1:] - at_edges[:, :-1]
    return tf.linalg.matvec(sums, change) / (_N_PANELS * counts) - gain


def _one_node_each(
    added: Callable[[tf.Tensor, int], tf.Tensor],
    gaps: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    allowed: tf.Tensor,
    n_values: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the gradient of each panel, `[n, panels, values]`, and which examples needed all.

    The first three nodes are the middles of thirds of the path, and stand for the panels beside
    them where three are enough.
    """
    n_examples = tf.shape(allowed)[0]
    is_first = tf.tile([[False, True, False] * (_N_PANELS // 3)], [n_examples, 1])
    #     panels    0   1   2 | 3   4   5 | 6   7   8
    #     nodes         o     |     o     |     o          each stands for its third
    sums = tf.repeat(
        tf.reshape(added(tf.where(is_first), 0), [n_examples, _N_PANELS // 3, n_values]), 3, axis=1
    )
    # The gaps of so few may cancel by chance, so here it is their absolute values that must not
    # exceed what is allowed.
    gap = gaps(sums, tf.ones([n_examples, _N_PANELS]))
    of_thirds = tf.reduce_sum(tf.reshape(gap, [n_examples, _N_PANELS // 3, 3]), axis=2)
    # Written as "not within", so that a NaN stays open.
    is_open = ~(tf.reduce_sum(tf.abs(of_thirds), axis=1) <= allowed)
    others = tf.where(is_open[:, None] & ~is_first)
    return tf.tensor_scatter_nd_update(sums, others, added(others, 0)), is_open


def _at_edges(
    model: keras.Model,
    score: str | Score,
    x: tf.Tensor,
    x_start: tf.Tensor,
    targets: tf.Tensor,
    n_rows: int,
) -> tf.Tensor:
    """Returns the scores `[n, panels + 1]` at the edges of the panels of each path."""

    def at(example: tf.Tensor, edge: tf.Tensor) -> tf.Tensor:
        alpha = tf.reshape(edge / _N_PANELS, [n_rows] + [1] * (x.shape.rank - 1))
        points = (1 - alpha) * tf.gather(x_start, example) + alpha * tf.gather(x, example)
        return scores.evaluate(model, points, tf.gather(targets, example), score)

    n_examples = tf.shape(x)[0]
    example, edge = (
        tf.repeat(tf.range(n_examples), _N_PANELS + 1),
        tf.tile(tf.range(_N_PANELS + 1.0), [n_examples]),
    )
    return tf.reshape(
        micro_batches.map_blocks(at, (example, edge), n_rows), [n_examples, _N_PANELS + 1]
    )


def _at_nodes_of(
    gradient: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    x: tf.Tensor,
    x_start: tf.Tensor,
    targets: tf.Tensor,
    n_rows: int,
    panels: tf.Tensor,
    level: int,
) -> tf.Tensor:
    """Returns the sums of the gradients at the nodes that a level adds to panels.

    Panels `[m, 2]` are pairs of example and panel; the sums are `[m, values]`.
    """
    nodes = quadrature.nested_midpoint(level)
    blocks = micro_batches.cut(nodes, np.ones_like(nodes), n_rows)

    def of_panels(panel: tf.Tensor) -> tf.Tensor:
        start, end = tf.gather(x_start, panel[:, 0]), tf.gather(x, panel[:, 0])
        width = (end - start) / _N_PANELS
        from_here = (
            start
            + tf.reshape(tf.cast(panel[:, 1], tf.float32), [-1] + [1] * (x.shape.rank - 1)) * width
        )
        found = _weighted_gradients(
            gradient, blocks, from_here + width, from_here, tf.gather(targets, panel[:, 0])
        )
        return tf.reshape(found, [panel.shape[0], -1])

    return micro_batches.map_blocks(of_panels, (panels,), n_rows // blocks.nodes.shape[1])


def _weighted_gradients(
    gradient: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    blocks: micro_batches.Blocks,
    x: tf.Tensor,
    x_start: tf.Tensor,
    targets: tf.Tensor,
) -> tf.Tensor:
    """Returns the weighted sum of the gradients at the nodes of each path."""
    n_examples, n_nodes = x.shape[0], blocks.nodes.shape[1]
    of_node = [1, n_nodes, *[1] * (x.shape.rank - 1)]
    target_of_row = tf.repeat(targets, n_nodes)

    def at_nodes(alpha: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        path = x_start[:, None] + tf.reshape(alpha, of_node) * (x - x_start)[:, None]
        points = tf.reshape(path, [n_examples * n_nodes, *x.shape[1:]])
        return tf.reduce_sum(
            tf.reshape(weight, of_node) * tf.reshape(gradient(points, target_of_row), path.shape),
            axis=1,
        )

    return micro_batches.sum_over_chunks(at_nodes, blocks, tuple(x.shape))


def _ends(
    model: keras.Model, score: str | Score, x: tf.Tensor, x_start: tf.Tensor, targets: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the scores at the end and the start of each path."""
    at_end, at_start = tf.split(
        scores.evaluate(model, tf.concat([x, x_start], 0), tf.tile(targets, [2]), score), 2
    )
    return at_end, at_start


def _total(attributions: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(attributions, axis=list(range(1, attributions.shape.rank)))


def _sum(
    function: Callable[[tf.Tensor], tuple[tf.Tensor, ...]], of: tf.Tensor
) -> tuple[tf.Tensor, ...]:
    """Returns the sums of a function's results over the entries of a tensor's first axis.

    The function is traced once, however many entries there are.
    """
    if of.shape[0] == 1:
        return function(of[0])
    one = tf.function(function, autograph=False).get_concrete_function(
        tf.TensorSpec(of.shape[1:], of.dtype)
    )

    def body(
        index: tf.Tensor, totals: tuple[tf.Tensor, ...]
    ) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        return index + 1, tuple(
            total + new for total, new in zip(totals, one(of[index]), strict=True)
        )

    _, totals = tf.while_loop(
        lambda index, _: index < of.shape[0],
        body,
        (tf.constant(1), tuple(one(of[0]))),
        parallel_iterations=1,
    )
    return tuple(totals)
