"""Attributions and inputs as pictures: arrays in, RGB arrays out.

No files, no text, no drawing library.

Two colour scales are used throughout. *Diverging*: blue lowers the score, white is zero, red raises
it; symmetric about zero, so that equal amounts look equally strong. *Sequential*: dark violet to
yellow, for maps that have no sign. Values that are not finite get one flat green that is in neither
scale.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float32, Int, Num, Shaped, UInt8

RGB: TypeAlias = UInt8[np.ndarray, "h w 3"]
Scale: TypeAlias = Literal["none", "diverging", "sequential"]

NOT_FINITE = (0, 158, 115)

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
_GRAY = np.array((0.299, 0.587, 0.114), np.float32)  # ITU-R BT.601
_SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture and the scale its colours are read by.

    Args:
        image: the pixels.
        scale: how values became colours; `none` for an input.
        limit: the value at the end of the scale.
        n_not_finite: how many of the values shown are NaN or infinite.
        has_bars: whether the height of bars is read, and not a colour.
    """

    image: RGB
    scale: Scale = "none"
    limit: float = 1.0
    n_not_finite: int = 0
    has_bars: bool = False


def robust_limit(values: Num[np.ndarray, "..."], percentile: float = 99.0) -> float:
    """Returns the value at which the colour scale of `values` ends: a percentile of their
    magnitude, never zero.

    A few extreme pixels would otherwise leave all others white. Where the percentile is zero, as in
    a map with one bright pixel, it is the largest magnitude; where that is zero too, or nothing is
    finite, it is 1.
    """
    magnitudes = np.abs(values[np.isfinite(values)]).astype(np.float64)
    if magnitudes.size == 0:
        return 1.0
    limit = float(np.percentile(magnitudes, percentile))
    if limit < _SMALLEST:
        limit = float(magnitudes.max())
    return limit if limit >= _SMALLEST else 1.0


def diverging(values: Num[np.ndarray, "*shape"], limit: float) -> UInt8[np.ndarray, "*shape 3"]:
    """Colours signed values: blue at `-limit` and below, white at zero, red at `limit` and
    above.
    """
    return _flagged(_interpolated(_DIVERGING, (_unit(values, limit) + 1.0) / 2.0), values)


def sequential(values: Num[np.ndarray, "*shape"], limit: float) -> UInt8[np.ndarray, "*shape 3"]:
    """Colours magnitudes: dark violet at zero, yellow at `limit` and above."""
    return _flagged(_interpolated(_SEQUENTIAL, np.abs(_unit(values, limit))), values)


def is_dark(colours: UInt8[np.ndarray, "*shape 3"]) -> Bool[np.ndarray, "*shape"]:
    """Says which colours white text is read on better than black."""
    return colours @ _GRAY < 117  # where the contrast to both is about 4.5 : 1


def resize(
    values: Num[np.ndarray, "h w"], height: int, width: int
) -> Float32[np.ndarray, "height width"]:
    """Resizes a map bilinearly, pixel centres aligned; what is not finite stays in its own
    neighbourhood.
    """
    return _along(_along(values.astype(np.float32), height, 0), width, 1)


