"""Turns numbers into RGB pixels by colour scales, without files, text or a drawing library.

All pictures use two colour scales. In the *diverging* scale blue lowers the score, white is zero
and red raises it; it is symmetric about zero, so that equal amounts look equally strong. The
*sequential* scale runs from dark violet to yellow, for attributions without a sign. Values that are
not finite get a flat green that is in neither scale.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float32, Num, Shaped, UInt8

from hvd_xai.probe.window import Window

RGB: TypeAlias = UInt8[np.ndarray, "h w 3"]
Scale: TypeAlias = Literal["none", "diverging", "sequential"]

# The green of Okabe and Ito's palette, which neither scale comes near.
NOT_FINITE = (0, 158, 115)

# RdBu of ColorBrewer, turned round: people who are blind to red and green tell its ends apart.
_DIVERGING = np.array(
    [
        (0x21, 0x66, 0xAC),
        (0x43, 0x93, 0xC3),
        (0x92, 0xC5, 0xDE),
        (0xD1, 0xE5, 0xF0),
        (0xFF, 0xFF, 0xFF),
        (0xFD, 0xDB, 0xC7),
        (0xF4, 0xA5, 0x82),
        (0xD6, 0x60, 0x4D),
        (0xB2, 0x18, 0x2B),
    ],
    np.float32,
)
# Plasma of matplotlib, at eight of its colours.
_SEQUENTIAL = np.array(
    [
        (0x0D, 0x08, 0x87),
        (0x53, 0x02, 0xA3),
        (0x8B, 0x0A, 0xA5),
        (0xB8, 0x32, 0x89),
        (0xDB, 0x5C, 0x68),
        (0xF4, 0x88, 0x49),
        (0xFE, 0xBD, 0x2A),
        (0xF0, 0xF9, 0x21),
    ],
    np.float32,
)
# Weights of red, green and blue in the brightness that people see, by ITU-R BT.601.
_GRAY = np.array((0.299, 0.587, 0.114), np.float32)
# Part of the diverging scale at which values laid over an input begin to have colour.
_FAINTEST = 0.45
_SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True)
class Picture:
    """Holds a picture and the scale by which its colours are read.

    Args:
        image: pixels of the picture.
        scale: colour scale that turned values into colours; `none` for an input.
        limit: value at the end of the scale.
        n_not_finite: number of shown values that are NaN or infinite.
        has_bars: whether values are read from the length of bars instead of from colours.
        window: values of an input that are drawn darkest and brightest; None for attributions.
        clipped: share of an input's values that lie beyond the window, 0 to 1.

    Example:
        >>> Picture(np.zeros((2, 3, 3), np.uint8)).scale
        'none'
    """

    image: RGB
    scale: Scale = "none"
    limit: float = 1.0
    n_not_finite: int = 0
    has_bars: bool = False
    window: Window | None = None
    clipped: float = 0.0


def robust_limit(values: Num[np.ndarray, "..."], percentile: float = 99.0) -> float:
    """Returns the value at which the colour scale of `values` ends; it is never zero.

    It is a percentile of the magnitudes, because a few extreme pixels would otherwise leave all
    other pixels white. If the percentile is zero, as in a map with one bright pixel, it is the
    largest magnitude. If that is zero too, or no value is finite, it is 1.

    Args:
        values: attributions of any shape.
        percentile: percentile of the magnitudes of finite values, 0 to 100.

    Example:
        >>> robust_limit(np.array([0.0, -2.0, np.inf]), 100.0)
        2.0
        >>> robust_limit(np.zeros(3))
        1.0
    """
    magnitudes = np.abs(values[np.isfinite(values)]).astype(np.float64)
    if magnitudes.size == 0:
        return 1.0
    limit = float(np.percentile(magnitudes, percentile))
    if limit < _SMALLEST:
        limit = float(magnitudes.max())
    return limit if limit >= _SMALLEST else 1.0


def diverging(values: Num[np.ndarray, "*shape"], limit: float) -> UInt8[np.ndarray, "*shape 3"]:
    """Colours signed values: blue at `-limit` and below, white at zero, red at `limit` and above.

    Example:
        >>> diverging(np.array([0.0, np.nan]), 1.0).tolist()
        [[255, 255, 255], [0, 158, 115]]
    """
    return _flag_not_finite(_interpolate(_DIVERGING, (unit(values, limit) + 1.0) / 2.0), values)


def sequential(values: Num[np.ndarray, "*shape"], limit: float) -> UInt8[np.ndarray, "*shape 3"]:
    """Colours magnitudes: dark violet at zero, yellow at `limit` and above.

    Example:
        >>> sequential(np.array([0.0, 5.0]), 1.0).tolist()
        [[13, 8, 135], [240, 249, 33]]
    """
    return _flag_not_finite(_interpolate(_SEQUENTIAL, np.abs(unit(values, limit))), values)


def colour(
    values: Num[np.ndarray, "*shape"], limit: float, *, signed: bool
) -> UInt8[np.ndarray, "*shape 3"]:
    """Colours attributions on the diverging scale if they have a sign, else on the sequential one.

    Example:
        >>> colour(np.array([0.0]), 1.0, signed=False).tolist()
        [[13, 8, 135]]
    """
    return diverging(values, limit) if signed else sequential(values, limit)


def is_dark(colours: UInt8[np.ndarray, "*shape 3"]) -> Bool[np.ndarray, "*shape"]:
    """Says on which colours white text reads better than black.

    Example:
        >>> is_dark(np.array([[0, 0, 0], [255, 255, 255]], np.uint8)).tolist()
        [True, False]
    """
    # at a luma of 117 the contrast to white and to black is about 4.5 : 1
    return colours @ _GRAY < 117


def unit(values: Num[np.ndarray, "*shape"], limit: float) -> Float32[np.ndarray, "*shape"]:
    """Scales values to -1..1, where `limit` is 1; a value that is not finite becomes 0.

    Example:
        >>> unit(np.array([1.0, -8.0, np.nan]), 2.0).tolist()
        [0.5, -1.0, 0.0]
    """
    # float64: a value may be so large, and the limit so small, that float32 overflows
    finite = np.where(np.isfinite(values), values, 0).astype(np.float64)
    return np.clip(finite / limit, -1.0, 1.0).astype(np.float32)


def to_bytes(values: Shaped[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Rounds values to bytes 0..255.

    Example:
        >>> to_bytes(np.array([-3.0, 1.6, 300.0])).tolist()
        [0, 2, 255]
    """
    # clipped before the cast, which wraps: 256 would become 0
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def resize(
    values: Num[np.ndarray, "h w"], height: int, width: int
) -> Float32[np.ndarray, "height width"]:
    """Resizes a map bilinearly; a value that is not finite stays in its own neighbourhood.

    Args:
        values: the map.
        height: height of the result, in pixels.
        width: width of the result, in pixels.

    Example:
        >>> resize(np.array([[0.0, 1.0]]), 1, 4).tolist()
        [[0.0, 0.25, 0.75, 1.0]]
    """
    return _resize_axis(_resize_axis(values.astype(np.float32), height, 0), width, 1)


