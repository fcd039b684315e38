"""Writes the words of pictures: predictions, values that are not finite, and colour legends."""

from collections.abc import Sequence

import numpy as np

from hvd_xai.protocols import ScoreFacts
from hvd_xai.views import pixels
from hvd_xai.views.layout import FAINT, INK, Colour, Line, Tile, text_width, wrap
from hvd_xai.views.samples import Panel, Sample, Value

RIGHT: Colour = (0, 110, 60)
WRONG: Colour = (192, 0, 32)


def describe_value(value: Value, class_names: Sequence[str]) -> str:
    """Writes a class id with the name of its class, or a value in four digits.

    Example:
        >>> describe_value(1, ("ant", "bee")), describe_value(0.12345, ())
        ("1 'bee'", '0.1235')
    """
    if isinstance(value, float):
        return f"{value:.4g}"
    if 0 <= value < len(class_names) and class_names[value] != str(value):
        return f"{value} '{class_names[value]}'"
    return str(value)


def is_right(prediction: Value, target: Value) -> bool | None:
    """Returns whether the prediction is the target; None for values, which never quite match.

    Example:
        >>> is_right(3, 3), is_right(3, 4), is_right(0.5, 0.5)
        (True, False, None)
    """
    if isinstance(prediction, float) or isinstance(target, float):
        return None
    return prediction == target


def verdict_colour(prediction: Value, target: Value) -> Colour:
    """Returns green for a right prediction, red for a wrong one, and ink for a value.

    Example:
        >>> verdict_colour(3, 3) == RIGHT, verdict_colour(3, 4) == WRONG
        (True, True)
    """
    right = is_right(prediction, target)
    return INK if right is None else RIGHT if right else WRONG


def describe_score(
    facts: ScoreFacts, prediction: Value, target: Value, class_names: Sequence[str]
) -> str:
    """Says in words what a score is, with the class that it belongs to; empty if nothing is known.

    Example:
        >>> describe_score(ScoreFacts("probability", "1"), 0, 0, ("ant", "bee"))
        "probability of class 1 'bee'"
    """
    classes = {"1": 1, "target": target, "predicted": prediction}
    of_class = None if facts.of_class is None else classes[facts.of_class]
    # a value is no class: the model has a single output, or the score is a user's own
    told = f"of class {describe_value(of_class, class_names)}" if isinstance(of_class, int) else ""
    return " ".join(filter(None, [facts.unit or ("output" if told else ""), told]))


def write_score(score: float, facts: ScoreFacts, digits: int = 4) -> str:
    """Writes a score; a probability just below 1 says how far from 1 it is.

    Example:
        >>> write_score(0.98765, ScoreFacts("probability"))
        '0.9877'
        >>> write_score(0.9999998, ScoreFacts("probability"))
        '1 - 2e-07'
    """
    text = f"{score:.{digits}g}"
    is_rounded = facts.unit == "probability" and text == "1" and score < 1
    return f"1 - {1 - score:.1g}" if is_rounded else text


def explain_scores(scores: Sequence[tuple[str, ScoreFacts]]) -> str:
    """Says which classes the scores of methods belong to; empty where none is known.

    Args:
        scores: name of each method, and facts about its score.

    Example:
        >>> explain_scores([("saliency", ScoreFacts("logit", "1")), ("lime", ScoreFacts())])
        'Scores: the logit of class 1, whatever the target.'
    """
    classes = {
        "target": "of each sample's target",
        "predicted": "of the class that is predicted",
        "1": "of class 1, whatever the target",
    }
    told: dict[str, list[str]] = {}
    for method, facts in scores:
        if facts.of_class is not None:
            words = f"the {facts.unit or 'output'} {classes[facts.of_class]}"
            told.setdefault(words, []).append(method)
    if len(told) < 2:
        return "".join(f"Scores: {words}." for words in told)
    parts = [f"{', '.join(dict.fromkeys(methods))} {words}" for words, methods in told.items()]
    return f"Scores: {'; '.join(parts)}."


