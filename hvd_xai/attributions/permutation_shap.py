"""Shapley values by permutations."""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float64, Int32, Int64, Shaped

from hvd_xai import baselines
from hvd_xai.primitives import coalitions
from hvd_xai.primitives.axes import inputs_or_places
from hvd_xai.protocols import Attributed, Baseline, Channels, Score
from hvd_xai.tracing import micro_batches
from hvd_xai.tracing.channels import settle_channels

# Number of orders between two looks at the standard error, which fewer would not tell.
_PERMUTATIONS_OF_A_ROUND = 5


def permutation_shap(
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    /,
    *,
    ids: Int64[tf.Tensor, "n"],
    patch: int | tuple[int, ...] | None = None,
    n_permutations: int = 10,
    tolerance: float | None = None,
    baseline: str | Baseline = "zero",
    channels: Channels | None = None,
    score: str | Score = "output",
    seed: int = 0,
    micro_batch: int = 256,
) -> Attributed:
    """Adds features to the baseline in random orders, and averages what the score gains with each.

    It estimates Shapley values and their standard error. The attributions of an example sum to
    `F(x) - F(baseline)`, however few the orders. Each order is also taken backwards: a score whose
    features act alone or in pairs is then exact with a single order.

        φ_j = 1/2K Σ_k [F(before_k(j) + j) - F(before_k(j))] + [F(after_k(j) + j) - F(after_k(j))]

    Args:
        model: any built Keras model of one input.
        inputs: examples `[n, ...]`, computed in float32: tables `[n, f]`, series, images or
            volumes.
        targets: what the score selects for each example, such as a class id, `[n]`.
        ids: sample ids, `[n]`, which with the seed decide an example's orders.
        patch: side of a feature in places, one number for all axes or one for each; by default a
            seventh of each axis, and single values in tables. All cells of an axis have nearly
            equal sides.
        n_permutations: number K of orders, at least 2; an example of m features costs `2 K (m - 1)
            + 2` micro-batch rows. Where K is enough for all m! orders, each is taken once and the
            values are exact.
        tolerance: largest standard error of a feature, in the units of the score, with which an
            example is done; the orders are then taken 5 at a time, and `n_permutations`, rounded up
            to it, is the most. By default all of them are taken.
        baseline: values of absent features: name of a baseline in `hvd_xai.baselines`, or function
            of the inputs.
        channels: where the inputs have their channels: `last`, `first`, or `none` if every axis has
            places; by default, where the model has them.
        score: scalar to explain: name of a score in `hvd_xai.scores`, or function of outputs and
            targets.
        seed: seed of the random numbers.
        micro_batch: largest number of (example x coalition) micro-batch rows that go through the
            model at once; it bounds the memory and leaves the attributions as they are.

    Returns:
        Attributions of the features, `[n, cells along h, cells along w]` (`[n, f]` of a table),
        float32, signed, in the units of the score; in `per_sample` `standard_errors` of the same
        shape, `standard_error` `[n]`, the largest among an example's features, and `n_permutations`
        `[n]`, the number of orders that it took.

    Raises:
        ValueError: if an option is out of range, the baseline has another shape, or the model does
            not tell where channels are.

    Example:
        Twelve orders, each also backwards, are all 4! orders of four features, so that the values
        are exact:

        >>> method = partial(permutation_shap, patch=4, n_permutations=12)
        >>> computed = Compute(model, method)(inputs, targets, ids)
        >>> computed.attributions.shape
        (4, 2, 2)
        >>> computed.per_sample["standard_error"].tolist()
        [0.0, 0.0, 0.0, 0.0]

    Reference:
        J. Castro, D. Gómez, J. Tejada: Polynomial calculation of the Shapley value based on
        sampling. Computers & Operations Research 2009. https://doi.org/10.1016/j.cor.2008.04.004,
        section 3. R. Mitchell, J. Cooper, E. Frank, G. Holmes: Sampling Permutations for Shapley
        Value Estimation. JMLR 2022. https://arxiv.org/abs/2104.12199, section 4.1, the antithetic
        pairs. The standard error is that of the pairs' means; stopping when it is small is ours,
        and favours examples whose error looks smaller than it is.
    """
    if n_permutations < 2:
        raise ValueError(f"`permutation_shap` needs n_permutations >= 2; got {n_permutations}")
    if tolerance is not None and not tolerance > 0:
        raise ValueError(
            f"tolerance is a standard error in the units of the score, more than 0; got {tolerance}"
        )
    shape = tuple(inputs.shape[1:])
    where = settle_channels(model, shape, channels, asker="permutation_shap")
    cells = coalitions.divide(shape, patch, where)
    rounds = _plan_rounds(cells.n_features, n_permutations, tolerance)
    rows = _rows(rounds.n_orders, cells.n_features)
    cut = coalitions.cut(len(rows.order), micro_batch)

    def add_up(
        x: tf.Tensor, target: tf.Tensor, sample_id: tf.Tensor, number: tf.Tensor
    ) -> tf.Tensor:
        """Returns sums, and sums of squares, of each feature's gains in the orders of a round.

        They are `[n, 2, m]`, float64.
        """
        place = _draw_orders(rounds, seed, sample_id, number)
        absent = baselines.reference(baseline, model, x, sample_id, where)

        def points(row: tf.Tensor) -> tf.Tensor:
            present = coalitions.spread(cells, rows.present(row, place))
            return coalitions.mix(x, absent, present, where)

        values = coalitions.evaluate_rows(model, points, target, score, cut)
        gains = _gains(tf.cast(values, tf.float64), place)
        return tf.stack([tf.reduce_sum(gains, axis=1), tf.reduce_sum(gains**2, axis=1)], axis=1)

    moments, taken = _take_rounds(
        add_up, (tf.cast(inputs, tf.float32), targets, ids), rounds, cut.n_examples
    )
    means = moments[:, 0] / tf.cast(taken, tf.float64)[:, None]
    attributions = tf.cast(tf.reshape(means, [-1, *cells.counts]), tf.float32)
    errors = tf.cast(tf.reshape(_errors(moments, taken), [-1, *cells.counts]), tf.float32)
    if rounds.every_order is not None:
        errors = tf.zeros_like(attributions)
    largest = tf.reduce_max(errors, axis=list(range(1, len(errors.shape))))
    return Attributed(
        attributions,
        {"standard_errors": errors, "standard_error": largest, "n_permutations": taken},
        attributed_to=inputs_or_places(attributions, inputs),
        signed=True,
    )


