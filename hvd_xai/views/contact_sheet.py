"""Pictures with captions: one sample as a strip, many samples as a contact sheet.

Samples in, an RGB array out.

A picture says by colour and by word whether the model was right, and draws each colour scale with
its ends, so that it can be sent to someone else and read without us.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int, Num, Shaped

from hvd_xai.views import pixels
from hvd_xai.views.feature_rows import FeatureRows, names_width
from hvd_xai.views.layout import (
    FAINT,
    FRAME,
    GAP,
    INK,
    MARGIN,
    Colour,
    Line,
    Tile,
    check_pixels,
    lay_out,
    wrapped,
)
from hvd_xai.views.token_text import TokenText, text_side, words_of

Value: TypeAlias = int | float
_Naming: TypeAlias = FeatureRows | TokenText | None

_RIGHT: Colour = (0, 110, 60)
_WRONG: Colour = (192, 0, 32)


@dataclass(frozen=True, slots=True)
class Panel:
    """One sample as one method explained it at one epoch.

    Args:
        method: the method's public name.
        epoch: 0-based epoch.
        attributions: the sample's attributions.
        prediction: the predicted class id, or value.
        score: the scalar that was explained.
        convergence_delta: what the attributions miss of the difference in score that they should
            add up to, if the method says so.
        feature_names: names of the attributions' values, if they are a vector that has names; those
            of all panels of a sample are the same.
        words: of the sample's tokens, if the attributions are one a token and these have words;
            that of padding is empty.
        is_signed: whether the method's attributions have a sign; None if that is not known.
    """

    method: str
    epoch: int
    attributions: Num[np.ndarray, "..."]
    prediction: Value
    score: float
    convergence_delta: float | None = None
    feature_names: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    is_signed: bool | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample and all that is shown of it.

    Args:
        sample_id: its id in the probe.
        label: the data set's label.
        target: what the score selects.
        panels: its explanations, in the order in which they are shown; at least one.
        inputs: the sample itself, if it is known.
    """

    sample_id: int
    label: Value
    target: Value
    panels: tuple[Panel, ...]
    inputs: Num[np.ndarray, "..."] | None = None


@runtime_checkable
class Described(Protocol):
    """What tells explanations apart."""

    @property
    def method(self) -> str:
        """The method's public name."""

    @property
    def epoch(self) -> int:
        """0-based epoch."""


