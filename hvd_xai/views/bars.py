"""Draws vectors as bars about a zero line, upright or in rows."""

import numpy as np
from jaxtyping import Float32, Num, UInt8

from hvd_xai.views import pixels

_INPUT = (70.0, 70.0, 70.0)
_ZERO_LINE = 110
_GROUND = 247
_WHISKER = 20
_THINNEST = 5  # pixels of an upright bar that an error bar can stand on


def limit_of(values: Num[np.ndarray, "n"], errors: Num[np.ndarray, "n"] | None = None) -> float:
    """Returns the value of the longest bar: the largest magnitude, with its error bar if any.

    Example:
        >>> limit_of(np.array([1.0, -2.0]), np.array([0.5, 0.25]))
        2.25
    """
    reach = np.abs(values) if errors is None else np.abs(values) + errors
    return pixels.robust_limit(reach, 100.0)


def upright(
    values: Float32[np.ndarray, "n"],
    limit: float,
    size: int,
    scale: pixels.Scale,
    errors: Num[np.ndarray, "n"] | None = None,
) -> pixels.RGB:
    """Draws a vector as upright bars: up for positive values, down for negative ones.

    Bars are red and blue on the diverging scale. On the sequential scale all bars go up, in its
    colours. Bars of inputs are grey.

    Args:
        values: the vector.
        limit: value of the longest bar; longer ones are cut off there.
        size: approximate width of the picture, in pixels.
        scale: how values become colours; `none` for inputs.
        errors: standard errors of the values, drawn as error bars, unless bars are too thin for
            them.

    Example:
        >>> upright(np.array([1.0, -1.0], np.float32), 1.0, 100, "diverging").shape
        (75, 101, 3)
    """
    if len(values) == 0:
        values = np.zeros(1, np.float32)
    if len(values) > size:
        # values of one group have no error in common
        values, errors = _strongest_of_groups(values, size), None
    step = max(1, size // len(values))
    gap = 1 if step >= 4 else 0
    half = max(8, size * 3 // 8)
    up = 2 * half if scale == "sequential" else half
    image = np.full((2 * half + 1, step * len(values) + gap, 3), _GROUND, np.uint8)
    colours = _colours(values, limit, scale)
    lengths = np.round(pixels.unit(values, limit) * up)
    heights = np.where(np.isfinite(values), lengths, up).astype(int)
    # Row `up` is the zero line. A bar of height +2 fills the rows above it, one of -2 those below:
    #   up - 2, up - 1 | up | up + 1, up + 2
    for index, (height, shade) in enumerate(zip(heights, colours, strict=True)):
        rows = slice(up - height, up) if height >= 0 else slice(up + 1, up + 1 - height)
        image[rows, index * step + gap : (index + 1) * step] = shade
    image[up] = _ZERO_LINE
    if errors is not None and step >= _THINNEST:
        # the same in pixels, with zero at row `up` and values upwards
        whiskers = _whiskers(values, errors, limit, up)
        for index, (low, high) in enumerate(whiskers):
            column = index * step + gap + (step - gap) // 2
            ends = slice(max(0, up - high), max(0, up - low + 1))
            image[ends, column] = _WHISKER
            for end in {up - high, up - low} & set(range(len(image))):
                image[end, column - step // 5 : column + step // 5 + 1] = _WHISKER
    return image


def in_rows(
    values: Float32[np.ndarray, "n"],
    limit: float,
    width: int,
    height: int,
    scale: pixels.Scale = "diverging",
    errors: Num[np.ndarray, "n"] | None = None,
) -> pixels.RGB:
    """Draws a vector as rows of bars: to the right for positive values, to the left for negative.

    Args:
        values: the vector.
        limit: value of the longest bar; longer ones are cut off there.
        width: width of the picture, in pixels.
        height: height of one row, in pixels.
        scale: how values become colours; `none` for inputs.
        errors: standard errors of the values, drawn as error bars; none is drawn for 0.

    Example:
        >>> in_rows(np.array([1.0, -1.0], np.float32), 1.0, 100, 20).shape
        (40, 101, 3)
    """
    half = width // 2
    image = np.repeat(striped(len(values), height)[:, None], 2 * half + 1, axis=1)
    colours = _colours(values, limit, scale)
    shares = np.round(pixels.unit(values, limit) * half)
    lengths = np.where(np.isfinite(values), shares, half).astype(int)
    margin = max(1, height // 6)
    # column `half` is the zero line; bars begin beside it, as in `upright`
    for row, (length, shade) in enumerate(zip(lengths, colours, strict=True)):
        columns = slice(half + 1, half + 1 + length) if length >= 0 else slice(half + length, half)
        image[row * height + margin : (row + 1) * height - margin, columns] = shade
    image[:, half] = _ZERO_LINE
    if errors is not None:
        for row, (low, high) in enumerate(_whiskers(values, errors, limit, half)):
            if errors[row] > 0:
                middle, cap = row * height + height // 2, max(1, height // 5)
                image[middle, max(0, half + low) : half + high + 1] = _WHISKER
                for end in {half + low, half + high} & set(range(2 * half + 1)):
                    image[middle - cap : middle + cap + 1, end] = _WHISKER
    return image


def _whiskers(
    values: Num[np.ndarray, "n"], errors: Num[np.ndarray, "n"], limit: float, length: int
) -> list[tuple[int, int]]:
    """Returns both ends of each error bar in pixels from zero, where `limit` is `length` pixels."""
    # not by `unit`, which clips: an end beyond the limit is not drawn
    finite = np.isfinite(values) & np.isfinite(errors)
    ends = np.stack([values - errors, values + errors], axis=1)
    scaled = np.where(finite[:, None], ends, 0) / limit * length
    pixels_of = np.round(np.clip(scaled, -2 * length, 2 * length)).astype(int)
    return [(int(low), int(high)) for low, high in pixels_of]


def striped(n_rows: int, height: int) -> UInt8[np.ndarray, "h 3"]:
    """Returns the background of a table: every second row is darker, to lead the eye across.

    Args:
        n_rows: number of rows.
        height: height of one row, in pixels.

    Example:
        >>> striped(2, 1)[:, 0].tolist()
        [255, 247]
    """
    rows = np.where(np.arange(n_rows) % 2, _GROUND, 255).astype(np.uint8)
    return np.repeat(rows, height)[:, None].repeat(3, axis=1)


def _strongest_of_groups(values: Float32[np.ndarray, "n"], size: int) -> Float32[np.ndarray, "m"]:
    """Returns the strongest value of each of `size` groups, so that no peak is averaged away."""
    edges = np.linspace(0, len(values), size + 1).astype(int)
    groups = np.split(values, edges[1:-1])
    return np.array(
        [group[np.argmax(np.where(np.isfinite(group), np.abs(group), np.inf))] for group in groups],
        np.float32,
    )


def _colours(
    values: Num[np.ndarray, "n"], limit: float, scale: pixels.Scale
) -> UInt8[np.ndarray, "n 3"]:
    """Returns the colour of each bar; it is flat where the bar's length already says the value."""
    if scale == "sequential":
        return pixels.sequential(values, limit)
    if scale == "diverging":
        # the ends of the scale, red or blue: `copysign` would make -0.0 blue
        ends = np.where(values >= 0, 1.0, -1.0)
        return pixels.diverging(np.where(np.isfinite(values), ends, np.nan), 1.0)
    grey = np.broadcast_to(np.array(_INPUT, np.uint8), (len(values), 3))
    return np.where(np.isfinite(values)[:, None], grey, np.array(pixels.NOT_FINITE, np.uint8))
