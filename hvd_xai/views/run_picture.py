"""Draws samples of a run in one picture: a strip of one sample, or a contact sheet of many."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from hvd_xai.checkpoint.explanation import Explanation
from hvd_xai.checkpoint.probe_reader import ProbeReader
from hvd_xai.errors import advise
from hvd_xai.views.contact_sheet import contact_sheet
from hvd_xai.views.pixels import RGB
from hvd_xai.views.samples import read_samples
from hvd_xai.views.strip import strip

MAX_EPOCHS = 12
# Pictures of several epochs are smaller, because more of them stand side by side.
_SIZE, _SIZE_OF_EPOCHS = 200, 176


def spread_epochs(explanations: Sequence[Explanation]) -> list[int]:
    """Returns the epochs to draw: all, or as many as fit beside each other, evenly spread.

    The first and the last epoch are always among them.
    """
    epochs = sorted({explanation.manifest.epoch for explanation in explanations})
    places = np.linspace(0, len(epochs) - 1, min(len(epochs), MAX_EPOCHS))
    return [epochs[round(place)] for place in places]


def draw_run(
    explanations: Sequence[Explanation],
    sample_ids: Int64[np.ndarray, "m"],
    probe: ProbeReader | None,
    title: str,
) -> RGB:
    """Draws one sample, at one or more epochs, as a strip, and many samples as a contact sheet.

    Args:
        explanations: explanations of one probe, at least one.
        sample_ids: ids of the samples, at least one.
        probe: the stored probe; inputs are not drawn without it.
        title: name of the run.

    Raises:
        CheckpointError: if a file is missing or damaged.
        ValueError: if many samples of several epochs are asked for, or the picture is too large.
    """
    n_epochs = len({explanation.manifest.epoch for explanation in explanations})
    if n_epochs > 1 and len(sample_ids) > 1:
        raise ValueError(
            f"{len(sample_ids)} samples of {n_epochs} epochs do not go into one picture; give one"
            f" {advise(script='sample, or one epoch', command='--sample, or one --epoch')}"
        )
    epochs = spread_epochs(explanations)
    drawn = [one for one in explanations if one.manifest.epoch in epochs]
    samples = read_samples(drawn, sample_ids, probe)
    names = () if probe is None else probe.class_names
    if len(samples) == 1:
        size = _SIZE if len(epochs) == 1 else _SIZE_OF_EPOCHS
        return strip(samples[0], class_names=names, size=size, title=title)
    return contact_sheet(samples, class_names=names, title=f"{title} · epoch {epochs[0]}")


def draw_change(
    before: Explanation,
    after: Explanation,
    sample_ids: Int64[np.ndarray, "m"],
    probe: ProbeReader | None,
) -> RGB:
    """Draws samples at two epochs, the earlier epoch on the left.

    Args:
        before: explanation at the earlier epoch.
        after: explanation by the same method at the later epoch.
        sample_ids: ids of the samples, at least one.
        probe: the stored probe; inputs are not drawn without it.

    Raises:
        CheckpointError: if a file is missing or damaged.
    """
    samples = read_samples((before, after), sample_ids, probe)
    names = () if probe is None else probe.class_names
    title = f"what changed most · epoch {before.manifest.epoch} to {after.manifest.epoch}"
    return contact_sheet(samples, class_names=names, title=title)