@runtime_checkable
class Explained(Protocol):
    """A committed explanation, as far as a picture needs it."""

    @property
    def manifest(self) -> Described:
        """What explanation it is."""

    @property
    def columns(self) -> list[str]:
        """Names of what has one number a sample."""

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the values of one sample's attributions, if they have any."""

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The word of each token id, if the attributions are one a token and these have words."""

    def column(self, name: str, /) -> Shaped[np.ndarray, "N"]:
        """Returns one number a sample."""

    def attributions(self, start: int, stop: int, /) -> Float32[np.ndarray, "b ..."]:
        """Returns the attributions of some rows."""

    def rows_of(self, sample_ids: Int[np.ndarray, "m"], /) -> Int[np.ndarray, "m"]:
        """Returns the rows of sample ids."""


def samples(
    explanations: Sequence[Explained],
    sample_ids: Int[np.ndarray, "m"],
    inputs: Num[np.ndarray, "m ..."] | None = None,
    *,
    signed: Mapping[str, bool | None] | None = None,
) -> list[Sample]:
    """Reads samples from explanations, one row at a time.

    Args:
        explanations: of the same probe; at least one. Each becomes a panel, in this order. Labels
            and targets are the first one's.
        sample_ids: the samples, in the order in which they are shown.
        inputs: the samples' inputs, in the same order.
        signed: whether a method's attributions have a sign, by the method's name, where that is
            known.
    """
    panels: list[list[Panel]] = [[] for _ in sample_ids]
    known: list[tuple[Value, Value]] = []
    for explanation in explanations:
        rows = explanation.rows_of(sample_ids)
        names = [
            name
            for name in ("label", "target", "prediction", "score", "convergence_delta")
            if name in explanation.columns
        ]
        columns = {name: explanation.column(name)[rows].tolist() for name in names}
        known = known or list(zip(columns["label"], columns["target"], strict=True))
        deltas = columns.get("convergence_delta", [None] * len(rows))
        feature_names, vocabulary = explanation.feature_names, explanation.vocabulary
        for index, row in enumerate(rows.tolist()):
            panel = Panel(
                explanation.manifest.method,
                explanation.manifest.epoch,
                explanation.attributions(row, row + 1)[0],
                columns["prediction"][index],
                columns["score"][index],
                deltas[index],
                feature_names,
                words_of(inputs[index], vocabulary) if vocabulary and inputs is not None else (),
                (signed or {}).get(explanation.manifest.method),
            )
            panels[index].append(panel)
    return [
        Sample(
            int(sample_id),
            *known[index],
            tuple(panels[index]),
            None if inputs is None else inputs[index],
        )
        for index, sample_id in enumerate(sample_ids)
    ]


def strip(
    sample: Sample, *, class_names: Sequence[str] = (), size: int = 200, title: str = ""
) -> pixels.RGB:
    """Draws one sample: its input, then each method's attributions with their colour scale; several
    epochs become columns.

    Over several epochs all pictures of one method share one colour scale, so that a change of
    colour is a change of attribution. Of a text, whose words are its input, there is no other
    picture, and its methods stand below each other.

    Args:
        sample: the sample.
        class_names: names of the classes, by class id.
        size: about the longer side of one picture, in pixels.
        title: what stands in front of the sample's id, such as the run's name.

    Raises:
        ValueError: if there is nothing to show, or the picture would be larger than
            `page.MAX_PIXELS`.
    """
    epochs = sorted({panel.epoch for panel in sample.panels})
    methods = list(dict.fromkeys(panel.method for panel in sample.panels))
    if not methods:
        raise ValueError(
            f"sample {sample.sample_id} has no explanation to show; give at least one panel"
        )
    is_text = any(panel.words for panel in sample.panels)
    side = text_side(size) if is_text else size
    check_pixels(
        (side + GAP) * (len(epochs) + 1), (side + 120) * len(methods), "epochs and methods"
    )
    several = len(epochs) > 1
    heading = [
        part
        for part in (title, f"sample {sample.sample_id}", "" if several else f"epoch {epochs[0]}")
        if part
    ]
    lines = [
        Line(" · ".join(heading), size=20),
        *_verdict(sample, class_names, None if several else sample.panels[0]),
    ]

    naming = _naming_of(sample.panels, size)
    shown = _input_tile(sample, size, naming)
    rows: list[list[Tile]] = [] if several or is_text else [[shown] if shown else []]
    for method in methods:
        panels = [panel for panel in sample.panels if panel.method == method]
        naming = _naming_of(panels if several else sample.panels, size)
        limit = (
            max(_picture(panel, sample, size, naming).limit for panel in panels)
            if several
            else None
        )
        first = _input_tile(sample, size, naming, above=method) if several and shown else None
        tiles = [] if first is None else [first]
        for panel in panels:
            above = [*([] if first else [method]), *([f"epoch {panel.epoch}"] if several else [])]
            picture = _picture(panel, sample, size, naming, limit)
            tiles.append(
                _panel_tile(panel, sample, picture, above, class_names=class_names, several=several)
            )
        if several or is_text:
            rows.append(tiles)
        else:
            rows[0].extend(tiles)
    pictures = [tile.picture for row in rows for tile in row]
    ends = (
        "the largest 99th percentile of each row"
        if several
        else "the 99th percentile of each picture"
    )
    return lay_out(lines, rows, _legend(pictures, ends), framed=True)


def contact_sheet(
    samples: Sequence[Sample],
    *,
    class_names: Sequence[str] = (),
    size: int = 104,
    width: int = 1460,
    title: str = "",
) -> pixels.RGB:
    """Draws many samples: each as its input and its attributions side by side, one caption below,
    row after row.

    Over several epochs the pictures of one method and sample share one colour scale, as in `strip`.

    Args:
        samples: the samples, in the order in which they are shown; all with the same methods.
            Captions are of the last panel.
        class_names: names of the classes, by class id.
        size: about the longer side of one picture, in pixels.
        width: about the width of the sheet, in pixels; at least one sample stands in a row.
        title: the line at the top.

    Raises:
        ValueError: if there is nothing to show, or the sheet would be larger than
            `page.MAX_PIXELS`.
    """
    if not samples or not samples[0].panels:
        raise ValueError("there is no sample to show; give at least one with an explanation")
    has_names, is_text = (
        any(getattr(panel, of) for panel in samples[0].panels) for of in ("feature_names", "words")
    )
    first = ["features"] if has_names else [] if is_text or samples[0].inputs is None else ["input"]
    side = text_side(size) if is_text else size
    group_width = len(samples[0].panels) * (side + 6) + len(first) * (
        (names_width(size) if has_names else size) + 6
    )
    n_columns = max(1, min(len(samples), (width - 2 * MARGIN + GAP) // (group_width + GAP)))
    check_pixels(width, -(-len(samples) // n_columns) * (side + 50), "samples")
    groups = [_pictures(sample, size) for sample in samples]
    tiles = [
        _group(sample, group, class_names) for sample, group in zip(samples, groups, strict=True)
    ]
    rows = [tiles[start : start + n_columns] for start in range(0, len(tiles), n_columns)]
    several = _has_epochs(samples[0])
    names = [
        f"{panel.method} at epoch {panel.epoch}" if several else panel.method
        for panel in samples[0].panels
    ]
    order = [*first, *names]
    right = [_is_right(sample.panels[-1].prediction, sample.target) for sample in samples]
    lines = [
        Line(title or f"{len(samples)} samples", size=20),
        Line("each from left to right: " + ", ".join(order), FAINT),
    ]
    if None not in right:
        told = "" if all(right) else "; what was not is in red"
        lines.append(
            Line(f"{sum(map(bool, right))} of {len(samples)} predicted as the target{told}", FAINT)
        )
    ends = (
        "the largest 99th percentile of each sample"
        if several
        else "the 99th percentile of each picture"
    )
    legend = _legend([picture for group in groups for picture in group], ends)
    return lay_out(lines, rows, legend, framed=False)


def _naming_of(panels: Sequence[Panel], size: int) -> _Naming:
    """Returns which features or words are drawn, the same for all panels that have them named; None
    if none has.
    """
    named = [panel for panel in panels if panel.feature_names or panel.words]
    if not named:
        return None
    limits: dict[str, float] = {}  # epochs of a method share a scale, methods do not
    for panel in named:
        limits[panel.method] = max(
            limits.get(panel.method, 0.0), pixels.robust_limit(panel.attributions, 100.0)
        )
    scaled = np.stack([panel.attributions / limits[panel.method] for panel in named])
    if named[0].words:
        return TokenText.strongest(scaled, named[0].words, size)
    return FeatureRows.strongest(scaled, named[0].feature_names, size)


def _picture(
    panel: Panel, sample: Sample, size: int, naming: _Naming, limit: float | None = None
) -> pixels.Picture:
    if isinstance(naming, FeatureRows) and panel.feature_names:
        return naming.bars(
            panel.attributions, size, limit=limit, signed=panel.is_signed is not False
        )
    if isinstance(naming, TokenText) and panel.words:
        return naming.coloured(panel.attributions, limit=limit, signed=panel.is_signed is not False)
    return pixels.attributed(
        panel.attributions, sample.inputs, size, limit=limit, signed=panel.is_signed
    )


def _input_tile(sample: Sample, size: int, naming: _Naming, above: str = "") -> Tile | None:
    if isinstance(naming, TokenText):
        return None  # the words are the input
    if naming is not None:
        picture, what = naming.names_picture(sample.inputs, size), "features"
    elif sample.inputs is not None:
        picture, what = pixels.picture(sample.inputs, size), "input"
    else:
        return None
    above_lines = wrapped(above, 15, picture.image.shape[1], INK) if above else []
    return Tile(picture, (*above_lines, Line(what, FAINT if above else INK, 15)))


def _panel_tile(
    panel: Panel,
    sample: Sample,
    picture: pixels.Picture,
    above: Sequence[str],
    *,
    class_names: Sequence[str],
    several: bool,
) -> Tile:
    width = int(picture.image.shape[1])
    below: list[Line] = []
    if several:
        right = _is_right(panel.prediction, sample.target)
        colour = INK if right is None else _RIGHT if right else _WRONG
        below += wrapped(f"predicted {_named(panel.prediction, class_names)}", 13, width, colour)
        below += wrapped(f"score {panel.score:.4g}", 13, width, FAINT)
    if panel.convergence_delta is not None:
        below += wrapped(f"convergence delta {panel.convergence_delta:.2g}", 13, width, FAINT)
    if picture.n_not_finite:
        below += wrapped(f"{picture.n_not_finite} values not finite", 13, width, _WRONG)
    return Tile(
        picture,
        tuple(line for text in above for line in wrapped(text, 15, width, INK)),
        tuple(below),
    )


def _pictures(sample: Sample, size: int) -> list[pixels.Picture]:
    naming = _naming_of(sample.panels, size)
    shown = _input_tile(sample, size, naming)
    pictures = [_picture(panel, sample, size, naming) for panel in sample.panels]
    if _has_epochs(sample):
        limits: dict[str, float] = {}
        for panel, picture in zip(sample.panels, pictures, strict=True):
            limits[panel.method] = max(limits.get(panel.method, 0.0), picture.limit)
        pictures = [
            _picture(panel, sample, size, naming, limits[panel.method]) for panel in sample.panels
        ]
    return [*([] if shown is None else [shown.picture]), *pictures]


def _has_epochs(sample: Sample) -> bool:
    return len({panel.epoch for panel in sample.panels}) > 1


def _group(sample: Sample, pictures: Sequence[pixels.Picture], class_names: Sequence[str]) -> Tile:
    """Joins a sample's pictures, each in a frame, into one tile of a contact sheet."""
    height = max(picture.image.shape[0] for picture in pictures) + 2
    width = sum(picture.image.shape[1] + 6 for picture in pictures) - 4
    joined = np.full((height, width, 3), 255, np.uint8)
    left = 0
    for picture in pictures:
        rows, columns, _ = picture.image.shape
        joined[: rows + 2, left : left + columns + 2] = FRAME
        joined[1 : rows + 1, left + 1 : left + columns + 1] = picture.image
        left += columns + 6
    panel = sample.panels[-1]
    right = _is_right(panel.prediction, sample.target)
    colour = INK if right is None else _RIGHT if right else _WRONG
    predicted = f"predicted {_named(panel.prediction, class_names)}"
    score = f"(score {panel.score:.3g})"  # beside the target, for it is the target's
    said = (
        f"{predicted} {score}"
        if right
        else f"{predicted}, target {_named(sample.target, class_names)} {score}"
    )
    below = [
        *wrapped(f"sample {sample.sample_id}", 13, width, FAINT),
        *wrapped(said, 13, width, colour),
    ]
    return Tile(pixels.Picture(joined), below=tuple(below))