class _Rounds(NamedTuple):
    """Division of an example's orders into rounds, between which its error is looked at.

    Attributes:
        n_features: number m of features.
        n_orders: number of orders in a round.
        n_rounds: largest number of rounds.
        tolerance: standard error up to which an example is done.
        every_order: all orders there are, as `_every_order` lists them; None if orders are drawn.
    """

    n_features: int
    n_orders: int
    n_rounds: int
    tolerance: float
    every_order: Int32[np.ndarray, "k m"] | None


def _plan_rounds(n_features: int, n_permutations: int, tolerance: float | None) -> _Rounds:
    """Returns one round if all orders are taken anyway, or several if there is a tolerance."""
    # An order is also taken backwards, so that half of all orders are every one of them.
    if math.factorial(n_features) <= 2 * n_permutations:
        every_order = _every_order(n_features)
        return _Rounds(n_features, len(every_order), 1, tolerance or 0.0, every_order)
    at_once = n_permutations if tolerance is None else _PERMUTATIONS_OF_A_ROUND
    n_rounds = -(-n_permutations // at_once)
    return _Rounds(n_features, at_once, n_rounds, tolerance or 0.0, None)


def _draw_orders(
    rounds: _Rounds, seed: int, sample_id: Int64[tf.Tensor, "n"], number: Int32[tf.Tensor, "n"]
) -> Int32[tf.Tensor, "n k m"]:
    """Returns the place of each feature in each order of an example's round of that number."""
    if rounds.every_order is not None:
        return tf.tile(tf.constant(rounds.every_order)[None], [sample_id.shape[0], 1, 1])
    # All rounds are drawn, and one is kept: an example's orders depend on its id, the seed and the
    # number of the round, and not on when the example is looked at.
    drawn = coalitions.uniform(
        seed, sample_id, (rounds.n_rounds, rounds.n_orders, rounds.n_features)
    )
    return coalitions.orders(tf.gather(drawn, number, batch_dims=1))


def _take_rounds(
    add_up: Callable[..., tf.Tensor],
    arrays: tuple[tf.Tensor, tf.Tensor, tf.Tensor],
    rounds: _Rounds,
    n_at_once: int,
) -> tuple[Float64[tf.Tensor, "n 2 m"], Int32[tf.Tensor, "n"]]:
    """Takes rounds of orders until every example's error is small or no round is left.

    Args:
        add_up: function of a block of examples and of the number of a round that returns the sums
            of the gains and of their squares, `[n, 2, m]`.
        arrays: inputs, targets and sample ids, `[n, ...]` each.
        rounds: division of the orders into rounds.
        n_at_once: number of examples in a block.

    Returns:
        Both sums over all rounds, and the number of orders that each example took.
    """
    n_examples = tf.shape(arrays[0])[0]

    def next_round(
        number: tf.Tensor, moments: tf.Tensor, taken: tf.Tensor, is_unsure: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        unsure = tf.where(is_unsure)
        chosen = tuple(
            tf.gather(array, unsure[:, 0]) for array in (*arrays, tf.fill([n_examples], number))
        )
        moments = tf.tensor_scatter_nd_add(
            moments, unsure, micro_batches.map_blocks(add_up, chosen, n_at_once)
        )
        taken = tf.tensor_scatter_nd_add(
            taken, unsure, tf.fill([tf.shape(unsure)[0]], rounds.n_orders)
        )
        largest = tf.reduce_max(_errors(moments, taken), axis=1)
        return number + 1, moments, taken, largest > rounds.tolerance

    # Only examples that are still unsure take part in a round; the loop ends with the last of them.
    _, moments, taken, _ = tf.while_loop(
        lambda number, *state: (number < rounds.n_rounds) & tf.reduce_any(state[-1]),
        next_round,
        (
            tf.constant(0),
            tf.zeros([n_examples, 2, rounds.n_features], tf.float64),
            tf.zeros([n_examples], tf.int32),
            tf.fill([n_examples], True),
        ),
        parallel_iterations=1,
    )
    return moments, taken


def _every_order(n_features: int) -> Int32[np.ndarray, "k m"]:
    """Returns the place of each feature in every order, one of each pair of reversed orders."""
    return np.array(
        [order for order in itertools.permutations(range(n_features)) if order[0] <= order[-1]],
        np.int32,
    )


class _Rows(NamedTuple):
    """What each micro-batch row of an example shows of its features.

    Attributes:
        order: number of the row's order, `[r]`.
        is_backwards: whether the first features of the order are absent instead of present, `[r]`.
        n_first: number of first features, `[r]`.
    """

    order: Int32[np.ndarray, "r"]
    is_backwards: Bool[np.ndarray, "r"]
    n_first: Int32[np.ndarray, "r"]

    def present(
        self, row: Int32[tf.Tensor, "s"], place: Int32[tf.Tensor, "n k m"]
    ) -> Bool[tf.Tensor, "n s m"]:
        """Returns which features are present in some rows, given their places in each order."""
        is_first = (
            tf.gather(place, tf.gather(self.order, row), axis=1)
            < tf.gather(self.n_first, row)[:, None]
        )
        return is_first != tf.gather(self.is_backwards, row)[:, None]


def _rows(n_orders: int, n_features: int) -> _Rows:
    """Returns what the micro-batch rows of an example show.

    row        0          1        2 ... m       m+1 ... 2m-1      2m ...
    what    baseline    input    order 0,        order 0,          order 1,
                                 1 ... m-1       1 ... m-1         and so on
                                 present         absent
    """
    order, is_backwards, n_first = np.meshgrid(
        np.arange(n_orders), [False, True], np.arange(1, n_features), indexing="ij"
    )
    return _Rows(
        np.append([0, 0], order).astype(np.int32),
        np.append([False, False], is_backwards),
        np.append([0, n_features], n_first).astype(np.int32),
    )


def _gains(
    values: Float64[tf.Tensor, "n r"], place: Int32[tf.Tensor, "n k m"]
) -> Float64[tf.Tensor, "n k m"]:
    """Returns the gain of each feature in each order, from the scores of the micro-batch rows.

    The gain is the mean of the forward and the backward pass through the order.
    """
    n_examples, n_orders, n_features = place.shape
    nothing, everything = (tf.tile(values[:, row, None, None], [1, n_orders, 1]) for row in (0, 1))
    between = tf.reshape(values[:, 2:], [n_examples, n_orders, 2, n_features - 1])
    #     forwards     F(0)   F(1st)      ...  F(1)      gain = after - before
    #     backwards    F(1)   F(not 1st)  ...  F(0)      gain = before - after
    forwards = tf.concat([nothing, between[:, :, 0], everything], axis=2)
    backwards = tf.concat([everything, between[:, :, 1], nothing], axis=2)
    of_place = (
        forwards[..., 1:] - forwards[..., :-1] + backwards[..., :-1] - backwards[..., 1:]
    ) / 2
    return tf.gather(of_place, place, batch_dims=2)


def _errors(
    moments: Float64[tf.Tensor, "n 2 m"], n_terms: Int32[tf.Tensor, "n"]
) -> Float64[tf.Tensor, "n m"]:
    """Returns the standard error of the mean of each of an example's features."""
    n_terms = tf.cast(n_terms, tf.float64)[:, None]
    variance = tf.maximum(moments[:, 1] - moments[:, 0] ** 2 / n_terms, 0) / (n_terms - 1)
    return tf.sqrt(variance / n_terms)
