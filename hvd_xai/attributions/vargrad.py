"""VarGrad."""

import keras
import tensorflow as tf
from jaxtyping import Int64, Shaped

from hvd_xai.attributions.saliency import saliency
from hvd_xai.primitives import noisy_copies
from hvd_xai.protocols import Attributed, Attribution, Score


def vargrad(
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
    """Takes the variance of a method's attributions over noisy copies of the input.

    It shows where the model bends around the input; what acts linearly, however strongly, gets 0.

        M(x) = 1/n Σ_k (E(x + ε_k) - 1/n Σ_l E(x + ε_l))²

    Args:
        model: any built Keras model of one input.
        inputs: examples `[n, ...]`; computed in float32.
        targets: what the score selects for each example, such as a class id, `[n]`.
        ids: sample ids, `[n]`, which seed the noise.
        method: method whose attributions E vary: name in `hvd_xai.attributions`, or function,
            options bound with `functools.partial`.
        n_samples: number of noisy copies of each example, at least 2.
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
        ValueError: if an option is out of range, there are fewer than two copies, or a score is
            bound to the method; the method's own errors come through.

    Example:
        >>> computed = Compute(model, partial(vargrad, n_samples=8))(inputs, targets, ids)
        >>> computed.attributions.shape
        (4, 8, 8, 1)
        >>> bool(np.all(computed.attributions >= 0))
        True

    Reference:
        J. Adebayo, J. Gilmer, I. Goodfellow, B. Kim: Local Explanation Methods for Deep Neural
        Networks Lack Sensitivity to Parameter Values. ICLR 2018 workshop.
        https://arxiv.org/abs/1810.03307. The variance is that of the n copies, divided by n.
    """
    if n_samples < 2:
        raise ValueError(
            f"`vargrad` needs n_samples >= 2, as one copy has no variance; got {n_samples}"
        )
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
    return Attributed(variance, attributed_to=mean.attributed_to, signed=False)