def _verdict(sample: Sample, class_names: Sequence[str], panel: Panel | None) -> list[Line]:
    """Says what the sample is and, where one epoch is shown, what the model said."""
    known = (
        f"label {_named(sample.label, class_names)} · target {_named(sample.target, class_names)}"
    )
    if panel is None:
        return [Line(known, size=15)]
    right = _is_right(panel.prediction, sample.target)
    word, colour = (
        ("", INK) if right is None else (" (right)", _RIGHT) if right else (" (wrong)", _WRONG)
    )
    prediction = f"prediction {_named(panel.prediction, class_names)}{word}"
    return [Line(f"{known} · score {panel.score:.4g}", size=15), Line(prediction, colour, 15)]


def _legend(pictures: Sequence[pixels.Picture], ends: str) -> list[Line]:
    scales = {picture.scale for picture in pictures}
    text = []
    if "diverging" in scales:
        text.append("Red raises the score, blue lowers it.")
    if "sequential" in scales:
        text.append("Violet to yellow: importance, from 0 to the most.")
    if any(picture.scale != "none" and not picture.has_bars for picture in pictures):
        text.append(f"Colours end at {ends}.")
    if any(picture.n_not_finite for picture in pictures):
        text.append("Green: not finite.")
    return [Line(" ".join(text), FAINT, 13)]


def _named(value: Value, class_names: Sequence[str]) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if 0 <= value < len(class_names) and class_names[value] != str(value):
        return f"{value} '{class_names[value]}'"
    return str(value)


def _is_right(prediction: Value, target: Value) -> bool | None:
    """Says whether the prediction is the target; None where they are values, of which nobody
    expects equality.
    """
    if isinstance(prediction, float) or isinstance(target, float):
        return None
    return prediction == target
