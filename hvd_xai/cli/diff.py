"""`hvd-xai diff`: what changed from one epoch to another."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from jaxtyping import Int64
from rich.table import Table

from hvd_xai.analysis.drift import Drift, drift, similarities
from hvd_xai.analysis.statistics import snapshot
from hvd_xai.checkpoint.explanation import Explanation
from hvd_xai.checkpoint.reader import Explanations, open_explanations
from hvd_xai.cli import options
from hvd_xai.cli.console import say
from hvd_xai.cli.tables import make_table, print_table
from hvd_xai.errors import CheckpointError, write_epochs
from hvd_xai.storage.durable import writing
from hvd_xai.views.layout import png as encode_png
from hvd_xai.views.run_picture import draw_change


def diff(
    run: options.Run,
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
    """Compares the explanations of two epochs, and lists the samples that changed most.

    hvd-xai diff runs/demo --epoch 0 --epoch 4

    hvd-xai diff runs/demo --epoch 0 --epoch 4 --method grad_cam --top 20 --png changed.png
    """
    if len(set(epoch)) != 2:
        raise ValueError(f"give two epochs to compare, as --epoch 0 --epoch 4; got {epoch}")
    explanations, (earlier, later) = open_explanations(run), sorted(set(epoch))
    names = [method] if method else _find_methods(explanations, earlier, later)
    if png is not None and len(names) > 1:
        raise ValueError(f"a picture shows one method; give --method, one of {', '.join(names)}")
    for name in names:
        before, after = (explanations.explanation(number, name) for number in (earlier, later))
        sample_ids = _compare(before, after, top)
        if png is not None:
            image = draw_change(before, after, sample_ids, explanations.probe())
            with writing(png):
                png.write_bytes(encode_png(image))
            say(str(png))


def _find_methods(explanations: Explanations, earlier: int, later: int) -> list[str]:
    """Returns the methods that both epochs have.

    Raises:
        CheckpointError: if there are none.
    """
    names = set(explanations.methods(earlier)) & set(explanations.methods(later))
    if not names:
        raise CheckpointError(
            f"{explanations.path} has no method at both epochs {earlier} and {later}; there are:"
            f" {write_epochs(explanations.epochs_by_method)}"
        )
    return sorted(names)


def _compare(before: Explanation, after: Explanation, top: int) -> Int64[np.ndarray, "m"]:
    """Prints how two explanations differ, and returns the ids of the samples that changed most."""
    snapshots = snapshot(before), snapshot(after)
    found, cosines = drift(*snapshots), similarities(*snapshots)
    span = f"epoch {before.manifest.epoch} to {after.manifest.epoch}"
    say(f"{after.manifest.method}, {span}: {_write_drift(found)}")
    # the least similar first; NaN, of samples that are not compared, is sorted behind all others
    rows = np.argsort(cosines, kind="stable")[: min(top, found.n_samples)]
    print_table(_table_of_samples(before, after, rows.tolist(), cosines))
    return np.asarray(after.column("sample_id")[rows], np.int64)


def _write_drift(found: Drift) -> str:
    """Writes how far two explanations are from each other."""
    changed = found.changed_predictions
    of_predictions = "" if changed is None else f", {changed:.1%} of predictions changed"
    left_out = (
        f", {found.n_left_out} left out, which have values that are not finite"
        if found.n_left_out
        else ""
    )
    return (
        f"mean cosine {found.mean_cosine:.3f}, median {found.median_cosine:.3f}, relative L2"
        f" {found.relative_l2:.2f}{of_predictions}; {found.n_samples} samples compared{left_out}"
    )


def _table_of_samples(
    before: Explanation, after: Explanation, rows: Sequence[int], cosines: np.ndarray
) -> Table:
    sample_ids, targets = after.column("sample_id"), after.column("target")

    def write_change(name: str) -> list[str]:
        pair = [one.column(name) for one in (before, after)]
        return [" -> ".join(f"{values[row]:.4g}" for values in pair) for row in rows]

    columns = {
        "sample": [str(sample_ids[row]) for row in rows],
        "cosine": [f"{cosines[row]:.3f}" for row in rows],
        "target": [f"{targets[row]:.4g}" for row in rows],
        "prediction": write_change("prediction"),
        "score": write_change("score"),
    }
    return make_table(columns)