def describe_sample(sample: Sample, class_names: Sequence[str], panel: Panel | None) -> list[Line]:
    """Describes a sample, and what the model predicted for it.

    Args:
        sample: sample to describe.
        class_names: names of the classes, by class id.
        panel: panel whose prediction is described; None if several epochs are shown.
    """
    label, target = (describe_value(one, class_names) for one in (sample.label, sample.target))
    known = f"label {label} · target {target}"
    if panel is None:
        return [Line(known, size=15)]
    right = is_right(panel.prediction, sample.target)
    word = "" if right is None else " (right)" if right else " (wrong)"
    prediction = f"prediction {describe_value(panel.prediction, class_names)}{word}"
    colour = verdict_colour(panel.prediction, sample.target)
    score = f"score {write_score(panel.score, panel.score_facts)}"
    words = describe_score(panel.score_facts, panel.prediction, sample.target, class_names)
    if words:
        score = f"{score}, the {words}"
    return [
        Line(f"{known} · {score}", size=15),
        Line(prediction, colour, 15),
    ]


def caption_panel(
    panel: Panel,
    picture: pixels.Picture,
    above: Sequence[str],
    verdict: Sequence[Line] = (),
    doubts: Sequence[str] = (),
) -> Tile:
    """Puts a panel's picture between lines of text.

    Args:
        panel: panel to caption.
        picture: picture of the panel.
        above: lines above the picture.
        verdict: lines right below the picture; the lines that every panel has follow.
        doubts: reasons to believe the panel less than its colours suggest, in words.
    """
    width = text_width(picture.image.shape[1])
    below = [part for line in verdict for part in wrap(line.text, 13, width, line.colour)]
    if panel.convergence_delta is not None:
        below += wrap(f"convergence delta {panel.convergence_delta:.2g}", 13, width, FAINT)
    if panel.standard_errors is not None:
        largest = float(np.nan_to_num(panel.standard_errors).max(initial=0.0))
        what = "error bars: one standard error," if picture.has_bars else "standard errors"
        below += wrap(f"{what} up to {largest:.2g}", 13, width, FAINT)
    for doubt in doubts:
        below += wrap(doubt, 13, width, WRONG)
    if picture.n_not_finite:
        below += wrap(f"{picture.n_not_finite} values not finite", 13, width, WRONG)
    lines = tuple(line for text in above for line in wrap(text, 15, width, INK))
    return Tile(picture, lines, tuple(below))


def explain_window(pictures: Sequence[pixels.Picture]) -> list[str]:
    """Says which values of the inputs are drawn darkest and brightest, and whether some lie beyond.

    Args:
        pictures: pictures on the page; those of inputs have one window.

    Example:
        >>> explain_window([pixels.Picture(np.zeros((2, 2, 3), np.uint8), window=(0.0, 16.0))])
        ['Inputs: 0 is black, 16 is white.']
    """
    inputs = [picture for picture in pictures if picture.window is not None]
    windows = {picture.window for picture in inputs if picture.window is not None}
    if len(windows) != 1:
        # samples of no probe have a window each
        return ["Inputs: from black to white, each over its own range."] if windows else []
    if inputs[0].has_bars:
        said = f"Inputs: the longest bars are {inputs[0].limit:.3g}"
    else:
        low, high = windows.pop()
        said = f"Inputs: {low:.3g} is black, {high:.3g} is white"
    share = max(picture.clipped for picture in inputs)
    if share == 0:
        return [f"{said}."]
    return [f"{said}; values beyond are clipped: {_percent(share)} of a picture."]


def _percent(share: float) -> str:
    return "under 0.1 %" if share < 0.001 else f"up to {100 * share:.2g} %"


def explain_colours(pictures: Sequence[pixels.Picture], ends: str) -> list[Line]:
    """Returns the legend: what the colours of the pictures mean, and where their scales end.

    Args:
        pictures: pictures on the page.
        ends: words that say where the scale of colours ends.
    """
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
    text += explain_window(pictures)
    return [Line(" ".join(text), FAINT, 13)]
