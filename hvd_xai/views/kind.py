"""What a kind of data is asked for, and which kind the data of a probe are.

A kind is one module in `hvd_xai/views/kinds/`, found by its being there. It fills the protocol
`Kind` with three functions; nothing else in the library tests for feature names, words or numbers
of axes to draw something.

`hvd_xai.views.arrays.Plain` is the arrangement of most kinds; `kinds/series.py` shows it whole. Two
kinds must not fit the same data equally well: of the shapes that one kind claims with `Fit.SHAPE`,
another takes a part for itself with `Fit.LENGTHS`.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol, cast, runtime_checkable

from hvd_xai.probe.facts import ProbeFacts
from hvd_xai.protocols import Json
from hvd_xai.views import kinds
from hvd_xai.views.pixels import Picture
from hvd_xai.views.samples import Panel, Sample


class Fit(IntEnum):
    """Says how well a kind fits the facts of a probe; the kind that fits best draws the data.

    Example:
        >>> max(Fit.ANYTHING, Fit.NAMES).name
        'NAMES'
    """

    NONE = 0
    """The kind cannot draw such data."""
    ANYTHING = 1
    """The kind draws whatever no other kind knows better."""
    SHAPE = 2
    """The number of axes is that of the kind."""
    LENGTHS = 3
    """An axis has a length that only this kind has, such as the 12 leads of a heart's signals."""
    NAMES = 4
    """Somebody gave names that only this kind has, such as a vocabulary."""


@runtime_checkable
class Arrangement(Protocol):
    """Draws one sample: its input, and all of its panels in one order of features, words or slices.

    Pictures of one arrangement are read side by side, so it decides once what all of them show.
    """

    @property
    def caption(self) -> str:
        """Word above the picture of the input; empty if there is none."""

    @property
    def input_width(self) -> int:
        """Largest width of the picture of the input, in pixels."""

    @property
    def width(self) -> int:
        """Width of a picture of attributions, about, in pixels."""

    @property
    def is_wide(self) -> bool:
        """Whether each method needs a line of its own, as a text does."""

    def input_picture(self) -> Picture | None:
        """Draws the input; None if it is not known, or is part of every other picture."""

    def picture(self, panel: Panel, limit: float | None = None, /) -> Picture:
        """Draws one panel's attributions; their scale ends at `limit`, or at their own if None."""


@dataclass(frozen=True, slots=True)
class Part:
    """Holds one part of the inputs in words, such as a feature, and its attributions.

    Args:
        name: the part in words.
        beside: what stands beside the name, such as the feature's value.
        attributions: attribution of the part in each panel.
        standard_errors: standard error of each attribution, None where a panel has none; empty
            without any.

    Example:
        >>> Part("age", "41", (0.5,)).name
        'age'
    """

    name: str
    beside: str
    attributions: tuple[float, ...]
    standard_errors: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Strongest:
    """Holds the strongest parts of one sample in words.

    Args:
        titles: what parts are called, and what stands beside them.
        panels: panels that have attributions of parts, one for each of a part's attributions.
        parts: the strongest parts, the strongest of any panel first.
        others: sum of all other parts; None if there is none.
        record: the same for programs, of the first panel.

    Example:
        >>> panel = Panel("saliency", 0, np.ones(1, np.float32), 1, 0.9)
        >>> Strongest(("feature", "value"), (panel,), (Part("age", "41", (1.0,)),)).others is None
        True
    """

    titles: tuple[str, str]
    panels: tuple[Panel, ...]
    parts: tuple[Part, ...]
    others: Part | None = None
    record: Mapping[str, Json] = field(default_factory=dict)


@runtime_checkable
class Kind(Protocol):
    """A kind of data; a module fills it."""

    def fits(self, facts: ProbeFacts, /) -> Fit:
        """Says how well the kind fits the inputs of a probe."""

    def arrange(self, sample: Sample, size: int, /) -> Arrangement:
        """Decides how a sample is drawn; the longer side of a picture is about `size` pixels."""

    def strongest(self, sample: Sample, most: int, /) -> Strongest | None:
        """Returns the strongest `most` parts of a sample; None if no panel has parts in words."""


def kind_names() -> list[str]:
    """Returns the names of all kinds of data, in order.

    Example:
        >>> "image" in kind_names()
        True
    """
    return sorted(module.name for module in pkgutil.iter_modules(kinds.__path__))


def load_kind(name: str) -> Kind:
    """Loads a kind of data by the name of its module.

    Example:
        >>> load_kind("table").fits(ProbeFacts((1,), np.dtype("f4"), ("age",))).name
        'NAMES'
    """
    return cast("Kind", importlib.import_module(f"{kinds.__name__}.{name}"))


def find_kind(facts: ProbeFacts) -> Kind:
    """Returns the kind that the probe says its data are, or else the one that fits them best.

    A name that this version does not know, or a kind that cannot draw such data, is passed over:
    reading never fails for it; `check_kind` does. Of several that fit equally well it is the first
    by name; the laws' tests see to it that none do.

    Example:
        >>> find_kind(ProbeFacts((28, 28, 1), np.dtype("f4"))).__name__.rpartition(".")[2]
        'image'
    """
    if facts.kind in kind_names():
        said = load_kind(str(facts.kind))
        if said.fits(facts) != Fit.NONE:
            return said
    return max(map(load_kind, kind_names()), key=lambda kind: kind.fits(facts))


def check_kind(facts: ProbeFacts) -> None:
    """Checks that the kind that a probe says its data are exists, and can draw them.

    Raises:
        ValueError: if it does not, or cannot.

    Example:
        >>> check_kind(ProbeFacts((16, 16, 30), np.dtype("f4"), kind="image"))
    """
    if facts.kind is None:
        return
    if facts.kind not in kind_names():
        raise ValueError(
            f"kind= of a probe is one of {', '.join(map(repr, kind_names()))}; got {facts.kind!r}"
        )
    if load_kind(facts.kind).fits(facts) == Fit.NONE:
        able = [name for name in kind_names() if load_kind(name).fits(facts) != Fit.NONE]
        raise ValueError(
            f"the kind {facts.kind!r} cannot draw inputs of shape {facts.shape} with the names that"
            f" the probe has; these can: {', '.join(map(repr, able))}. Give the probe one of them,"
            " or leave kind= out."
        )
