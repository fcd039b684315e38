"""Reads the samples that a picture or a table shows from committed explanations, row by row."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int, Num

from hvd_xai.analysis.statistics import signs
from hvd_xai.checkpoint.explanation import Explanation
from hvd_xai.checkpoint.probe_reader import ProbeReader
from hvd_xai.probe.facts import ProbeFacts
from hvd_xai.probe.window import Window, window_of
from hvd_xai.protocols import AttributedTo, ScoreFacts
from hvd_xai.views import pixels

Value: TypeAlias = int | float


@dataclass(frozen=True, slots=True)
class Panel:
    """Holds one sample as one method explained it at one epoch.

    Args:
        method: the method's public name.
        epoch: 0-based epoch.
        attributions: attributions of the sample.
        prediction: predicted class id, or value.
        score: scalar that was explained.
        convergence_delta: difference between the score's change and the sum of the attributions;
            None if the method does not compute it.
        attributed_to: "inputs", "places" or "units", to which attributions belong; None if the
            method does not say.
        is_signed: whether the method's attributions have a sign; None if that is not known.
        score_facts: unit and class of the score, as far as they are known.
        standard_errors: standard errors of the attributions, in their shape; None without them.

    Example:
        >>> Panel("saliency", 0, np.ones((8, 8, 1), np.float32), 3, 0.9).attributed_to is None
        True
    """

    method: str
    epoch: int
    attributions: Num[np.ndarray, "..."]
    prediction: Value
    score: float
    convergence_delta: float | None = None
    attributed_to: AttributedTo | None = None
    is_signed: bool | None = None
    score_facts: ScoreFacts = field(default_factory=ScoreFacts)
    standard_errors: Num[np.ndarray, "..."] | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """Holds one sample, its inputs and its explanations.

    Args:
        sample_id: id of the sample within the probe.
        label: the data set's label.
        target: class id or value that the score selects.
        panels: explanations of the sample, in the order in which they are shown; at least one.
        inputs: inputs of the sample; None if they are not known.
        facts: facts about the probe's inputs; if None, only their shape and dtype.

    Example:
        >>> panel = Panel("saliency", 0, np.ones(3, np.float32), 1, 0.9, attributed_to="inputs")
        >>> Sample(17, 1, 1, (panel,), np.zeros(3, np.float32)).has_parts(panel)
        True
    """

    sample_id: int
    label: Value
    target: Value
    panels: tuple[Panel, ...]
    inputs: Num[np.ndarray, "..."] | None = None
    facts: ProbeFacts | None = None

    @property
    def known(self) -> ProbeFacts:
        """Facts that decide the kind of data: the inputs', or else the attributions'."""
        if self.facts is not None:
            return self.facts
        values = self.panels[0].attributions if self.inputs is None else self.inputs
        return ProbeFacts(values.shape, values.dtype)

    @property
    def window(self) -> Window:
        """Values of the inputs that are drawn darkest and brightest; the inputs' own in need."""
        if self.known.window is not None:
            return self.known.window
        return (0.0, 1.0) if self.inputs is None else window_of(self.inputs)

    def has_parts(self, panel: Panel) -> bool:
        """Returns whether a panel is said to have an attribution for each value of the inputs.

        Only such attributions are labelled with the names of features or with words: a layer may
        have as many units as the inputs have features.
        """
        return panel.attributed_to == "inputs" and panel.attributions.shape == self.known.shape


def read_samples(
    explanations: Sequence[Explanation],
    sample_ids: Int[np.ndarray, "m"],
    probe: ProbeReader | None = None,
) -> list[Sample]:
    """Reads samples from explanations, one row at a time.

    Channels come last, wherever the model has them: inputs, and attributions of the inputs' own
    shape, are turned.

    Args:
        explanations: explanations of one probe, at least one; each becomes a panel, in this order.
            Labels and targets come from the first explanation.
        sample_ids: ids of the samples, in the order in which they are shown.
        probe: the stored probe; samples have no inputs without it.

    Raises:
        CheckpointError: if a sample is not in an explanation, or a file is missing or damaged.

    Example:
        >>> run = open_explanations("runs/demo")  # doctest: +SKIP
        >>> read_samples(list(run), np.array([17]), run.probe())  # doctest: +SKIP
    """
    panels: list[list[Panel]] = [[] for _ in sample_ids]
    of_methods = signs(explanations)
    said = [one.manifest.channels for one in explanations if one.manifest.channels is not None]
    is_first = said[:1] == ["first"]
    for explanation in explanations:
        rows, manifest = explanation.rows_of(sample_ids), explanation.manifest
        has_delta = "convergence_delta" in explanation.columns
        predictions, scores = (explanation.column(name)[rows] for name in ("prediction", "score"))
        deltas = explanation.column("convergence_delta")[rows].tolist() if has_delta else None
        is_turned = is_first and manifest.attributed_to == "inputs"
        for index, row in enumerate(rows.tolist()):
            errors = explanation.standard_errors(row, row + 1)
            panels[index].append(
                Panel(
                    manifest.method,
                    manifest.epoch,
                    _turn(explanation.attributions(row, row + 1), is_turned)[0],
                    predictions[index].item(),
                    scores[index].item(),
                    None if deltas is None else deltas[index],
                    manifest.attributed_to,
                    of_methods[manifest.method],
                    manifest.score_facts,
                    None if errors is None else errors[0],
                )
            )
    first = explanations[0]
    rows = first.rows_of(sample_ids)
    labels, targets = (first.column(name)[rows].tolist() for name in ("label", "target"))
    inputs = None if probe is None else _turn(probe.inputs(rows), is_first)
    facts = None if probe is None else probe.facts
    if facts is not None and facts.window is None and inputs is not None:
        # An old run records no window: the samples that are shown together share one.
        facts = replace(facts, window=window_of(inputs))
    if facts is not None and said:
        shape = (*facts.shape[1:], *facts.shape[:1]) if is_first else facts.shape
        facts = replace(facts, shape=shape, channels="last" if is_first else said[0])
    return [
        Sample(
            int(sample_id),
            labels[index],
            targets[index],
            tuple(panels[index]),
            None if inputs is None else inputs[index],
            facts,
        )
        for index, sample_id in enumerate(sample_ids)
    ]


def _turn(values: Num[np.ndarray, "n ..."], is_first: bool) -> Num[np.ndarray, "n ..."]:
    """Moves channels that come first to the last axis."""
    #     [n, c, h, w] -> [n, h, w, c]
    return np.moveaxis(values, 1, -1) if is_first else values


def scale_panels(panels: Sequence[Panel]) -> Float[np.ndarray, "p n"]:
    """Divides each panel's attributions by the largest magnitude among its method's panels.

    All epochs of a method share one scale. Methods do not, because their units differ.

    Args:
        panels: panels whose attributions are vectors of one length, at least one.

    Example:
        >>> one = Panel("saliency", 0, np.array([1.0, -2.0]), 1, 0.9)
        >>> scale_panels([one, Panel("saliency", 1, np.array([4.0, 0.0]), 1, 0.9)]).tolist()
        [[0.25, -0.5], [1.0, 0.0]]
    """
    limits: dict[str, float] = {}
    for panel in panels:
        limit = pixels.robust_limit(panel.attributions, 100.0)
        limits[panel.method] = max(limits.get(panel.method, 0.0), limit)
    return np.stack([panel.attributions / limits[panel.method] for panel in panels])