def fit(image: RGB, size: int) -> UInt8[np.ndarray, "h1 w1 3"]:
    """Brings a picture near `size` pixels on its longer side, so that every pixel stays one square.

    It enlarges small pictures by repeating pixels, and reduces large pictures to block means, both
    by whole factors. If the shorter side would be a thread, it is stretched to a quarter of `size`.

    Args:
        image: the picture.
        size: wanted length of the longer side, in pixels.

    Example:
        >>> fit(np.zeros((8, 4, 3), np.uint8), 200).shape
        (200, 100, 3)
    """
    height, width, _ = image.shape
    up, down = max(1, size // max(height, width)), max(1, max(height, width) // size)
    if down > 1:
        # Block means: each axis is cut into blocks of `down` pixels, and the blocks' own axes
        # (1 and 3) are averaged away. Up to `down - 1` pixels at the far edges are dropped.
        #   [h, w, 3] -> [h / rows, rows, w / columns, columns, 3] -> [h / rows, w / columns, 3]
        rows, columns = min(down, height), min(down, width)
        whole = image[: height - height % rows, : width - width % columns].astype(np.float32)
        blocks = whole.reshape(whole.shape[0] // rows, rows, whole.shape[1] // columns, columns, 3)
        image = to_bytes(blocks.mean(axis=(1, 3)))
    # The shorter side of a long strip is stretched to a quarter of the size, so as to be seen.
    times = [
        max(up, -(-size // 4) // length) if length * up < size / 4 else up
        for length in image.shape[:2]
    ]
    return image.repeat(times[0], axis=0).repeat(times[1], axis=1)


def overlay(
    image: RGB, values: Num[np.ndarray, "h1 w1"], limit: float, *, signed: bool = False
) -> RGB:
    """Lays a map over a picture, which turns grey; the larger a value, the more its colour covers.

    Args:
        image: the picture.
        values: the map, which is resized to the picture.
        limit: value at the end of the colour scale.
        signed: whether the map is coloured on the diverging scale.

    Example:
        >>> overlay(np.full((1, 2, 3), 200, np.uint8), np.array([[0.0, 1.0]]), 1.0).shape
        (1, 2, 3)
    """
    resized = resize(values, *image.shape[:2])
    shares = unit(resized, limit)
    strength = np.abs(shares)[..., None]
    if signed:
        # White near zero would be a haze on a dark input, torn wherever the sign changes: even the
        # faintest value has the hue of its sign, and fades by covering less.
        shares = np.sign(shares) * (_FAINTEST + (1 - _FAINTEST) * np.abs(shares))
    opacity = 0.72 * (strength**0.8 if signed else np.sqrt(strength))
    opacity = np.where(np.isfinite(resized)[..., None], opacity, 1.0)
    # no pure black or white, on which faint colour is lost
    grey = 0.15 * 255 + 0.7 * (image.astype(np.float32) @ _GRAY)[..., None]
    colours = _flag_not_finite(colour(shares, 1.0, signed=signed), resized).astype(np.float32)
    return to_bytes(grey * (1 - opacity) + colours * opacity)


def ramp(scale: Scale, width: int, height: int) -> RGB:
    """Draws a colour scale from left to right.

    It goes from `-limit` to `limit` if it is diverging, and from 0 to `limit` if sequential.

    Example:
        >>> ramp("diverging", 3, 1)[0, 1].tolist()
        [255, 255, 255]
    """
    values = np.linspace(-1.0 if scale == "diverging" else 0.0, 1.0, width, dtype=np.float32)
    colours = colour(values, 1.0, signed=scale == "diverging")
    return np.broadcast_to(colours, (height, width, 3)).copy()


def spread_over_grey(values: Float32[np.ndarray, "h w *c"], window: Window) -> RGB:
    """Draws inputs in grey or colour, from black to white over a window; values beyond are clipped.

    Args:
        values: inputs, with channels last if they are drawn in colour.
        window: the value that becomes black, and the one that becomes white.

    Example:
        >>> spread_over_grey(np.array([[0.0, 8.0, 17.0]], np.float32), (0.0, 16.0))[..., 0]
        array([[  0, 128, 255]], dtype=uint8)
    """
    low, high = window
    # float64: a range may be wider than float32 counts
    shares = (values.astype(np.float64) - low) / max(high - low, _SMALLEST)
    image = to_bytes(np.clip(shares, 0.0, 1.0) * 255)
    return np.repeat(image[..., None], 3, axis=-1) if image.ndim == 2 else image


def clipped(values: Num[np.ndarray, "..."], window: Window) -> float:
    """Returns the share of values that lie beyond a window; 0 without values.

    Example:
        >>> clipped(np.array([0.0, 8.0, 16.0, 17.0]), (0.0, 16.0))
        0.25
    """
    beyond = (values < window[0]) | (values > window[1])
    return float(beyond.mean()) if values.size else 0.0


def _interpolate(
    anchors: Float32[np.ndarray, "a 3"], at: Float32[np.ndarray, "*shape"]
) -> Float32[np.ndarray, "*shape 3"]:
    """Returns the colours at positions 0..1 between evenly spread anchors."""
    positions = np.linspace(0.0, 1.0, len(anchors))
    channels = [np.interp(at, positions, anchors[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def _flag_not_finite(
    colours: Num[np.ndarray, "*shape 3"], values: Num[np.ndarray, "*shape"]
) -> UInt8[np.ndarray, "*shape 3"]:
    """Returns the colours, with green where the value is not finite."""
    flag = np.asarray(NOT_FINITE, np.float32)
    return to_bytes(np.where(np.isfinite(values)[..., None], colours, flag))


def _resize_axis(
    values: Float32[np.ndarray, "h w"], length: int, axis: int
) -> Float32[np.ndarray, "h1 w1"]:
    """Resizes one axis linearly.

    Pixel centres are aligned, as in every common image library:

        old pixels   |   0   |   1   |        centre of new pixel i in old coordinates:
        new pixels   | 0 | 1 | 2 | 3 |        (i + 0.5) * old / new - 0.5
    """
    last = values.shape[axis] - 1
    # beyond the outermost centres the outermost value goes on
    centres = np.clip((np.arange(length) + 0.5) * values.shape[axis] / length - 0.5, 0, last)
    below = np.floor(centres).astype(int)
    above = np.minimum(below + 1, last)
    weight = (centres - below).astype(np.float32)
    weight = weight[:, None] if axis == 0 else weight[None, :]
    # infinity times zero: the result is not finite, which is shown as such
    with np.errstate(invalid="ignore"):
        resized: Float32[np.ndarray, "h1 w1"] = (
            values.take(below, axis) * (1 - weight) + values.take(above, axis) * weight
        )
    return resized
