"""SmoothGrad."""

import keras
import tensorflow as tf
from jaxtyping import Int64, Shaped

from hvd_xai.attributions.saliency import saliency
from hvd_xai.primitives import noisy
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

    Gradients of rectifier networks jump from pixel to pixel; their mean over a neighbourhood does
    less. Costs `n_samples` times the method.

        M(x) = 1/n Σ_k E(x + ε_k)        ε_k ~ N(0, σ²)        σ = noise * (max x - min x)

    Args:
        model: any built Keras model of one input.
        inputs: `[n, ...]`, computed in float32.
        targets: `[n]`, what the score selects.
        ids: sample ids, which seed the noise: an example has the same noisy copies in any batch.
        method: whose attributions E are averaged: a name of `hvd_xai.attributions`, or a function,
            options bound with `functools.partial`. What it returns beside the attributions is about
            the copies, and is dropped; a random method is equally random for each of an example's
            copies.
        n_samples: noisy copies of an example, at least 1. The paper sees little gain beyond 50.
        noise: standard deviation σ; the paper recommends 0.1 to 0.2 of the range.
        is_relative: the noise is a share of each example's range, so that a constant example has
            none; else it is in units of the inputs.
        seed: another seed, other noise.
        score: what is explained: a name of `hvd_xai.scores`, or a function of outputs and targets.
            The method is given it.
        micro_batch: the most (example x copy) rows that are handed to the method at once; bounds
            the memory, not the numbers. One example's noise is held whole.

    Returns:
        Attributions of the shape and in the units of the method's, float32.

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
    mean, _ = noisy.moments(
        method,
        model,
        inputs,
        targets,
        ids,
        n_samples=n_samples,
        noise=noise,
        is_relative=is_relative,
        seed=seed,
        score=score,
        micro_batch=micro_batch,
    )
    return mean
