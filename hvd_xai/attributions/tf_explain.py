"""The explainers of tf-explain 0.3.1, run as methods of ours.

Its functions that compute are called as they are; its `explain()`, which returns one grid of
pictures, is not. For a model they are given a stand-in that returns each row's own score. Of its
defects, these are repaired so:

- Attributions are absolute values, summed over channels, standardised, and cast to uint8, in which
  large ones wrap round: they are taken before that, signed, in float32.
- One class for all examples, and a graph for each class: to the stand-in every example's own target
  is class 0.
- The model runs in whatever mode Keras thinks it is in: the stand-in runs it in inference mode.
- Gradients are those of the last layer, or of the one before it if that is an activation of a
  functional model; bfloat16 fails: what is explained is the score, float32, of any model.
- All rows of all examples go through the model at once: here those of a micro-batch do.
- `IntegratedGradients` forgets to multiply by input minus baseline, and has no other baseline than
  zero: it is multiplied, and the path is made of any two ends. The path includes both ends, where
  networks of rectifiers without biases have no gradient: it is given the middle part of the path,
  at whose equal steps lie the nodes of the midpoint rule.
- `SmoothGrad` draws noise from NumPy's global stream: it is given copies whose noise comes from
  `(seed, sample id)`. It differentiates the cross-entropy of probabilities: the stand-in returns
  two probabilities whose cross-entropy changes as the score does.
- `GradCAM` rebuilds the model, which fails on Sequential, nested and subclassed ones, finds no
  default layer under Keras 3, knows images only, and leaves out the final ReLU: it is given
  activations and gradient that were caught while the model ran, the places in one row, and the ReLU
  is applied. Guided gradients, which are not in the paper, are off unless asked for.
- `OcclusionSensitivity` predicts image by image in NumPy, its patches are of value 127.5 whatever
  the inputs' range, they lie wrong on images that are not square, it reports `1 - F` whatever F is
  without a patch, and blurs the map: it is shown, while tracing, a square of one pixel a patch,
  which says what it hides for which place of the map; these patches are cut to the image, show the
  baseline, and each place tells by how much the score falls.

Left, as they cannot be mended from outside:

- All points of an example's path, and all its noisy copies, go through the model at once, be they
  more than a micro-batch.
- `OcclusionSensitivity` makes all its patched squares at once, though of a byte a patch: 10 MB for
  56 x 56 patches.
- `ExtractActivations` shows what layers return, and attributes nothing to anything: it is refused.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float64, Int64, Shaped

from hvd_xai import baselines, scores
from hvd_xai.primitives import cam, coalitions, gradients, noisy_copies
from hvd_xai.primitives.axes import inputs_or_places
from hvd_xai.protocols import Attributed, Baseline, Channels, Score
from hvd_xai.tracing import micro_batches
from hvd_xai.tracing.channels import channel_axis, settle_channels

try:
    from tf_explain import core
except ImportError as error:
    raise ImportError(
        "`tf_explain` needs tf-explain and OpenCV; install them with: pip install"
        " 'hvd_xai[tf_explain]'"
    ) from error


def tf_explain(
    model: keras.Model,
    inputs: Shaped[tf.Tensor, "n ..."],
    targets: Shaped[tf.Tensor, "n"],
    /,
    *,
    ids: Int64[tf.Tensor, "n"],
    explainer: str = "IntegratedGradients",
    n_steps: int = 10,
    n_samples: int = 5,
    noise: float = 1.0,
    patch_size: int = 4,
    layer: str | None = None,
    use_guided_grads: bool = False,
    baseline: str | Baseline = "zero",
    channels: Channels | None = None,
    seed: int = 0,
    score: str | Score = "output",
    micro_batch: int = 256,
) -> Attributed:
    """Runs an explainer of tf-explain, with those of its defects mended that can be.

    For comparison with what was computed with that library. All explainers but one are here under
    other names, which do the same with less memory: `saliency`, `gradient_x_input`,
    `integrated_gradients`, `smoothgrad` and `grad_cam`. The top of this module says which defects
    are mended and which are not.

    Args:
        model: any built Keras model of one input.
        inputs: examples `[n, ...]`, computed in float32; `OcclusionSensitivity` takes images, `[n,
            h, w]`, `[n, h, w, c]` or `[n, c, h, w]`.
        targets: what the score selects for each example, such as a class id, `[n]`.
        ids: sample ids, `[n]`, which seed the noise of `SmoothGrad` and random baselines.
        explainer: name of the explainer: `VanillaGradients`, `GradientsInputs`,
            `IntegratedGradients`, `SmoothGrad`, `GradCAM` or `OcclusionSensitivity`. Options of the
            other explainers are not used.
        n_steps: number of points of the path of `IntegratedGradients`, at least 2. 10 is
            tf-explain's own choice, 50 leaves a tenth of the gap.
        n_samples: number of noisy copies of an example for `SmoothGrad`, at least 1.
        noise: standard deviation of the noise of `SmoothGrad`, in units of the inputs.
        patch_size: side of a patch of `OcclusionSensitivity` in pixels, at least 1; patches do not
            overlap, and are cut at the border.
        layer: name of the layer of `GradCAM`, or as much of its path as identifies it; by default
            the last layer with a spatial output.
        use_guided_grads: whether `GradCAM` drops gradients that are negative or where the
            activation is not positive.
        baseline: start of the paths of `IntegratedGradients`, and values of the patches of
            `OcclusionSensitivity`: name of a baseline in `hvd_xai.baselines`, or function of the
            inputs.
        channels: where the inputs of `OcclusionSensitivity` have their channels, `last` or `first`;
            by default, where the model has them. `[n, h, w]` have none.
        seed: seed of the noise of `SmoothGrad`.
        score: scalar to explain: name of a score in `hvd_xai.scores`, or function of outputs and
            targets.
        micro_batch: largest number of micro-batch rows that go through the model at once, but at
            least those of one example's path or copies; it bounds the memory and leaves the
            attributions as they are.

    Returns:
        Attributions of the shape of the inputs, signed, float32, in the units of the score; for
        `IntegratedGradients`, in `per_sample` `convergence_delta` `[n]`, the sum of an example's
        attributions minus `F(x) - F(x')`. For `GradCAM`, maps `[n, h, w]` at the layer's own
        resolution (`[n, t]` of a series, `[n, d, h, w]` of a volume), never negative. For
        `OcclusionSensitivity`, maps of one value for each patch: how much the patch lowers the
        score.

    Raises:
        ValueError: if there is no such explainer, an option is out of range, or what the explainer
            asks of inputs, baseline, layer or score is not given.

    Example:
        >>> method = partial(tf_explain, explainer="GradCAM")
        >>> computed = Compute(model, method)(inputs, targets, ids)
        >>> computed.attributions.shape
        (4, 2, 2)
        >>> bool(np.all(computed.attributions >= 0))
        True

    Reference:
        https://github.com/sicara/tf-explain, version 0.3.1, where the papers are named.
    """
    start = baselines.resolve(baseline)
    where: Channels = "none"
    if explainer == "OcclusionSensitivity" and inputs.shape.rank == 4:
        where = settle_channels(model, tuple(inputs.shape[1:]), channels, asker="tf_explain")
    explainers: dict[str, Callable[[_Asked], tf.Tensor | Attributed]] = {
        "VanillaGradients": partial(_gradients, core.VanillaGradients.compute_gradients),
        "GradientsInputs": partial(_gradients, core.GradientsInputs.compute_gradients),
        "IntegratedGradients": partial(_integrated_gradients, n_steps=n_steps, start=start),
        "SmoothGrad": partial(_smooth_grad, n_samples=n_samples, noise=noise, seed=seed),
        "GradCAM": partial(_grad_cam, layer=layer, use_guided_grads=use_guided_grads),
        "OcclusionSensitivity": partial(
            _occlusion_sensitivity,
            patch_size=patch_size,
            start=start,
            where=where,
            micro_batch=micro_batch,
        ),
    }
    _check_explainer(explainer, list(explainers), inputs)
    if n_steps < 2 or n_samples < 1 or not noise >= 0 or patch_size < 1:
        raise ValueError(
            "`tf_explain` needs n_steps >= 2, n_samples >= 1, noise >= 0 and patch_size >= 1; got"
            f" {n_steps}, {n_samples}, {noise} and {patch_size}"
        )
    micro_batches.check_micro_batch(micro_batch)

    def attribute(x: tf.Tensor, target: tf.Tensor, sample_id: tf.Tensor) -> tf.Tensor | Attributed:
        return _ask(explainers[explainer], _Asked(model, x, target, sample_id, score))

    n_rows = {
        "IntegratedGradients": n_steps,
        "SmoothGrad": n_samples,
        "OcclusionSensitivity": math.prod(_n_patches(inputs, patch_size, where)),
    }.get(explainer, 1)
    returned = micro_batches.map_blocks(
        attribute, (tf.cast(inputs, tf.float32), targets, ids), max(1, micro_batch // n_rows)
    )
    attributed = returned if isinstance(returned, Attributed) else Attributed(returned)
    return dataclasses.replace(
        attributed,
        attributed_to="places"
        if explainer == "GradCAM"
        else inputs_or_places(attributed.attributions, inputs),
        signed=explainer != "GradCAM",
    )


def _check_explainer(explainer: str, known: list[str], inputs: tf.Tensor) -> None:
    """Raises `ValueError` unless the explainer attributes something, and to such inputs."""
    if explainer not in known:
        what = (
            "shows activations and attributes nothing"
            if explainer == "ExtractActivations"
            else "is none of tf-explain's"
        )
        raise ValueError(
            f"`tf_explain`: explainer {explainer!r} {what}; pass explainer= one of"
            f" {', '.join(map(repr, known))}"
        )
    if explainer == "OcclusionSensitivity" and inputs.shape.rank not in {3, 4}:
        raise ValueError(
            "`tf_explain`: OcclusionSensitivity needs images, (n, h, w) or with channels; got"
            f" {tuple(inputs.shape)}"
        )


class _Asked(NamedTuple):
    """The question to an explainer: a block of examples of known size."""

    model: keras.Model
    x: tf.Tensor
    target: tf.Tensor
    sample_id: tf.Tensor
    score: str | Score


def _ask(
    explainer: Callable[[_Asked], tf.Tensor | Attributed], asked: _Asked
) -> tf.Tensor | Attributed:
    """Returns what an explainer answers; raises `ValueError` if the score has no gradient."""
    try:
        return explainer(asked)
    except (AttributeError, TypeError, ValueError):
        # tf-explain stumbles over a score without a gradient; this says so. If it is not that, what
        # was raised goes on.
        gradients.differentiate(asked.model, asked.x, asked.target, asked.score)
        raise


class _StandIn:
    """Stands in for a model in front of tf-explain's explainers.

    Args:
        function: function that returns the outputs `[rows, n_outputs]` of micro-batch rows.
        n_outputs: number of outputs, which `SmoothGrad` reads from the shape of the model's output.
    """

    def __init__(self, function: Callable[[tf.Tensor], tf.Tensor], n_outputs: int) -> None:
        self.output = tf.TensorSpec([None, n_outputs])
        self._function = function

    # The explainers are tf.functions: AutoGraph would go on to rewrite the model's code, and its
    # errors.
    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]  # TensorFlow ships no types
    def __call__(self, points: tf.Tensor) -> tf.Tensor:
        return self._function(points)


def _scores(asked: _Asked, n_copies: int = 1) -> _StandIn:
    """Returns the stand-in whose one output is the score.

    Its micro-batch rows are `n_copies` of each example.
    """
    target = tf.repeat(asked.target, n_copies)
    return _StandIn(
        lambda points: scores.evaluate(asked.model, points, target, asked.score)[:, None], 1
    )


def _cross_entropies(asked: _Asked, n_copies: int) -> _StandIn:
    """Returns the stand-in of two probabilities whose cross-entropy has the score's gradient.

    Both are 1/2. Where p = 1/2 - (F - F')/2, and F' is the value of F taken as a constant, the
    gradient of -log p is the gradient of F.
    """
    target = tf.repeat(asked.target, n_copies)

    def probabilities(points: tf.Tensor) -> tf.Tensor:
        values = scores.evaluate(asked.model, points, target, asked.score)
        # F - F' is 0 in value and has the gradient of F.
        change = (values - tf.stop_gradient(values)) / 2
        return tf.stack([0.5 - change, 0.5 + change], axis=1)

    return _StandIn(probabilities, 2)


def _gradients(compute_gradients: Callable[..., tf.Tensor | None], asked: _Asked) -> tf.Tensor:
    return tf.convert_to_tensor(compute_gradients(asked.x, _scores(asked), 0))


def _integrated_gradients(asked: _Asked, *, n_steps: int, start: Baseline) -> Attributed:
    x, x_start = (
        asked.x,
        baselines.held(
            asked.model, asked.x, baselines.reference(start, asked.model, asked.x, asked.sample_id)
        ),
    )
    # A path of equal steps that includes its ends, from half a step in to half a step before the
    # end, has the nodes of the midpoint rule.
    half_a_step = (x - x_start) / (2 * n_steps)
    path = core.IntegratedGradients.generate_linear_path(
        x_start + half_a_step, x - half_a_step, n_steps
    )
    points = _one_row_each(tf.stack(path, axis=1))
    mean = core.IntegratedGradients.get_integrated_gradients(
        points, _scores(asked, n_steps), 0, n_steps
    )
    attributions = (x - x_start) * mean
    delta = gradients.convergence_delta(
        asked.model, attributions, x, x_start, asked.target, asked.score
    )
    return Attributed(attributions, {"convergence_delta": delta})


def _smooth_grad(asked: _Asked, *, n_samples: int, noise: float, seed: int) -> tf.Tensor:
    x = asked.x[:, None]
    copies = baselines.held(
        asked.model,
        x,
        x + noise * noisy_copies.normal([n_samples, *asked.x.shape[1:]], seed, asked.sample_id),
    )
    return core.SmoothGrad.get_averaged_gradients(
        _one_row_each(copies), _cross_entropies(asked, n_samples), 0, n_samples
    )


def _grad_cam(asked: _Asked, *, layer: str | None, use_guided_grads: bool) -> tf.Tensor:
    activations, gradient = cam.activations_and_gradient(
        asked.model, asked.x, asked.target, asked.score, layer, asker="tf_explain"
    )
    # As `get_gradients_and_filters` of tf-explain does, once it has rebuilt the model.
    if use_guided_grads:
        gradient = tf.where((activations > 0) & (gradient > 0), gradient, 0.0)
    n_examples, *places, n_channels = activations.shape
    in_a_row = [
        tf.reshape(values, [n_examples, -1, 1, n_channels]) for values in (activations, gradient)
    ]
    maps = tf.vectorized_map(lambda example: core.GradCAM.ponderate_output(*example), in_a_row)
    return tf.nn.relu(tf.reshape(maps, [n_examples, *places]))


def _occlusion_sensitivity(
    asked: _Asked, *, patch_size: int, start: Baseline, where: Channels, micro_batch: int
) -> tf.Tensor:
    x, n_examples = asked.x, asked.x.shape[0]
    x_start = baselines.reference(start, asked.model, x, asked.sample_id, where)
    height, width = coalitions.places(tuple(x.shape[1:]), where)
    n_down, n_across = _n_patches(x, patch_size, where)
    n_patches = n_down * n_across
    hidden = tf.constant(
        _hidden(max(n_down, n_across))[:n_down, :n_across, :n_down, :n_across].reshape(
            n_patches, n_down, n_across
        )
    )
    score_of_all = scores.evaluate(asked.model, x, asked.target, asked.score)

    def fall(row: tf.Tensor) -> tf.Tensor:
        example, patch = row // n_patches, row % n_patches
        is_hidden = tf.repeat(
            tf.repeat(tf.gather(hidden, patch), patch_size, axis=1), patch_size, axis=2
        )[:, :height, :width]
        axis = channel_axis(where, x.shape.rank)
        is_hidden = is_hidden if axis is None else tf.expand_dims(is_hidden, axis)
        patched = tf.where(is_hidden, tf.gather(x_start, example), tf.gather(x, example))
        score_of_rest = scores.evaluate(
            asked.model, patched, tf.gather(asked.target, example), asked.score
        )
        return tf.gather(score_of_all, example) - score_of_rest

    n_rows = n_examples * n_patches
    n_at_once = micro_batches.size_of_parts(n_rows, micro_batch)
    return tf.reshape(
        micro_batches.map_blocks(fall, (tf.range(n_rows),), n_at_once),
        [n_examples, n_down, n_across],
    )


class _Numbers:
    """Stands in for a model in front of `OcclusionSensitivity`.

    For the k-th picture it has k written to the map, as `1 - prediction`.
    """

    pictures: np.ndarray

    def predict(self, pictures: np.ndarray, batch_size: int | None) -> Float64[np.ndarray, "k 1"]:
        """Keeps the pictures, and numbers them."""
        del batch_size
        self.pictures = pictures
        return 1.0 - np.arange(len(pictures))[:, None]


def _hidden(side: int) -> Bool[np.ndarray, "side side side side"]:
    """Returns for each place of the map of `OcclusionSensitivity` which pixels it hides.

    The image is a square, with patches of one pixel.
    """
    numbers = _Numbers()
    written = core.OcclusionSensitivity().get_sensitivity_map(
        numbers, np.zeros([side, side, 1], np.uint8), 0, patch_size=1
    )
    is_hidden: np.ndarray = numbers.pictures[written.astype(int), ..., 0] != 0
    return is_hidden


def _n_patches(inputs: tf.Tensor, patch_size: int, channels: Channels) -> list[int]:
    """Returns how many patches it takes to cover the first two axes of places of an example."""
    size = coalitions.places(tuple(inputs.shape[1:]), channels)[:2]
    return [-(-length // patch_size) for length in size]


def _one_row_each(copies: tf.Tensor) -> tf.Tensor:
    """Puts copies of examples, `[n, copies, ...]`, below each other, `[n * copies, ...]`."""
    n_examples, n_copies, *shape = copies.shape
    return tf.reshape(copies, [n_examples * n_copies, *shape])
