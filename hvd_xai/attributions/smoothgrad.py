"""SmoothGrad."""

import keras
import tensorflow as tf
from jaxtyping import Int64, Shaped

from hvd_xai.attributions.saliency import saliency
from hvd_xai.primitives import noisy_copies
from hvd_xai.protocols import Attributed, Attribution, Score


def smoothgrad(
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    /,
    *,
    ids: Int64[tf.Tensor, "n"],
    method: str | Attribution = saliency,
    n_samples: int = 50,
    noise: float = 0.15,
    is_relative: bool = True,
    seed: int = 0,
    score: str | Score = "output",
    micro_batch: int = 256,
) -> Attributed:
    """Averages a method's attributions over noisy copies of the input.

    Gradients of rectifier networks jump from pixel to pixel; their mean over a neighbourhood is
    smoother. It costs `n_samples` times as much as the method.

        M(x) = 1/n Σ_k E(x + ε_k)        ε_k ~ N(0, σ²)        σ = noise * (max x - min x)

    Args:
        model: any built Keras model of one input.
        inputs: examples `[n, ...]`; computed in float32.
        targets: what the score selects for each example, such as a class id, `[n]`.
        ids: sample ids, `[n]`, which seed the noise: an example has the same noisy copies in any
            batch.
        method: method whose attributions E are averaged: name in `hvd_xai.attributions`, or
            function, options bound with `functools.partial`. What it returns beside the
            attributions is about single copies, and is dropped; a random method is equally random
            for each of an example's copies.
        n_samples: number of noisy copies of each example, at least 1. The paper sees little gain
            beyond 50.
        noise: standard deviation σ of the noise; the paper recommends 0.1 to 0.2 of the range.
        is_relative: whether the noise is a share of each example's range, so that a constant
            example has none, instead of in the units of the inputs.
        seed: seed of the noise.
        score: scalar to explain: name of a score in `hvd_xai.scores`, or function of outputs and
            targets; the inner method explains it.
        micro_batch: largest number of (example x copy) micro-batch rows that the method gets at
            once; it bounds the memory and leaves the attributions as they are. One example's noise
            is held whole.

    Returns:
        Attributions of the shape and in the units of the method's, float32, signed if the method's
        are.

    Raises:
        ValueError: if an option is out of range, or a score is bound to the method. The method's
            own errors come through.

    Example:
        >>> integrated = partial(smoothgrad, method="integrated_gradients", n_samples=8)
        >>> Compute(model, integrated)(inputs, targets, ids).attributions.shape
        (4, 8, 8, 1)

    Reference:
        D. Smilkov, N. Thorat, B. Kim, F. Viégas, M. Wattenberg: SmoothGrad: removing noise by
        adding noise. 2017. https://arxiv.org/abs/1706.03825. Sign and channels are kept here.
    """
    mean, _ = noisy_copies.moments(
        method,
        model,
        inputs,
        targets,
        ids,
        noisy_copies.Noise(n_samples, noise, is_relative, seed),
        score=score,
        micro_batch=micro_batch,
    )
    return mean
