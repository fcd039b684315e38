"""VarGrad."""

import keras
import tensorflow as tf
from jaxtyping import Int64, Shaped

from hvd_xai.attributions.saliency import saliency
from hvd_xai.primitives import noisy
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
        inputs: `[n, ...]`, computed in float32.
        targets: `[n]`, what the score selects.
        ids: sample ids, which seed the noise.
        method: whose attributions E vary; as of `smoothgrad`.
        n_samples: noisy copies of an example, at least 2.
        noise: standard deviation of the noise.
        is_relative: the noise is a share of each example's range; else it is in units of the
            inputs.
        seed: another seed, other noise; the same seed gives the copies that `smoothgrad` takes.
        score: what is explained; the method is given it.
        micro_batch: the most (example x copy) rows that are handed to the method at once.

    Returns:
        Attributions of the shape of the method's, float32, never negative, in the square of its
        units.

    Raises:
        ValueError: as `smoothgrad`, and if there is but one copy.

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
    mean, variance = noisy.moments(
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
    return Attributed(variance, attributed_to=mean.attributed_to, signed=False)
