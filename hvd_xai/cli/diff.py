"""`hvd-xai diff`: what changed from one epoch to another."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from hvd_xai.analysis.drift import drift, similarities
from hvd_xai.analysis.statistics import signs, snapshot
from hvd_xai.checkpoint.reader import Explanation, Explanations, open_explanations
from hvd_xai.errors import CheckpointError
from hvd_xai.views import contact_sheet, layout


def diff(
    run: Annotated[
        str, typer.Argument(help="The folder of a run, or its URL: s3://bucket/run.", metavar="RUN")
    ],
    epoch: Annotated[list[int], typer.Option(help="An epoch; give two.")],
    method: Annotated[
        str | None, typer.Option(help="Only this method. [default: all that both epochs have]")
    ] = None,
    top: Annotated[
        int,
        typer.Option(min=1, max=100, help="How many of the samples that changed most are shown."),
    ] = 10,
    png: Annotated[
        Path | None,
        typer.Option(help="Draw these samples, as both epochs explain them, into this file."),
    ] = None,
) -> None:
    """Compares the explanations of two epochs, and lists the samples whose attributions changed
    most.

    hvd-xai diff runs/demo --epoch 0 --epoch 4

    hvd-xai diff runs/demo --epoch 0 --epoch 4 --method grad_cam --top 20 --png changed.png
    """
    if len(set(epoch)) != 2:
        raise ValueError(f"give two epochs to compare, as --epoch 0 --epoch 4; got {epoch}")
    explanations = open_explanations(run)
    earlier, later = sorted(epoch)
    names = (
        [method]
        if method
        else sorted(set(explanations.methods(earlier)) & set(explanations.methods(later)))
    )
    if not names:
        raise CheckpointError(
            f"{run} has no method at both epochs {earlier} and {later}; there are:"
            f" {explanations.epochs_by_method}"
        )
    if png is not None and len(names) > 1:
        raise ValueError(f"a picture shows one method; give --method, one of {', '.join(names)}")
    for name in names:
        before, after = (
            explanations.explanation(earlier, name),
            explanations.explanation(later, name),
        )
        sample_ids = _compare(before, after, top)
        if png is not None:
            png.write_bytes(layout.png(_drawn(explanations, (before, after), sample_ids)))
            print(png)


def _compare(before: Explanation, after: Explanation, top: int) -> np.ndarray:
    """Prints how two explanations differ, and returns the ids of the samples that changed most."""
    snapshots = snapshot(before), snapshot(after)
    found = drift(*snapshots)
    changed = (
        ""
        if found.changed_predictions is None
        else f", {found.changed_predictions:.1%} of predictions changed"
    )
    print(
        f"{after.manifest.method}, epoch {before.manifest.epoch} to {after.manifest.epoch}: mean"
        f" cosine {found.mean_cosine:.3f}, median {found.median_cosine:.3f}, relative L2"
        f" {found.relative_l2:.2f}{changed}; {found.n_samples} samples compared"
        + (
            f", {found.n_left_out} left out, which have values that are not finite"
            if found.n_left_out
            else ""
        )
    )
    cosines = similarities(*snapshots)
    rows = np.argsort(cosines, kind="stable")[: min(top, found.n_samples)]  # NaN comes last
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title in ("sample", "cosine", "target", "prediction", "score"):
        table.add_column(title, justify="right", no_wrap=True)
    sample_ids, targets = after.column("sample_id"), after.column("target")
    predictions, scores = (
        [one.column(name) for one in (before, after)] for name in ("prediction", "score")
    )
    for row in rows.tolist():
        told = [
            " -> ".join(f"{values[row]:.4g}" for values in pair) for pair in (predictions, scores)
        ]
        table.add_row(str(sample_ids[row]), f"{cosines[row]:.3f}", f"{targets[row]:.4g}", *told)
    Console(highlight=False, markup=False).print(table)
    return np.asarray(sample_ids[rows])


def _drawn(
    explanations: Explanations, pair: tuple[Explanation, Explanation], sample_ids: np.ndarray
) -> np.ndarray:
    probe = explanations.probe()
    inputs = None if probe is None else probe.inputs(pair[0].rows_of(sample_ids))
    samples = contact_sheet.samples(pair, sample_ids, inputs, signed=signs(pair))
    class_names = () if probe is None else probe.class_names
    title = f"what changed most · epoch {pair[0].manifest.epoch} to {pair[1].manifest.epoch}"
    return contact_sheet.contact_sheet(samples, class_names=class_names, title=title)
