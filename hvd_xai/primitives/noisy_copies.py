"""Explains noisy copies of examples: mean and variance of a method's attributions."""

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float32, Int64, Shaped

from hvd_xai import baselines
from hvd_xai.errors import shorten
from hvd_xai.lookup.methods import load_method
from hvd_xai.protocols import Attributed, Attribution, Score
from hvd_xai.tracing import micro_batches, packed_model


@dataclass(frozen=True, slots=True)
class Noise:
    """The noisy copies to make of each example.

    Args:
        n_samples: number of copies of each example, at least 1.
        scale: standard deviation of the normal noise, at least 0.
        is_relative: whether the scale is a share of each example's range, its largest value minus
            its smallest, instead of in the inputs' units.
        seed: seed of the noise, besides the sample id.

    Raises:
        ValueError: if a number is out of range.
    """

    n_samples: int
    scale: float
    is_relative: bool
    seed: int

    def __post_init__(self) -> None:
        if self.n_samples < 1:
            raise ValueError(
                "n_samples is how many noisy copies of an example are explained, at least 1; got"
                f" {self.n_samples}"
            )
        if not self.scale >= 0:
            raise ValueError(f"noise is a standard deviation, at least 0; got {self.scale}")

    def copy(
        self, model: keras.Model, x: Float32[tf.Tensor, "n ..."], ids: Int64[tf.Tensor, "n"]
    ) -> Float32[tf.Tensor, "n k ..."]:
        """Returns the copies of each example, `[n, k, ...]`; whole numbers are left alone."""
        scale = self.scale * _ranges(model, x) if self.is_relative else self.scale
        moved = x[:, None] + tf.reshape(scale, [-1, *[1] * x.shape.rank]) * normal(
            [self.n_samples, *x.shape[1:]], self.seed, ids
        )
        return baselines.held(model, x[:, None], moved)


