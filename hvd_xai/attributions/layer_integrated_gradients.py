"""Integrated gradients at a layer."""

import keras
import tensorflow as tf
from jaxtyping import Float32, Int64, Shaped

from hvd_xai import baselines, scores
from hvd_xai.primitives import cam, layers, quadrature
from hvd_xai.protocols import Attributed, AttributedTo, Baseline, Channels, Score
from hvd_xai.tracing import micro_batches

_NAME = "layer_integrated_gradients"


def layer_integrated_gradients(
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    /,
    *,
    ids: Int64[tf.Tensor, "n"],
    layer: str | None = None,
    n_steps: int = 50,
    rule: str = "midpoint",
    baseline: str | int | Baseline = "zero",
    is_summed: bool = True,
    score: str | Score = "output",
    micro_batch: int = 256,
) -> Attributed:
    """Integrates gradients along the straight path from a baseline to what a layer returns.

    For text, the layer is the embedding of the tokens: whole numbers have no gradient, but their
    embeddings have. The rest of the model sees the inputs themselves, their masks included.

        LIG_j(x) = (A_j(x) - A'_j) * ∫_0^1 ∂F(A' + α (A(x) - A')) / ∂A_j dα

    Args:
        model: any built Keras model of one input; the inputs may be integers.
        inputs: examples `[n, ...]`.
        targets: what the score selects for each example, such as a class id, `[n]`.
        ids: sample ids, `[n]`, which seed random baselines.
        layer: name of a layer, or as much of its path as identifies it, such as
            `encoder/embedding`; by default the model's embedding.
        n_steps: number of points of the path, at least 1.
        rule: quadrature rule, `midpoint` or `gauss_legendre`; neither evaluates the ends of the
            path.
        baseline: start of the paths, in the space of the layer's output: name of a baseline in
            `hvd_xai.baselines`, or function of that output. A whole number stands for what the
            layer returns when all of the model's input is that number: the embedding of one token.
        is_summed: whether to sum the components of each token, or the channels of each place, so
            that a token or a place has one attribution.
        score: scalar to explain: name of a score in `hvd_xai.scores`, or function of outputs and
            targets.
        micro_batch: largest number of (example x point) micro-batch rows that go through the model
            at once; it bounds the memory and leaves the attributions as they are.

    Returns:
        Attributions of the shape of the layer's output without its channels, `[n, tokens]` of an
        embedding, or with them if they are not summed; signed, float32, in the units of the score.
        In `per_sample` `convergence_delta` `[n]`, the sum of an example's attributions minus what
        the score gains from the baseline to the layer's output.

    Raises:
        ValueError: if an option is out of range, the model has no such layer, several match, the
            layer has no output of floats, or the score does not depend on it.

    Example:
        >>> computed = Compute(text_model, layer_integrated_gradients)(tokens, targets, ids)
        >>> computed.attributions.shape
        (4, 6)
        >>> bool(np.all(computed.attributions[tokens == 0] == 0))
        True

    Reference:
        M. Sundararajan, A. Taly, Q. Yan: Axiomatic Attribution for Deep Networks. ICML 2017.
        https://arxiv.org/abs/1703.01365, equation 1, and section 6.3, which explains text by the
        embeddings of words.
    """
    if n_steps < 1:
        raise ValueError(f"`{_NAME}` needs n_steps >= 1; got {n_steps}")
    blocks = micro_batches.cut(*quadrature.resolve(rule)(n_steps), micro_batch)
    n_examples, n_nodes = blocks.n_examples, blocks.nodes.shape[1]

    def attribute(x: tf.Tensor, target: tf.Tensor, sample_id: tf.Tensor) -> Attributed:
        with layers.tap(model) as calls:
            at_end = scores.evaluate(model, x, target, score)
        call = _called(calls, layer, n_rows=n_examples)
        end, axis = tf.cast(call.output, tf.float32), cam.channel_axis(calls, call)
        where: Channels = "first" if 1 == axis < end.shape.rank - 1 else "last"
        begin = (
            tf.cast(_output(model, call, tf.fill(x.shape, baseline)), tf.float32)
            if isinstance(baseline, int)
            else baselines.reference(baseline, model, end, sample_id, where)
        )
        difference = end - begin
        x_of_row, target_of_row = tf.repeat(x, n_nodes, axis=0), tf.repeat(target, n_nodes)

        def weighted_gradient(alpha: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
            of_node = [1, n_nodes, *[1] * (end.shape.rank - 1)]
            path = begin[:, None] + tf.reshape(alpha, of_node) * difference[:, None]
            points = tf.reshape(path, [n_examples * n_nodes, *end.shape[1:]])
            gradient = _gradient_at(model, call, points, x_of_row, target_of_row, score)
            return tf.reduce_sum(
                tf.reshape(weight, of_node) * tf.reshape(gradient, path.shape), axis=1
            )

        # LIG_j = (A_j(x) - A'_j) Σ_s w_s ∂F(A' + α_s (A(x) - A')) / ∂A_j
        attributions = difference * micro_batches.sum_over_chunks(
            weighted_gradient, blocks, tuple(end.shape)
        )
        with layers.put(call, lambda _: begin):
            at_start = scores.evaluate(model, x, target, score)
        summed = tf.reduce_sum(attributions, axis=list(range(1, end.shape.rank)))
        if is_summed:
            attributions = tf.reduce_sum(attributions, axis=axis)
        return Attributed(
            attributions,
            {"convergence_delta": summed - (at_end - at_start)},
            attributed_to=_attributed_to(call, x, attributions),
            signed=True,
        )

    attributed: Attributed = micro_batches.map_blocks(attribute, (inputs, targets, ids), n_examples)
    return attributed


def _called(calls: list[layers.Call], layer: str | None, *, n_rows: int) -> layers.Call:
    """Returns the call of the named layer, or of the only embedding, if it returned `n_rows`."""
    path = _only_embedding(calls) if layer is None else layer
    call = layers.single(calls, path, _NAME)
    output: tf.Tensor = call.output
    if output.shape[0] != n_rows:
        raise ValueError(
            f"`{_NAME}` needs a layer that returns one row an example; layer {call.path!r} gives"
            f" {tuple(output.shape)}"
        )
    return call


def _only_embedding(calls: list[layers.Call]) -> str:
    """Returns the path of the model's only embedding."""
    embeddings = list(
        dict.fromkeys(call.path for call in calls if isinstance(call.layer, keras.layers.Embedding))
    )
    if len(embeddings) != 1:
        found = f"{len(embeddings)}: {', '.join(map(repr, embeddings))}" if embeddings else "none"
        raise ValueError(
            f"`{_NAME}` looks for the model's one keras.layers.Embedding, and finds {found}. Pass"
            " layer= the name of a layer."
        )
    return embeddings[0]


def _attributed_to(call: layers.Call, inputs: tf.Tensor, attributions: tf.Tensor) -> AttributedTo:
    """Returns "inputs" if there is one attribution for each token that was embedded."""
    # Summed over the components of its embedding, an attribution is the token's; not summed, it has
    # an axis more than the tokens.
    is_embedding = isinstance(call.layer, keras.layers.Embedding)
    return "inputs" if is_embedding and attributions.shape[1:] == inputs.shape[1:] else "units"


def _gradient_at(
    model: keras.Model,
    call: layers.Call,
    points: Float32[tf.Tensor, "n ..."],
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    score: str | Score,
) -> Float32[tf.Tensor, "n ..."]:
    """Returns the gradient of each score by a layer's output, at points put in that output's place.

    The rest of the model sees the inputs themselves.
    """
    with (
        tf.GradientTape(watch_accessed_variables=False) as tape,
        layers.put(call, lambda _: points),
    ):
        tape.watch(points)
        total = tf.reduce_sum(scores.evaluate(model, inputs, targets, score))
    gradient = tape.gradient(total, points)
    if gradient is None:
        raise ValueError(
            f"`{_NAME}` needs a layer that the score depends on; it does not depend on layer"
            f" {call.path!r}"
        )
    return gradient


def _output(model: keras.Model, call: layers.Call, inputs: tf.Tensor) -> tf.Tensor:
    """Returns what a layer returns to the same call when the model runs on the inputs."""
    with layers.tap(model) as calls:
        model(inputs, training=False)
    return layers.single(calls, call.name, _NAME).output
