"""SquareGrad, also called SmoothGrad-Squared."""

import keras
import tensorflow as tf
from jaxtyping import Int64, Shaped

from hvd_xai.attributions.saliency import saliency
from hvd_xai.primitives import noisy_copies
from hvd_xai.protocols import Attributed, Attribution, Score


def squaregrad(
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
    """Averages the squares of a method's attributions over noisy copies of the input.

    Features with large attributions of either sign stand out. In `smoothgrad`, attributions of
    opposite signs would cancel.

        M(x) = 1/n Σ_k E(x + ε_k)²

    Args:
        model: any built Keras model of one input.
        inputs: examples `[n, ...]`; computed in float32.
        targets: what the score selects for each example, such as a class id, `[n]`.
        ids: sample ids, `[n]`, which seed the noise.
        method: method whose attributions E are squared: name in `hvd_xai.attributions`, or
            function, options bound with `functools.partial`.
        n_samples: number of noisy copies of each example, at least 1.
        noise: standard deviation of the noise.
        is_relative: whether the noise is a share of each example's range, instead of in the units
            of the inputs.
        seed: seed of the noise; the same seed gives the copies that `smoothgrad` takes.
        score: scalar to explain, by name or as a function; the inner method explains it.
        micro_batch: largest number of (example x copy) micro-batch rows that the method gets at
            once.

    Returns:
        Attributions of the shape of the method's, float32, never negative, in the square of its
        units.

    Raises:
        ValueError: if an option is out of range, or a score is bound to the method; the method's
            own errors come through.

    Example:
        >>> method = partial(squaregrad, n_samples=8)
        >>> computed = Compute(model, method)(inputs, targets, ids)
        >>> computed.attributions.shape
        (4, 8, 8, 1)
        >>> bool(np.all(computed.attributions >= 0))
        True

    Reference:
        S. Hooker, D. Erhan, P.-J. Kindermans, B. Kim: A Benchmark for Interpretability Methods in
        Deep Neural Networks. NeurIPS 2019. https://arxiv.org/abs/1806.10758, under the name
        SmoothGrad-Squared.
    """
    mean, variance = noisy_copies.moments(
        method,
        model,
        inputs,
        targets,
        ids,
        noisy_copies.Noise(n_samples, noise, is_relative, seed),
        score=score,
        micro_batch=micro_batch,
    )
    # E[E²] = E[E]² + V[E]
    squares = mean.attributions**2 + variance
    return Attributed(squares, attributed_to=mean.attributed_to, signed=False)
