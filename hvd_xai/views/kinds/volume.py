"""Volumes `[z, y, x]` or `[z, y, x, c]`, such as CT: the strongest slices along each axis.

Slices across z are drawn as they lie, `[y, x]`. In slices across y and x the z axis runs upwards,
as a body stands, because scans are numbered from the feet to the head. Voxels are drawn as squares:
the probe does not say how far slices are from each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num, Shaped, UInt8
from PIL import Image, ImageDraw

from hvd_xai.analysis import strongest as numbers
from hvd_xai.probe.facts import ProbeFacts
from hvd_xai.protocols import Json
from hvd_xai.views import pixels
from hvd_xai.views.arrays import Plain, draw_alone
from hvd_xai.views.kind import Arrangement, Fit, Part, Strongest
from hvd_xai.views.layout import FAINT, font
from hvd_xai.views.samples import Panel, Sample

_AXES = ("z", "y", "x")
_PER_AXIS = 2
# A third axis this long is one of places: images have 1, 3 or 4 channels, and seldom many more.
_SHORTEST = 12
_GAP = 4
_LETTERS = 12
# Height of a slice's label, in pixels.
_LABEL = 16


def fits(facts: ProbeFacts) -> Fit:
    """Says that inputs of four axes fit, and inputs of three axes too long to be channels.

    Example:
        >>> fits(ProbeFacts((16, 64, 64), np.dtype("f4"))).name
        'SHAPE'
    """
    is_deep = min(facts.shape, default=0) >= _SHORTEST and facts.channels is None
    is_volume = len(facts.shape) == 4 or (
        len(facts.shape) == 3 and (is_deep or facts.channels == "none")
    )
    return Fit.SHAPE if is_volume else Fit.NONE


def arrange(sample: Sample, size: int) -> Arrangement:
    """Arranges a sample as its strongest slices, the same ones for the input and all panels."""
    panels = [panel for panel in sample.panels if _has_places(panel, sample)]
    if not panels:
        return Plain(sample, size, draw_alone)
    strengths = [_slice_strengths(panel, sample) for panel in panels]
    shape = sample.known.shape[:3]
    chosen = []
    for axis, length in enumerate(shape):
        # Methods have units of their own, so each is divided by its strongest slice. The mean over
        # methods chooses, not the largest: a coarse map has several slices that are equally strong.
        of_axis = np.mean([_divide_by_largest(each[axis]) for each in strengths], axis=0)
        order = numbers.strongest(of_axis[None], length).tolist()
        chosen += [(axis, index) for index in _choose_apart(order)]
    return Slices(sample, size, tuple(chosen))


def strongest(sample: Sample, most: int) -> Strongest | None:
    """Returns the slices whose attributions are the strongest, with the sum of each.

    A voxel lies in a slice of each axis, so sums of several axes do not add up.
    """
    panels = tuple(panel for panel in sample.panels if sample.has_parts(panel))
    if not panels:
        return None
    names = [f"{_AXES[axis]} = {index}" for axis, index in _all_slices(sample)]
    strengths, sums = [], []
    for panel in panels:
        strengths.append(_divide_by_largest(np.concatenate(_slice_strengths(panel, sample))))
        voxels = _sum_channels(panel.attributions)
        # infinity minus infinity is NaN, which is shown as such
        with np.errstate(invalid="ignore"):
            sums.append(np.concatenate([voxels.sum(axis=_others(axis)) for axis in range(3)]))
    order = numbers.strongest(np.stack(strengths), most).tolist()
    parts = tuple(
        Part(names[place], f"{strengths[0][place]:.0%}", tuple(float(one[place]) for one in sums))
        for place in order
    )
    slices: list[Json] = [
        {"slice": part.name, "share": float(strengths[0][place]), "sum": part.attributions[0]}
        for place, part in zip(order, parts, strict=True)
    ]
    return Strongest(("slice", "strength"), panels, parts, record={"slices": slices})


@dataclass(frozen=True, slots=True)
class Slices:
    """Draws chosen slices of a volume, a row for each axis, each with its axis and index above it.

    Args:
        sample: the sample.
        size: width of a picture of all slices, about, in pixels.
        chosen: axis and index of each slice, axis after axis.

    Example:
        >>> panel = Panel("saliency", 0, np.ones((12, 12, 12), np.float32), 1, 0.9)
        >>> facts = ProbeFacts((12, 12, 12), np.dtype("f4"))
        >>> Slices(Sample(7, 1, 1, (panel,), None, facts), 200, ((0, 5), (0, 9))).caption
        ''
    """

    sample: Sample
    size: int
    chosen: tuple[tuple[int, int], ...]

    @property
    def caption(self) -> str:
        """Word above the slices of the input; empty without an input."""
        return "" if self.sample.inputs is None else "slices of the input"

    @property
    def input_width(self) -> int:
        """Width of the slices of the input, in pixels."""
        return self.width

    @property
    def width(self) -> int:
        """Width of the slices of one panel, in pixels."""
        return _PER_AXIS * self._cell + (_PER_AXIS - 1) * _GAP

    @property
    def is_wide(self) -> bool:
        """Whether each method needs a line of its own."""
        return False

    @property
    def _cell(self) -> int:
        """Width of the room for one slice; slices are smaller than other pictures, but legible."""
        return max(48, self.size * 2 // 3)

    def input_picture(self) -> pixels.Picture | None:
        """Draws the slices of the input in grey; None if it is not known."""
        grey = self._grey()
        if grey is None:
            return None
        image = self._compose([_cut(grey, *one) for one in self.chosen])
        window = self.sample.window
        clipped = pixels.clipped(np.asarray(self.sample.inputs), window)
        return pixels.Picture(image, window=window, clipped=clipped)

    def picture(self, panel: Panel, limit: float | None = None) -> pixels.Picture:
        """Draws one panel's attributions, laid over the slices of the input where it is known.

        Args:
            panel: explanation that is drawn; by itself, unless its attributions have places.
            limit: value at the end of the scale; `pixels.robust_limit` of the slices
                that are drawn if left out.
        """
        if not _has_places(panel, self.sample):
            return draw_alone(panel, self.sample, self.size, limit)
        voxels = _sum_channels(panel.attributions)
        signed = panel.is_signed
        if signed is None:
            signed = self.sample.has_parts(panel) or bool((voxels < 0).any())
        shape = self.sample.known.shape
        cuts = [
            # a coarser map has fewer slices: the one that lies over this slice's middle is taken
            _cut(voxels, axis, int((index + 0.5) * voxels.shape[axis] / shape[axis]))
            for axis, index in self.chosen
        ]
        if limit is None:
            # of all voxels nearly none belong to a small finding, so its scale would end too early
            limit = pixels.robust_limit(np.concatenate([values.reshape(-1) for values in cuts]))
        grey, drawn = self._grey(), []
        for (axis, index), values in zip(self.chosen, cuts, strict=True):
            if grey is None:
                drawn.append(pixels.colour(values, limit, signed=signed))
            else:
                under = _fit_cell(_cut(grey, axis, index), self._cell)
                drawn.append(pixels.overlay(under, values, limit, signed=signed))
        n_bad = int(np.count_nonzero(~np.isfinite(panel.attributions)))
        scale: pixels.Scale = "diverging" if signed else "sequential"
        return pixels.Picture(self._compose(drawn), scale, limit, n_bad)

    def _grey(self) -> UInt8[np.ndarray, "z y x 3"] | None:
        """Returns the input as grey voxels, with its channels averaged; None if it is not known."""
        if self.sample.inputs is None:
            return None
        inputs = np.asarray(self.sample.inputs, np.float32)
        voxels = inputs.mean(axis=-1) if inputs.ndim == 4 else inputs
        flat = pixels.spread_over_grey(voxels.reshape(len(voxels), -1), self.sample.window)
        return np.asarray(flat.reshape(*voxels.shape, 3))

    def _compose(self, drawn: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> pixels.RGB:
        """Puts the slices together, each below its label.

        z = 17   z = 21
        [     ]  [     ]     a row for each axis, and a cell of the same width for each slice
        y = 9    y = 30
        """
        letters = font(_LETTERS)
        images = [_fit_cell(image, self._cell) for image in drawn]
        rows = [
            [place for place, (of, _) in enumerate(self.chosen) if of == axis] for axis in range(3)
        ]
        heights = [max(images[place].shape[0] for place in row) for row in rows]
        height = sum(heights) + len(rows) * _LABEL + (len(rows) - 1) * _GAP
        canvas = Image.new("RGB", (self.width, height), "white")
        draw, top = ImageDraw.Draw(canvas), 0
        for row, row_height in zip(rows, heights, strict=True):
            for column, place in enumerate(row):
                left = column * (self._cell + _GAP)
                axis, index = self.chosen[place]
                draw.text((left, top), f"{_AXES[axis]} = {index}", FAINT, letters)
                canvas.paste(Image.fromarray(images[place]), (left, top + _LABEL))
            top += row_height + _LABEL + _GAP
        return np.asarray(canvas, np.uint8).copy()


def _has_places(panel: Panel, sample: Sample) -> bool:
    """Says whether a panel's attributions are of voxels, or of a coarser map of them."""
    return sample.has_parts(panel) or (
        panel.attributed_to != "units" and panel.attributions.ndim >= 3
    )


