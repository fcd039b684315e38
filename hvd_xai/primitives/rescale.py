"""DeepLIFT's rescale rule for each kind of operation.

A rule says how the change of an operation's output is shared among the changes of its inputs. A
multiplier `m` says what a unit of change of a value contributes to the change of the score. Each
rule gets the multipliers of an operation's outputs and returns those of its inputs, such that
nothing is lost on the way: `Σ m_in · Δin = Σ m_out · Δout`, where `Δ` is the value in the run on
the inputs minus the value in the run on the baseline. Where the two runs are equal, every rule is
the gradient.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import tensorflow as tf

from hvd_xai.primitives.backward import Gradients, derivative


@dataclass(frozen=True, slots=True, eq=False)
class Twins:
    """One operation, as it is in both runs.

    Attributes:
        operation: operation in the run on the inputs.
        other: the same operation in the run on the baseline.
        varies: whether each input of the operation depends on the model's inputs.
    """

    operation: tf.Operation
    other: tf.Operation
    varies: Sequence[bool]


Rule: TypeAlias = Callable[[Twins, Gradients], Gradients]

# An input that changed by less than this part of itself gets the gradient. Float32 has 1.2e-7: a
# quotient of smaller changes is noise.
_SMALL = 1e-5


def find(twins: Twins) -> Rule | None:
    """Returns the rule for an operation; None where there is none.

    There is none for unknown kinds, for kinds of which one input may vary where several do, and
    where whole numbers vary.
    """
    operation = twins.operation
    varying = [
        tensor for tensor, varies in zip(operation.inputs, twins.varies, strict=True) if varies
    ]
    if not all(tensor.dtype.is_floating for tensor in varying):
        return None
    rule = _RULES.get(operation.type)
    if rule is _elementwise and (
        len(varying) > 1 or varying[0].shape != operation.outputs[0].shape
    ):
        return None
    return rule


def _linear(twins: Twins, gradients: Gradients) -> Gradients:
    """Sends the gradient back: an operation that is linear in all inputs has one everywhere."""
    return derivative(twins.operation, gradients)


def _quadratic(twins: Twins, gradients: Gradients) -> Gradients:
    """Sends back the gradient half way between the runs, exact up to degree two.

    `Δ(ab) = (b + b')/2 · Δa + (a + a')/2 · Δb`, for products of any kind.
    """
    operation, other = twins.operation, twins.other
    # With a single factor that varies the product is linear in it, and its gradient is the same
    # everywhere.
    if sum(twins.varies) == 1 and not operation.type.startswith("Square"):
        return derivative(operation, gradients)
    # An input that does not vary is the same in both runs, and stays what it is.
    half_way = [
        (here + there) / 2 if varies else here
        for here, there, varies in zip(operation.inputs, other.inputs, twins.varies, strict=True)
    ]
    dtypes = [output.dtype for output in operation.outputs]
    return derivative(
        operation.graph.create_op(
            operation.type, half_way, dtypes, attrs=dict(operation.node_def.attr)
        ),
        gradients,
    )


def _elementwise(twins: Twins, gradients: Gradients) -> Gradients:
    """Applies Shrikumar et al., equation 12, element by element: `m = Δy / Δx`."""
    operation, other = twins.operation, twins.other
    # `find` has seen to it that a single input varies.
    (place,) = (index for index, varies in enumerate(twins.varies) if varies)
    slope = derivative(operation, [tf.ones_like(operation.outputs[0])])[place]
    change = _float32(operation.outputs[0]) - _float32(other.outputs[0])
    multiplier = _quotient(change, operation.inputs[place], other.inputs[place], slope)
    sent: list[tf.Tensor | None] = [None] * len(operation.inputs)
    sent[place] = gradients[0] * multiplier
    return sent


def _extreme(twins: Twins, gradients: Gradients) -> Gradients:
    """Gives the change of a maximum to the place where it is, and to the place where it was.

    `Δy = (z - y') + (y - z)` with `z = max(y, y')`: the first part goes to where the maximum is,
    the second to where it was. One of the parts is 0, and the place of the other has changed by as
    much or more, so that multipliers lie between 0 and 1. Minima are treated alike.
    """
    operation, other = twins.operation, twins.other
    arrived: tf.Tensor = gradients[0]
    y, y_other = operation.outputs[0], other.outputs[0]
    between = tf.minimum(y, y_other) if operation.type.startswith("Min") else tf.maximum(y, y_other)
    slopes = derivative(operation, [arrived])
    #     y_other ------- between ------- y
    #           is_there          was_there
    # One part of the change goes to where the extreme is now, one to where it was.
    is_there, was_there = (
        derivative(operation, [arrived * (between - y_other)]),
        derivative(other, [arrived * (y - between)]),
    )
    return [
        (
            _quotient(
                _float32(is_there[place]) + _float32(was_there[place]),
                operation.inputs[place],
                other.inputs[place],
                slopes[place],
            )
            if varies
            else None
        )
        for place, varies in enumerate(twins.varies)
    ]


def _quotient_of_two(twins: Twins, gradients: Gradients) -> Gradients:
    """Shares the change of a quotient as that of the product of `a` and `1/b`.

    `Δ(1/b) = -Δb / (b b')`; where 1/0 is taken for 0, `Δ(1/b) = Δb / b²` from there.
    """
    (a, b), (a_other, b_other) = twins.operation.inputs, twins.other.inputs
    reciprocal = (
        tf.math.reciprocal_no_nan if twins.operation.type == "DivNoNan" else tf.math.reciprocal
    )
    r, r_other = reciprocal(b), reciprocal(b_other)
    m: tf.Tensor = gradients[0]
    # The multiplier Δr / Δb of r = 1/b is -r r'. Where b is 0, `reciprocal_no_nan` gives r = 0, and
    # it is (0 - r') / (0 - 1/r') = r'².
    change = tf.where((b == 0) | (b_other == 0), r**2 + r_other**2, -r * r_other)
    a_sent, b_sent = m * (r + r_other) / 2, m * (a + a_other) / 2 * change
    return [_as_shape_of(a_sent, a), _as_shape_of(b_sent, b)]


def _softmax(twins: Twins, gradients: Gradients) -> Gradients:
    """Shares the change of a softmax by logarithmic means.

    With `L_i`, the logarithmic mean of `y_i` and `y'_i`, `Δy_i = L_i · Δlog y_i`, and `Δlog y_i =
    Δx_i - Σ_j L_j Δx_j / Σ_j L_j`. The second holds as the `y_i` sum to 1 in both runs. It is the
    gradient of softmax with `L / ΣL` in place of the probabilities, and for two classes the rescale
    rule of the sigmoid of their difference.
    """
    arrived: tf.Tensor = gradients[0]
    mean = _logarithmic_mean(twins)
    weighted = _float32(arrived) * mean
    sent = weighted - mean / tf.reduce_sum(mean, axis=-1, keepdims=True) * tf.reduce_sum(
        weighted, axis=-1, keepdims=True
    )
    return [tf.cast(sent, arrived.dtype)]


def _log_softmax(twins: Twins, gradients: Gradients) -> Gradients:
    """Shares the change of a log-softmax: `Δlog y_i` as in `_softmax`."""
    arrived: tf.Tensor = gradients[0]
    mean, m = _logarithmic_mean(twins), _float32(arrived)
    sent = m - mean / tf.reduce_sum(mean, axis=-1, keepdims=True) * tf.reduce_sum(
        m, axis=-1, keepdims=True
    )
    return [tf.cast(sent, arrived.dtype)]


def _logarithmic_mean(twins: Twins) -> tf.Tensor:
    """Returns the logarithmic mean of both runs' softmax, `y` where the runs are equal.

    L = (y - y') / (log y - log y')
    """
    logs = [
        tf.nn.log_softmax(_float32(operation.inputs[0]))
        for operation in (twins.operation, twins.other)
    ]
    distance = tf.abs(logs[0] - logs[1])
    # equal minus infinities, as of masks, too
    is_small = (logs[0] == logs[1]) | (distance < _SMALL)
    # (a - b) / (log a - log b) = max(a, b) (1 - exp(-d)) / d, where d = |log a - log b|
    return tf.exp(tf.maximum(*logs)) * tf.where(
        is_small, 1.0, -tf.math.expm1(-distance) / tf.where(is_small, 1.0, distance)
    )


def _nothing(twins: Twins, gradients: Gradients) -> Gradients:
    """Sends no multipliers back, because the model lets no gradient through here either."""
    del gradients
    return [None] * len(twins.operation.inputs)


def _custom(twins: Twins, gradients: Gradients) -> Gradients:
    """Hands on what arrives at a `tf.custom_gradient`.

    That operation passes on results and arguments and puts its gradient there; the operations that
    computed the results have rules of their own.
    """
    n_inputs = len(twins.operation.inputs)
    return [*gradients, *[None] * (n_inputs - len(gradients))]


def _quotient(change: tf.Tensor, here: tf.Tensor, there: tf.Tensor, slope: tf.Tensor) -> tf.Tensor:
    """Returns the change divided by `here - there`, or the slope where that is next to nothing."""
    here, there = _float32(here), _float32(there)
    distance = here - there
    is_small = tf.abs(distance) <= _SMALL * (tf.abs(here) + tf.abs(there))
    return tf.cast(
        tf.where(is_small, _float32(slope), change / tf.where(is_small, 1.0, distance)), slope.dtype
    )


def _float32(tensor: tf.Tensor) -> tf.Tensor:
    return tf.cast(tensor, tf.float32)


def _as_shape_of(sent: tf.Tensor, tensor: tf.Tensor) -> tf.Tensor:
    """Sums over the axes along which `tensor` was broadcast."""
    if sent.shape.is_fully_defined() and sent.shape == tensor.shape:
        return sent
    # What was broadcast was read several times, and gets the sum of what all its copies get.
    axes, _ = tf.raw_ops.BroadcastGradientArgs(s0=tf.shape(tensor), s1=tf.shape(sent))
    return tf.reshape(tf.reduce_sum(sent, axis=axes), tf.shape(tensor))


_KINDS: dict[Rule, str] = {
    _linear: (
        """
        Add AddN AddV2 AvgPool AvgPool3D BatchToSpaceND BiasAdd BroadcastTo Cast CheckNumerics
        ConcatV2 Cumsum DepthToSpace EnsureShape ExpandDims GatherNd GatherV2 Identity
        MatrixBandPart MatrixDiagPartV3 MatrixDiagV3 Mean MirrorPad Neg Pack Pad PadV2 Reshape
        ResizeBicubic ResizeBilinear ResizeNearestNeighbor ReverseSequence ReverseV2 Roll Select
        SelectV2 Slice SpaceToBatchND SpaceToDepth Split SplitV Squeeze StridedSlice Sub Sum Tile
        Transpose Unpack
    """
    ),
    _quadratic: (
        """
        BatchMatMul BatchMatMulV2 BatchMatMulV3 Conv2D Conv2DBackpropInput Conv3D
        Conv3DBackpropInputV2 DepthwiseConv2dNative Einsum MatMul Mul Square SquaredDifference
    """
    ),
    _elementwise: (
        """
        Abs Acos Asin Asinh Atan Atanh ClipByValue Cos Cosh Elu Erf Erfc Exp Expm1 LeakyRelu Log
        Log1p Pow Reciprocal Relu Relu6 Rsqrt Selu Sigmoid Sin Sinh Softplus Softsign Sqrt Tan Tanh
    """
    ),
    _extreme: "Max Maximum MaxPool MaxPool3D Min Minimum",
    _quotient_of_two: "DivNoNan RealDiv",
    _softmax: "Softmax",
    _log_softmax: "LogSoftmax",
    _nothing: "PreventGradient StopGradient",
    _custom: "IdentityN",
}
_RULES = {kind: rule for rule, kinds in _KINDS.items() for kind in kinds.split()}
