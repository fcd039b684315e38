"""Layer conductance."""

import keras
import tensorflow as tf
from jaxtyping import Float32, Int64, Shaped

from hvd_xai import baselines, scores
from hvd_xai.primitives import backward, layers, quadrature
from hvd_xai.protocols import Attributed, Baseline, Score
from hvd_xai.tracing import micro_batches

_NAME = "layer_conductance"


def layer_conductance(
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    /,
    *,
    ids: Int64[tf.Tensor, "n"],
    layer: str | None = None,
    n_steps: int = 50,
    rule: str = "midpoint",
    baseline: str | Baseline = "zero",
    score: str | Score = "output",
    micro_batch: int = 256,
) -> Attributed:
    """Attributes the score's gain from a baseline to the input to the units of a layer.

    If the inputs reach the score only through the layer, conductance has the same sum as
    `integrated_gradients`, node by node, by the chain rule.

        Cond_j(x) = ∫_0^1 ∂F / ∂A_j · dA_j / dα dα        at x' + α (x - x')

    Here `dA_j / dα = Σ_i (x_i - x'_i) ∂A_j / ∂x_i` is computed forward, so that it costs one more
    pass and not one for each unit.

    Args:
        model: any built Keras model of one input.
        inputs: examples `[n, ...]`; computed in float32.
        targets: what the score selects for each example, such as a class id, `[n]`.
        ids: sample ids, `[n]`, which seed random baselines.
        layer: name of a layer, or as much of its path as identifies it; by default the last layer
            with a spatial output that leads to the score.
        n_steps: number of points of the path, at least 1.
        rule: quadrature rule, `midpoint` or `gauss_legendre`; neither evaluates the ends of the
            path.
        baseline: start of the paths: name of a baseline in `hvd_xai.baselines`, or function of the
            inputs.
        score: scalar to explain: name of a score in `hvd_xai.scores`, or function of outputs and
            targets.
        micro_batch: largest number of (example x point) micro-batch rows that go through the model
            at once; it bounds the memory and leaves the attributions as they are.

    Returns:
        Conductances of the shape of the layer's output, signed, float32, in the units of the score.
        In `per_sample` `convergence_delta` `[n]`, the sum of an example's conductances minus `F(x)
        - F(x')`: large where some of the score flows past the layer.

    Raises:
        ValueError: if an option is out of range, the baseline has another shape, the model has no
            such layer, several match, the layer has no output of floats, the score or the layer has
            no gradient there, or an operation before the layer, such as resizing, has no second
            gradient.

    Example:
        >>> method = partial(layer_conductance, layer="last_conv")
        >>> computed = Compute(model, method)(inputs, targets, ids)
        >>> computed.attributions.shape
        (4, 2, 2, 6)
        >>> bool(np.abs(computed.per_sample["convergence_delta"]).max() < 0.01)
        True

    Reference:
        K. Dhamdhere, M. Sundararajan, Q. Yan: How Important Is a Neuron? ICLR 2019.
        https://arxiv.org/abs/1805.12233, equation 2.
    """
    if n_steps < 1:
        raise ValueError(f"`{_NAME}` needs n_steps >= 1; got {n_steps}")
    blocks = micro_batches.cut(*quadrature.resolve(rule)(n_steps), micro_batch)
    n_examples, n_nodes = blocks.n_examples, blocks.nodes.shape[1]

    def attribute(x: tf.Tensor, target: tf.Tensor, sample_id: tf.Tensor) -> Attributed:
        x_start = baselines.held(model, x, baselines.reference(baseline, model, x, sample_id))
        difference = x - x_start
        # The first run finds the layer's shape, and the scores at both ends of the path.
        with layers.tap(model) as calls:
            both = scores.evaluate(model, tf.concat([x, x_start], 0), tf.tile(target, [2]), score)
        call = _called(calls, layer, both)
        change_of_row, target_of_row = (
            tf.repeat(difference, n_nodes, axis=0),
            tf.repeat(target, n_nodes),
        )
        output: tf.Tensor = call.output
        shape = output.shape[1:]

        def weighted_flow(alpha: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
            of_node = [1, n_nodes, *[1] * (x.shape.rank - 1)]
            path = x_start[:, None] + tf.reshape(alpha, of_node) * difference[:, None]
            points = tf.reshape(path, change_of_row.shape)
            flow = _flow(model, call, points, change_of_row, target_of_row, score)
            return tf.reduce_sum(
                tf.reshape(weight, [1, n_nodes, *[1] * len(shape)])
                * tf.reshape(flow, [n_examples, n_nodes, *shape]),
                axis=1,
            )

        conductance = micro_batches.sum_over_chunks(weighted_flow, blocks, (n_examples, *shape))
        at_end, at_start = tf.split(both, 2)
        summed = tf.reduce_sum(conductance, axis=list(range(1, conductance.shape.rank)))
        return Attributed(
            conductance,
            {"convergence_delta": summed - (at_end - at_start)},
            attributed_to="units",
            signed=True,
        )

    attributed: Attributed = micro_batches.map_blocks(
        attribute, (tf.cast(inputs, tf.float32), targets, ids), n_examples
    )
    return attributed


def _called(calls: list[layers.Call], layer: str | None, values: tf.Tensor) -> layers.Call:
    """Returns the call of the named layer, or of the last one with places that leads to the scores.

    The layer returns a row for each of the scores.
    """
    if layer is None:
        call = layers.spatial(
            calls,
            None,
            _NAME,
            leading=layers.leading_to(calls, values),
            otherwise=". Pass layer= one of these.",
        )
    else:
        call = layers.single(calls, layer, _NAME)
    output: tf.Tensor = call.output
    if output.shape[0] != values.shape[0]:
        raise ValueError(
            f"`{_NAME}` needs a layer that returns one row an example; layer {call.path!r} does not"
        )
    return call


def _flow(
    model: keras.Model,
    call: layers.Call,
    points: Float32[tf.Tensor, "n ..."],
    change: Float32[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    score: str | Score,
) -> Float32[tf.Tensor, "n ..."]:
    """Returns how the score flows through each unit of a layer when points change in a direction.

    ∂F / ∂A_j · dA_j / dα
    """
    with (
        tf.GradientTape(watch_accessed_variables=False) as tape,
        layers.tap(model, tape.watch, call.name) as calls,
    ):
        total = tf.reduce_sum(scores.evaluate(model, points, targets, score))
    output = layers.single(calls, call.name, _NAME).output
    gradient = tape.gradient(total, output)
    if gradient is None:
        raise ValueError(
            f"`{_NAME}` needs a layer that the score depends on; it does not depend on"
            f" layer {call.path!r}"
        )
    return tf.cast(gradient, tf.float32) * tf.cast(
        _forward(model, output, points, change, call.path), tf.float32
    )


def _forward(
    model: keras.Model, output: tf.Tensor, points: tf.Tensor, change: tf.Tensor, path: str
) -> tf.Tensor:
    """Returns how `output` changes when `points` change in a direction.

    The gradient of the points is linear in that of the output, so its own derivative is the way
    forward. TensorFlow's forward mode stops at recurrent layers; this does not.
    """
    ones = tf.ones_like(output)
    (back,) = tf.gradients(output, points, ones)
    if back is None:
        raise ValueError(
            f"`{_NAME}` needs a layer that depends smoothly on the inputs; layer {path!r} does not."
            " At the embedding of integer inputs, take `layer_integrated_gradients`."
        )
    for operation in backward.between(ones, back):
        if not backward.has_gradient(operation):
            raise ValueError(
                f"`{_NAME}` needs second gradients between the inputs and layer {path!r}, and"
                f" TensorFlow has none of operation {operation.type!r} at"
                f" {backward.place(operation, model)!r}. Take `layer_integrated_gradients` for such"
                " a layer."
            )
    return tf.gradients(back, ones, change)[0]
