"""DeepLIFT."""

import keras
import tensorflow as tf
from jaxtyping import Int64, Shaped

from hvd_xai import baselines, scores
from hvd_xai.primitives import backward, rescale
from hvd_xai.protocols import Attributed, Baseline, Score
from hvd_xai.tracing import micro_batches


def deep_lift(
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    /,
    *,
    ids: Int64[tf.Tensor, "n"],
    baseline: str | Baseline = "zero",
    score: str | Score = "output",
    micro_batch: int = 256,
) -> Attributed:
    """Shares the score's gain over a baseline among the inputs by the rescale rule.

    It takes one pass forward and one back, where `integrated_gradients` takes one pass for each
    node, and its attributions sum to `F(x) - F(x')` as well. Unlike integrated gradients, they
    depend on how the network computes its function.

        m_{Δx Δt} = Δt / Δx  through each nonlinearity t(x),    the chain rule between them,
        C_{Δx_i} = m_{Δx_i} · Δx_i

    The rules are those of TensorFlow's operations, not of layers, so that it does not matter which
    layer makes an operation. `primitives.rescale` has rules for sums and products of all kinds,
    elementwise functions, softmax, maxima and quotients, and so for convolutions, poolings,
    normalisations, gates and attention.

    Args:
        model: any built Keras model of one input, all of whose operations have rules; the error
            names an operation without one.
        inputs: examples `[n, ...]`; computed in float32.
        targets: what the score selects for each example, such as a class id, `[n]`.
        ids: sample ids, `[n]`, which seed random baselines.
        baseline: inputs to compare with: name of a baseline in `hvd_xai.baselines`, or function of
            the inputs. Not zero where the model first divides by the size of the inputs:
            multipliers are then as large as 1 / epsilon.
        score: scalar to explain: name of a score in `hvd_xai.scores`, or function of outputs and
            targets, made of operations that have rules.
        micro_batch: largest number of inputs and baselines together that go through the model at
            once; it bounds the memory and leaves the attributions as they are.

    Returns:
        Attributions of the shape of the inputs, signed, float32, in the units of the score; in
        `per_sample` `convergence_delta` `[n]`, the sum of an example's attributions minus `F(x) -
        F(x')`, which is rounding unless the model stops gradients on the way.

    Raises:
        ValueError: if there is no rule for an operation between inputs and score, the baseline has
            another shape, or the score does not depend smoothly on the inputs.

    Example:
        >>> method = partial(deep_lift, baseline="mean")
        >>> computed = Compute(model, method)(inputs, targets, ids)
        >>> computed.attributions.shape
        (4, 8, 8, 1)
        >>> bool(np.abs(computed.per_sample["convergence_delta"]).max() < 1e-5)
        True

    Reference:
        A. Shrikumar, P. Greenside, A. Kundaje: Learning Important Features Through Propagating
        Activation Differences. ICML 2017. https://arxiv.org/abs/1704.02685, equations 3, 5 and 12.
        Positive and negative parts are not kept apart (RevealCancel). Beyond the paper are, each
        complete: products, with the other factor half way; maxima; and softmax, by logarithmic
        means (B. W. Ang: The LMDI approach to decomposition analysis. Energy Policy 33, 2005),
        where the paper explains the logits.
    """
    micro_batches.check_micro_batch(micro_batch)

    def attribute(x: tf.Tensor, target: tf.Tensor, sample_id: tf.Tensor) -> Attributed:
        x_start = baselines.held(model, x, baselines.reference(baseline, model, x, sample_id))
        # From here on `x` is a copy: the baseline was made of the inputs themselves, and the walk
        # from `x` to the score must not pass through it.
        x = tf.identity(x)
        at_end, at_start = (
            scores.evaluate(model, points, target, score) for points in (x, x_start)
        )
        path = backward.between(x, at_end)
        multipliers = (
            backward.propagate(x, at_end, path, _rule(model, x, path, at_end, at_start))
            if path
            else None
        )
        if multipliers is None:
            raise ValueError(
                "`deep_lift` needs a score that depends smoothly on the inputs; this one does not."
                " Tokens never do: take `layer_integrated_gradients` at their embedding."
            )
        # C_{Δx_i} = m_{Δx_i} · Δx_i
        attributions = multipliers * (x - x_start)
        summed = tf.reduce_sum(attributions, axis=list(range(1, x.shape.rank)))
        return Attributed(
            attributions,
            {"convergence_delta": summed - (at_end - at_start)},
            attributed_to="inputs",
            signed=True,
        )

    attributed: Attributed = micro_batches.map_blocks(
        attribute, (tf.cast(inputs, tf.float32), targets, ids), max(1, micro_batch // 2)
    )
    return attributed


def _rule(
    model: keras.Model,
    x: tf.Tensor,
    path: list[tf.Operation],
    at_end: tf.Tensor,
    at_start: tf.Tensor,
) -> backward.Rule:
    """Returns the rule for the operations of `path`, which leads from `x` to `at_end`.

    Each operation's twin is the one that stands in the same place on the way to `at_start`.
    """
    other = {at_end.op.name: at_start.op}
    varying = {x.ref(), *(tensor.ref() for operation in path for tensor in operation.outputs)}

    def rule(operation: tf.Operation, gradients: backward.Gradients) -> backward.Gradients:
        twins = rescale.Twins(
            operation,
            other[operation.name],
            [tensor.ref() in varying for tensor in operation.inputs],
        )
        where = f"operation {operation.type!r} at {backward.place(operation, model)!r}"
        if twins.other.type != operation.type:
            raise ValueError(
                f"`deep_lift` needs a model that computes inputs and baseline alike; {where} is in"
                " one of them only"
            )
        share = rescale.find(twins)
        if share is None:
            kinds = ", ".join(
                f"{tensor.dtype.name} {tuple(tensor.shape)}"
                for tensor in operation.inputs
                if tensor.ref() in varying
            )
            raise ValueError(
                f"`deep_lift` has no rule for {where}, of {kinds}. Explain a part of the model that"
                " does without it, or take `integrated_gradients`."
            )
        # The operations that make the inputs of twins are twins too. The walk goes back from the
        # value, so that a twin is known before its operation is reached.
        other.update(
            (mine.op.name, theirs.op)
            for mine, theirs in zip(operation.inputs, twins.other.inputs, strict=True)
        )
        return share(twins, gradients)

    return rule