def fit(image: RGB, size: int) -> UInt8[np.ndarray, "h1 w1 3"]:
    """Brings a picture near `size` pixels on its longer side, by whole factors so that every pixel
    of the input stays one flat square.

    Small pictures are enlarged by repeating pixels, large ones reduced to block means. The shorter
    side is stretched to a quarter of `size` where it would be a thread.
    """
    height, width, _ = image.shape
    up, down = max(1, size // max(height, width)), max(1, max(height, width) // size)
    if down > 1:
        rows, columns = min(down, height), min(down, width)
        whole = image[: height - height % rows, : width - width % columns].astype(np.float32)
        blocks = whole.reshape(whole.shape[0] // rows, rows, whole.shape[1] // columns, columns, 3)
        image = _pixels(blocks.mean(axis=(1, 3)))
    times = [
        max(up, -(-size // 4) // length) if length * up < size / 4 else up
        for length in image.shape[:2]
    ]
    return image.repeat(times[0], axis=0).repeat(times[1], axis=1)


def picture(inputs: Num[np.ndarray, "..."], size: int) -> Picture:
    """Shows one sample's inputs: grey for one channel, colour for three, bars for a vector.

    Bytes and values in 0..255 are taken as they are, values in 0..1 are spread over the range;
    anything else, such as standardised images, is spread from its own minimum to its own maximum.

    Args:
        inputs: one sample, `[n]`, `[h, w]`, `[h, w, c]`, `[c, h, w]` of 1, 3 or 4 channels, or with
            further axes in front, over which the mean is shown.
        size: about the longer side of the picture, in pixels.
    """
    if inputs.ndim < 2:
        values = inputs.reshape(-1).astype(np.float32)
        return Picture(_bars(values, robust_limit(values, 100.0), size, "none"))
    values = _channels_last(np.asarray(inputs, np.float32))
    if values.ndim > 3:
        values = values.mean(axis=tuple(range(values.ndim - 3)))
    if values.ndim == 3:
        values = values[..., :3] if values.shape[-1] in {3, 4} else values.mean(axis=-1)
    return Picture(fit(_normalised(values), size))


def attributed(
    attributions: Num[np.ndarray, "..."],
    inputs: Num[np.ndarray, "..."] | None,
    size: int,
    *,
    limit: float | None = None,
    signed: bool | None = None,
) -> Picture:
    """Shows one sample's attributions.

    Attributions of the inputs' own shape are shown by themselves, summed over channels. Coarser
    maps, such as Grad-CAM's, are resized bilinearly and laid over the input, the more opaque the
    stronger. Vectors become bars, unless they are of a series with channels.

    Args:
        attributions: one sample's attributions.
        inputs: the sample itself, if it is known; maps are shown without it otherwise.
        size: about the longer side of the picture, in pixels.
        limit: where the scale ends; `robust_limit` of this sample if left out, and its largest
            value of bars. Give it to make pictures comparable.
        signed: whether the method's attributions have a sign, and so the diverging scale. Where
            that is not known, bars and attributions of the inputs' own shape are taken to have one,
            coarser maps if a value is negative.
    """
    has_places = (
        inputs is not None and inputs.ndim >= 2 and (attributions.ndim >= 2 or inputs.ndim == 2)
    )
    over = inputs is not None and attributions.shape != inputs.shape and has_places
    own = inputs is None or attributions.shape == inputs.shape
    values = flat(
        _channels_last(attributions) if own else attributions,
        channels=inputs is None or attributions.ndim == inputs.ndim,
    )
    has_bars = values.ndim == 1 and not over
    if limit is None:
        limit = robust_limit(values, 100.0 if has_bars else 99.0)
    n_bad = int(attributions.size - np.isfinite(attributions).sum())
    if signed is None:
        signed = (
            has_bars
            or attributions.shape == getattr(inputs, "shape", None)
            or bool((values < 0).any())
        )
    scale: Scale = "diverging" if signed else "sequential"
    if has_bars:
        return Picture(_bars(values, limit, size, scale), scale, limit, n_bad, has_bars=True)
    if values.ndim == 1:
        values = values[:, None]
    if inputs is None or not over:
        image = fit(diverging(values, limit) if signed else sequential(values, limit), size)
    else:
        image = overlay(picture(inputs, size).image, values, limit, signed=signed)
    return Picture(image, scale, limit, n_bad)


def flat(attributions: Num[np.ndarray, "..."], *, channels: bool) -> Float32[np.ndarray, "..."]:
    """Sums one sample's attributions to a map `[h, w]` or a vector `[n]`, so that what it adds up
    to is kept.

    Args:
        attributions: one sample's attributions.
        channels: whether the last of three or more axes is channels; it is summed, as is every axis
            in front of height and width.
    """
    values = np.asarray(attributions, np.float32)
    # infinity minus infinity is NaN, which is shown as such
    with np.errstate(invalid="ignore", over="ignore"):
        if values.ndim >= 3 and channels:
            values = values.sum(axis=-1)
        if values.ndim > 2:
            values = values.sum(axis=tuple(range(values.ndim - 2)))
    return values.reshape(-1) if values.ndim < 2 else values


def overlay(
    image: RGB, values: Num[np.ndarray, "h1 w1"], limit: float, *, signed: bool = False
) -> RGB:
    """Lays a map over a picture: the picture turns grey, and colour covers it the more, the larger
    the value.
    """
    resized = resize(values, *image.shape[:2])
    strength = np.abs(_unit(resized, limit))[..., None]
    opacity = np.where(np.isfinite(resized)[..., None], 0.72 * np.sqrt(strength), 1.0)
    # no pure black or white, on which faint colour is lost
    grey = 0.15 * 255 + 0.7 * (image.astype(np.float32) @ _GRAY)[..., None]
    colours = (diverging if signed else sequential)(resized, limit).astype(np.float32)
    return _pixels(grey * (1 - opacity) + colours * opacity)


def ramp(scale: Scale, width: int, height: int) -> RGB:
    """Draws a colour scale from left to right.

    `-limit` to `limit` if diverging, 0 to `limit` if sequential.
    """
    values = np.linspace(-1.0 if scale == "diverging" else 0.0, 1.0, width, dtype=np.float32)
    colours = diverging(values, 1.0) if scale == "diverging" else sequential(values, 1.0)
    return np.broadcast_to(colours, (height, width, 3)).copy()


def strongest(vectors: Num[np.ndarray, "v n"], most: int) -> Int[np.ndarray, "m"]:
    """Returns which of `n` values are the largest in magnitude in any of several vectors, those
    first; `most` of them at most.
    """
    magnitudes = np.where(np.isfinite(vectors), np.abs(vectors), np.inf).max(axis=0)
    return np.argsort(-magnitudes, kind="stable")[:most]


def sum_of_others(vector: Num[np.ndarray, "n"], chosen: Int[np.ndarray, "m"]) -> float:
    """Returns what the values of a vector that are not among the chosen ones add up to."""
    with np.errstate(invalid="ignore"):  # infinity minus infinity is NaN, which is shown as such
        return float(np.delete(vector, chosen).sum())


def rows_of_bars(
    values: Float32[np.ndarray, "n"],
    limit: float,
    width: int,
    height: int,
    scale: Scale = "diverging",
) -> RGB:
    """Draws a vector as rows of bars about a zero line: to the right for positive, to the left for
    negative, red and blue if diverging.
    """
    half = width // 2
    image = np.repeat(striped(len(values), height)[:, None], 2 * half + 1, axis=1)
    colours = _of_bars(values, limit, scale)
    lengths = np.where(np.isfinite(values), np.round(_unit(values, limit) * half), half).astype(int)
    margin = max(1, height // 6)
    for row, (length, colour) in enumerate(zip(lengths, colours, strict=True)):
        columns = slice(half + 1, half + 1 + length) if length >= 0 else slice(half + length, half)
        image[row * height + margin : (row + 1) * height - margin, columns] = colour
    image[:, half] = 110
    return image


def striped(n_rows: int, height: int) -> UInt8[np.ndarray, "h 3"]:
    """Returns the background of rows of `height` pixels, every second one darker, by which the eye
    finds from one picture to the next.
    """
    return np.repeat(np.where(np.arange(n_rows) % 2, 247, 255).astype(np.uint8), height)[
        :, None
    ].repeat(3, axis=1)


def _bars(values: Float32[np.ndarray, "n"], limit: float, size: int, scale: Scale) -> RGB:
    """Draws a vector as bars about a zero line: up and red for positive, down and blue for
    negative; on the sequential scale up only.
    """
    if len(values) == 0:
        values = np.zeros(1, np.float32)
    if len(values) > size:  # the strongest of each group, so that a peak is never averaged away
        edges = np.linspace(0, len(values), size + 1).astype(int)
        groups = np.split(values, edges[1:-1])
        values = np.array(
            [
                group[np.argmax(np.where(np.isfinite(group), np.abs(group), np.inf))]
                for group in groups
            ],
            np.float32,
        )
    step = max(1, size // len(values))
    gap = 1 if step >= 4 else 0
    half = max(8, size * 3 // 8)
    up = 2 * half if scale == "sequential" else half
    image = np.full((2 * half + 1, step * len(values) + gap, 3), 247, np.uint8)
    colours = _of_bars(values, limit, scale)
    heights = np.where(np.isfinite(values), np.round(_unit(values, limit) * up), up).astype(int)
    for index, (height, colour) in enumerate(zip(heights, colours, strict=True)):
        rows = slice(up - height, up) if height >= 0 else slice(up + 1, up + 1 - height)
        image[rows, index * step + gap : (index + 1) * step] = colour
    image[up] = 110
    return image


def _of_bars(
    values: Float32[np.ndarray, "n"], limit: float, scale: Scale
) -> UInt8[np.ndarray, "n 3"]:
    """Returns the colours of bars: grey for inputs, red or blue for attributions that have a sign,
    those of the scale for others.
    """
    if scale == "sequential":
        return sequential(values, limit)
    grey = np.full((len(values), 3), 70.0)
    return _flagged(
        grey if scale == "none" else np.where(values[:, None] >= 0, _DIVERGING[-1], _DIVERGING[0]),
        values,
    )


def _channels_last(values: Num[np.ndarray, "..."]) -> Num[np.ndarray, "..."]:
    """Moves channels of an image behind its places where they come first, as its shape gives
    away.
    """
    first = (
        values.ndim == 3
        and values.shape[0] in {1, 3, 4}
        and values.shape[0] < min(values.shape[1:])
    )
    return np.moveaxis(values, 0, -1) if first else values


def _normalised(values: Float32[np.ndarray, "h w *c"]) -> RGB:
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    # float64: a range may be wider than float32 counts
    unit = (values.astype(np.float64) - low) / max(high - low, _SMALLEST)
    image = _pixels((unit * 255).astype(np.float32))
    return np.repeat(image[..., None], 3, axis=-1) if image.ndim == 2 else image


def _unit(values: Num[np.ndarray, "*shape"], limit: float) -> Float32[np.ndarray, "*shape"]:
    """Returns values in -1..1, and 0 for what is not finite."""
    finite = np.where(np.isfinite(values), values, 0).astype(np.float64)
    return np.clip(finite / limit, -1.0, 1.0).astype(np.float32)


def _interpolated(
    anchors: Float32[np.ndarray, "a 3"], at: Float32[np.ndarray, "*shape"]
) -> Float32[np.ndarray, "*shape 3"]:
    positions = np.linspace(0.0, 1.0, len(anchors))
    channels = [np.interp(at, positions, anchors[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def _flagged(
    colours: Num[np.ndarray, "*shape 3"], values: Num[np.ndarray, "*shape"]
) -> UInt8[np.ndarray, "*shape 3"]:
    return _pixels(
        np.where(np.isfinite(values)[..., None], colours, np.asarray(NOT_FINITE, np.float32))
    )


def _pixels(values: Shaped[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Rounds to bytes; clips first, because a cast wraps."""
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def _along(
    values: Float32[np.ndarray, "h w"], length: int, axis: int
) -> Float32[np.ndarray, "h1 w1"]:
    centres = np.clip(
        (np.arange(length) + 0.5) * values.shape[axis] / length - 0.5, 0, values.shape[axis] - 1
    )
    below = np.floor(centres).astype(int)
    above = np.minimum(below + 1, values.shape[axis] - 1)
    weight = (centres - below).astype(np.float32)
    weight = weight[:, None] if axis == 0 else weight[None, :]
    # infinity times zero: the result is not finite, which is shown as such
    with np.errstate(invalid="ignore"):
        resized: Float32[np.ndarray, "h1 w1"] = (
            values.take(below, axis) * (1 - weight) + values.take(above, axis) * weight
        )
    return resized