def _sum_channels(attributions: Num[np.ndarray, "z y x *c"]) -> Float[np.ndarray, "z y x"]:
    values = np.asarray(attributions, np.float32)
    # infinity minus infinity is NaN, which is shown as such
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(values.sum(axis=-1) if values.ndim == 4 else values)


def _slice_strengths(panel: Panel, sample: Sample) -> list[Float[np.ndarray, "n"]]:
    """Returns the sum of magnitudes of every slice along z, y and x, at the input's own length.

    What is not finite counts for nothing: one such voxel would hide all other slices.
    """
    magnitudes = np.abs(_sum_channels(panel.attributions)).astype(np.float64)
    magnitudes[~np.isfinite(magnitudes)] = 0.0
    strengths = []
    for axis, length in enumerate(sample.known.shape[:3]):
        of_own = magnitudes.sum(axis=_others(axis))
        # slices of a coarser map are as strong wherever they lie over the input
        places = (np.arange(length) + 0.5) * len(of_own) / length
        strengths.append(of_own[places.astype(int)])
    return strengths


def _divide_by_largest(values: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Returns values as shares of the largest; zeros if all are zero."""
    largest = float(values.max(initial=0.0))
    return values / largest if largest > 0 else values


def _choose_apart(order: Sequence[int]) -> list[int]:
    """Returns the first slices of an order that are not neighbours, which would look alike.

    Args:
        order: indices of all slices of one axis, the strongest first.
    """
    nearest, chosen = max(1, len(order) // 8), list(order[:1])
    for index in order:
        if len(chosen) < _PER_AXIS and all(abs(index - other) >= nearest for other in chosen):
            chosen.append(index)
    return sorted(chosen)


def _others(axis: int) -> tuple[int, ...]:
    """Returns the axes of a volume that lie within a slice across `axis`."""
    return tuple(other for other in range(3) if other != axis)


def _all_slices(sample: Sample) -> list[tuple[int, int]]:
    """Returns axis and index of every slice, in the order of z, y and x."""
    shape = sample.known.shape[:3]
    return [(axis, index) for axis, length in enumerate(shape) for index in range(length)]


def _cut(volume: Shaped[np.ndarray, "z y x *c"], axis: int, index: int) -> np.ndarray:
    """Cuts a slice; z runs upwards in slices across y and x.

    axis 0: [y, x] as it lies      axis 1: [z, x] turned over      axis 2: [z, y] turned over
    """
    found = volume.take(index, axis)
    # rows of pictures run downwards, so z, which is axis 0 of these slices, is turned over
    return np.asarray(found if axis == 0 else found[::-1])


def _fit_cell(image: UInt8[np.ndarray, "h w 3"], cell: int) -> UInt8[np.ndarray, "h1 w1 3"]:
    """Brings the longer side of a slice to the width of a cell; every voxel stays a square.

    Few voxels are enlarged by repeating them; of too many the nearest ones are taken, because the
    slices of one axis must have one width, which whole factors do not give.
    """
    longest = max(image.shape[:2])
    rows, columns = (max(1, round(length * cell / longest)) for length in image.shape[:2])
    # the voxel over which the middle of each pixel lies, as in `pixels.resize`
    places = [
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip((rows, columns), image.shape[:2], strict=True)
    ]
    return np.asarray(image[np.ix_(*places)])