def moments(
    method: str | Attribution,
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    ids: Int64[tf.Tensor, "n"],
    noise: Noise,
    *,
    score: str | Score,
    micro_batch: int,
) -> tuple[Attributed, Float32[tf.Tensor, "n ..."]]:
    """Returns mean and variance of a method's attributions over noisy copies of each example.

    The normal noise comes from `(seed, sample id)`, so an example has the same copies in any batch
    and on any rank. A method that is random itself gets the sample id too, and so is equally random
    for each copy. What the method returns beside the attributions is about single copies, and is
    dropped.

    Args:
        method: method to average, a name or a function; it gets `score`, and `micro_batch` unless
            that is bound, where it has such options.
        model: any built Keras model of one input.
        inputs: examples `[n, ...]`; computed in float32.
        targets: what the score selects for each example, `[n]`.
        ids: sample ids, `[n]`, which seed the noise.
        noise: noisy copies to make.
        score: scalar to explain, by name or as a function.
        micro_batch: largest number of copies that the method gets at once.

    Returns:
        Mean and variance, each of the shape of the method's attributions; the facts of the mean are
        those that the method states of its attributions. The variance divides by the number of
        copies.

    Raises:
        ValueError: if a score is bound to the method.
    """
    attribute_rows = _bound(
        load_method(method) if isinstance(method, str) else method, score, micro_batch
    )
    blocks = micro_batches.cut(
        np.arange(noise.n_samples, dtype=np.float64),
        np.full(noise.n_samples, 1.0 / noise.n_samples),
        micro_batch,
    )

    def attribute(
        x: tf.Tensor, target: tf.Tensor, sample_id: tf.Tensor
    ) -> tuple[Attributed, tf.Tensor]:
        copies = noise.copy(model, x, sample_id)

        def attributed_of(chosen: tf.Tensor) -> Attributed:
            chunk = tf.gather(copies, tf.cast(chosen, tf.int32), axis=1)
            return _attribute_copies(attribute_rows, model, chunk, target, sample_id)

        # Sums of deviations from one of the copies: sums of the attributions themselves would lose
        # a small variance beside a large mean.
        first = attributed_of(tf.constant(blocks.nodes[0]))
        pivot = first.attributions[:, :1]

        def sums(attributions: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
            return _weighted_moments(attributions - pivot, weight)

        total = sums(first.attributions, tf.constant(blocks.weights[0], tf.float32))
        if len(blocks.nodes) > 1:
            rest = blocks._replace(nodes=blocks.nodes[1:], weights=blocks.weights[1:])
            total += micro_batches.sum_over_chunks(
                lambda chosen, weight: sums(attributed_of(chosen).attributions, weight),
                rest,
                tuple(total.shape),
            )
        # V[E] = E[(E - pivot)²] - (E[E] - pivot)², which rounding may leave just below 0
        mean, mean_square = tf.unstack(total)
        of_copies = dataclasses.replace(first, attributions=pivot[:, 0] + mean, per_sample={})
        return of_copies, tf.maximum(mean_square - mean**2, 0.0)

    of_noise: tuple[Attributed, tf.Tensor] = micro_batches.map_blocks(
        attribute, (tf.cast(inputs, tf.float32), targets, ids), blocks.n_examples
    )
    return of_noise


def _attribute_copies(
    method: Callable[..., tf.Tensor | Attributed],
    model: keras.Model,
    copies: Float32[tf.Tensor, "n k ..."],
    targets: Shaped[tf.Tensor, "n"],
    ids: Int64[tf.Tensor, "n"],
) -> Attributed:
    """Returns the method's attributions of each copy, `[n, k, ...]`, in float32."""
    n_examples, n_copies, *shape = copies.shape
    #     row    0 ... k-1        k ... 2k-1       of the flat copies
    #            example 0        example 1        and so on, as tf.repeat has targets and ids
    flat = tf.reshape(copies, [n_examples * n_copies, *shape])
    repeated = [tf.repeat(values, n_copies) for values in (targets, ids)]
    returned = method(model, flat, repeated[0], ids=repeated[1])
    attributed = returned if isinstance(returned, Attributed) else Attributed(returned)
    attributions = tf.cast(attributed.attributions, tf.float32)
    return dataclasses.replace(
        attributed,
        attributions=tf.reshape(attributions, [n_examples, n_copies, *attributions.shape[1:]]),
    )


def _weighted_moments(
    deviation: Float32[tf.Tensor, "n k ..."], weight: Float32[tf.Tensor, "k"]
) -> Float32[tf.Tensor, "2 n ..."]:
    """Returns the weighted sums, over the copies, of the deviations and of their squares."""
    weighted = tf.reshape(weight, [1, -1, *[1] * (deviation.shape.rank - 2)]) * deviation
    return tf.stack([tf.reduce_sum(weighted, axis=1), tf.reduce_sum(weighted * deviation, axis=1)])


def _bound(
    method: Attribution, score: str | Score, micro_batch: int
) -> Callable[..., tf.Tensor | Attributed]:
    """Returns the method with score and micro-batch bound, where it has these options."""
    bound = getattr(method, "keywords", {})
    if "score" in bound:
        raise ValueError(
            "what is explained is an option of the outer method; the inner one has"
            f" score={shorten(bound['score'])}. Bind it outside."
        )
    given: dict[str, Any] = {"score": score, "micro_batch": micro_batch}
    options = inspect.signature(method).parameters
    return partial(
        method,
        **{name: value for name, value in given.items() if name in options and name not in bound},
    )


def normal(shape: list[int], seed: int, sample_ids: tf.Tensor) -> tf.Tensor:
    """Returns normal random numbers `[n, *shape]`.

    An example's numbers come from `(seed, sample id)`, by the same generator on any device.
    """

    def draw(sample_id: tf.Tensor) -> tf.Tensor:
        return tf.random.stateless_normal(
            shape, tf.stack([tf.constant(seed, tf.int64), sample_id]), alg="philox"
        )

    return tf.map_fn(draw, sample_ids, fn_output_signature=tf.TensorSpec(shape, tf.float32))


def _ranges(model: keras.Model, x: tf.Tensor) -> tf.Tensor:
    """Returns each example's largest value minus its smallest, of those that noise moves."""
    is_whole = packed_model.whole_numbers(model)
    moving = x if is_whole is None or is_whole.all() else tf.boolean_mask(x, ~is_whole, axis=1)
    axes = list(range(1, x.shape.rank))
    return tf.reduce_max(moving, axis=axes) - tf.reduce_min(moving, axis=axes)
