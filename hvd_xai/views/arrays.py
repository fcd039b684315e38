"""Draws arrays of any shape: inputs, attributions by themselves, and maps over inputs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32, Num

from hvd_xai.probe.window import Window, window_of
from hvd_xai.protocols import Channels
from hvd_xai.views import bars, pixels
from hvd_xai.views.samples import Panel, Sample

Draw: TypeAlias = Callable[[Panel, Sample, int, float | None], pixels.Picture]


@dataclass(frozen=True, slots=True)
class Plain:
    """Arranges one sample as its input and one picture for each panel, in no common order.

    Args:
        sample: sample to draw.
        size: approximate length of the longer side of one picture, in pixels.
        draw: function that draws one panel; it takes the panel, the sample, the size, and the value
            at the end of the scale.

    Example:
        >>> panel = Panel("saliency", 0, np.ones((8, 8, 1), np.float32), 3, 0.9)
        >>> plain = Plain(Sample(17, 3, 3, (panel,), np.ones((8, 8, 1))), 200, draw_alone)
        >>> plain.caption, plain.picture(panel).image.shape
        ('input', (200, 200, 3))
    """

    sample: Sample
    size: int
    draw: Draw

    @property
    def caption(self) -> str:
        """Word above the picture of the input; empty if there is no picture."""
        return "" if self.sample.inputs is None else "input"

    @property
    def input_width(self) -> int:
        """Largest width of the picture of the input, in pixels."""
        return self.size

    @property
    def width(self) -> int:
        """Approximate width of a picture of attributions, in pixels."""
        return self.size

    @property
    def is_wide(self) -> bool:
        """Whether each method needs a line of its own."""
        return False

    def input_picture(self) -> pixels.Picture | None:
        """Draws the input; None if it is not known."""
        inputs, facts = self.sample.inputs, self.sample.known
        if inputs is None:
            return None
        return picture(inputs, self.size, self.sample.window, channels=facts.channels)

    def picture(self, panel: Panel, limit: float | None = None) -> pixels.Picture:
        """Draws one panel's attributions.

        Args:
            panel: one of the sample's panels.
            limit: value at the end of the scale; the panel's own if left out.
        """
        return self.draw(panel, self.sample, self.size, limit)


def picture(
    inputs: Num[np.ndarray, "..."],
    size: int,
    window: Window | None = None,
    *,
    channels: Channels | None = None,
) -> pixels.Picture:
    """Draws one sample's inputs: grey for one channel, colour for three, bars for a vector.

    Args:
        inputs: one sample, `[n]`, `[h, w]`, `[h, w, c]`, `[c, h, w]` of 1, 3 or 4 channels, or with
            further axes in front, of which the mean is shown.
        size: approximate length of the longer side of the picture, in pixels.
        window: values that are drawn darkest and brightest, or, of bars, whose larger magnitude the
            longest bar has; the inputs' own if None.
        channels: where the inputs have their channels; None to tell by their shape.

    Example:
        >>> picture(np.zeros((8, 8, 3), np.uint8), 80).image.shape
        (80, 80, 3)
    """
    window = window_of(inputs) if window is None else window
    if inputs.ndim < 2:
        values = inputs.reshape(-1).astype(np.float32)
        limit = max(map(abs, window))
        image = bars.upright(values, limit, size, "none")
        clipped = pixels.clipped(values, (-limit, limit))
        return pixels.Picture(image, limit=limit, has_bars=True, window=window, clipped=clipped)
    values = move_channels_last(np.asarray(inputs, np.float32), channels)
    if values.ndim > 3:
        values = values.mean(axis=tuple(range(values.ndim - 3)))
    if values.ndim == 3:
        values = values[..., :3] if values.shape[-1] in {3, 4} else values.mean(axis=-1)
    image = pixels.fit(pixels.spread_over_grey(values, window), size)
    return pixels.Picture(image, window=window, clipped=pixels.clipped(values, window))


def draw_alone(
    panel: Panel, sample: Sample, size: int, limit: float | None = None
) -> pixels.Picture:
    """Draws attributions by themselves: a vector as bars, others as a map, summed over channels.

    If it is not known whether the attributions have a sign, bars and attributions of the inputs'
    own shape count as signed, and any others count as signed if a value is negative.

    Args:
        panel: explanation whose attributions are drawn.
        sample: sample that is explained.
        size: approximate length of the longer side of the picture, in pixels.
        limit: value at the end of the scale; if None, the largest magnitude for bars, and
            `pixels.robust_limit` for a map.

    Example:
        >>> panel = Panel("saliency", 0, np.ones(3, np.float32), 1, 0.9)
        >>> draw_alone(panel, Sample(17, 1, 1, (panel,)), 60).has_bars
        True
    """
    attributions, inputs = panel.attributions, sample.inputs
    is_own = inputs is None or attributions.shape == inputs.shape
    values = flatten(
        move_channels_last(attributions, sample.known.channels) if is_own else attributions,
        channels=inputs is None or attributions.ndim == inputs.ndim,
    )
    n_bad = int(attributions.size - np.isfinite(attributions).sum())
    signed = panel.is_signed
    if values.ndim == 1:
        errors = None if panel.standard_errors is None else panel.standard_errors.reshape(-1)
        limit = bars.limit_of(values, errors) if limit is None else limit
        scale: pixels.Scale = "sequential" if signed is False else "diverging"
        image = bars.upright(values, limit, size, scale, errors)
        return pixels.Picture(image, scale, limit, n_bad, has_bars=True)
    if signed is None:
        signed = (inputs is not None and is_own) or bool((values < 0).any())
    limit = pixels.robust_limit(values) if limit is None else limit
    image = pixels.fit(pixels.colour(values, limit, signed=signed), size)
    return pixels.Picture(image, "diverging" if signed else "sequential", limit, n_bad)


def draw_over_input(
    panel: Panel, sample: Sample, size: int, limit: float | None = None
) -> pixels.Picture:
    """Draws attributions of places, such as a CAM's, resized and laid over the sample's input.

    If it is not known whether the attributions have a sign, they count as signed if a value is
    negative.

    Args:
        panel: explanation whose attributions are drawn.
        sample: sample that is explained; its inputs are known and have two axes or more.
        size: approximate length of the longer side of the picture, in pixels.
        limit: value at the end of the scale; `pixels.robust_limit` if None.

    Raises:
        ValueError: if the sample's inputs are not known.

    Example:
        >>> panel = Panel("grad_cam", 0, np.ones((3, 3), np.float32), 1, 0.9)
        >>> sample = Sample(17, 1, 1, (panel,), np.ones((8, 8, 1)))
        >>> draw_over_input(panel, sample, 80).image.shape
        (80, 80, 3)
    """
    if sample.inputs is None:
        raise ValueError(f"the inputs of sample {sample.sample_id} are not known")
    attributions = panel.attributions
    values = flatten(attributions, channels=attributions.ndim == sample.inputs.ndim)
    n_bad = int(attributions.size - np.isfinite(attributions).sum())
    signed = bool((values < 0).any()) if panel.is_signed is None else panel.is_signed
    limit = pixels.robust_limit(values) if limit is None else limit
    under = picture(sample.inputs, size, sample.window, channels=sample.known.channels).image
    # the steps of a series run downwards, as they do in the picture of its input
    places = values[:, None] if values.ndim == 1 else values
    image = pixels.overlay(under, places, limit, signed=signed)
    return pixels.Picture(image, "diverging" if signed else "sequential", limit, n_bad)


def flatten(attributions: Num[np.ndarray, "..."], *, channels: bool) -> Float32[np.ndarray, "..."]:
    """Sums one sample's attributions to a map `[h, w]` or a vector `[n]`, whose sum is the same.

    Args:
        attributions: one sample's attributions.
        channels: whether the last of three or more axes holds channels; if so, it is summed, as
            every axis in front of height and width is.

    Example:
        >>> flatten(np.ones((2, 2, 3)), channels=True).tolist()
        [[3.0, 3.0], [3.0, 3.0]]
    """
    values = np.asarray(attributions, np.float32)
    # infinity minus infinity is NaN, which is shown as such
    with np.errstate(invalid="ignore", over="ignore"):
        if values.ndim >= 3 and channels:
            values = values.sum(axis=-1)
        if values.ndim > 2:
            values = values.sum(axis=tuple(range(values.ndim - 2)))
    return values.reshape(-1) if values.ndim < 2 else values


def move_channels_last(
    values: Num[np.ndarray, "..."], channels: Channels | None = None
) -> Num[np.ndarray, "..."]:
    """Moves the channels of an image to the last axis if they come first.

    Args:
        values: one sample's values.
        channels: where they have their channels. If None, as in old runs, the shape shows it: a
            first axis of length 1, 3 or 4 that is shorter than the others holds the channels.

    Example:
        >>> move_channels_last(np.zeros((3, 20, 24))).shape
        (20, 24, 3)
    """
    is_first = channels == "first" or (
        channels is None
        and values.ndim == 3
        and values.shape[0] in {1, 3, 4}
        and values.shape[0] < min(values.shape[1:])
    )
    return np.moveaxis(values, 0, -1) if is_first else values
