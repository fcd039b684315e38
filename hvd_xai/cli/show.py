"""`hvd-xai show`: what a run explained, in a table, in numbers of single samples, or drawn."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from jaxtyping import Int64
from rich.table import Table

from hvd_xai.analysis.drift import Drift
from hvd_xai.analysis.sample_numbers import read_columns, summarise
from hvd_xai.analysis.statistics import compute_statistics
from hvd_xai.checkpoint.probe_reader import ProbeReader
from hvd_xai.checkpoint.reader import Explanation, Explanations, open_explanations
from hvd_xai.cli.console import program
from hvd_xai.cli.selection import parse_sample_ids, select_explanations
from hvd_xai.cli.tables import (
    find_starts,
    fit_table,
    make_table,
    print_table,
    write_bytes,
    write_json,
    write_number,
)
from hvd_xai.protocols import Json
from hvd_xai.views.kind import Strongest, find_kind
from hvd_xai.views.layout import png as encode_png
from hvd_xai.views.run_picture import draw_run, spread_epochs
from hvd_xai.views.samples import read_samples

DEFAULT_SAMPLES = 32
MAX_STRONGEST = 10
# Number of samples whose attributions are held at a time.
_BLOCK = 32

# Columns that are left out if the terminal is narrow, in this order.
_LEAST_IMPORTANT = (
    "committed",
    "size",
    "changed",
    "ranks",
    "largest",
    "not finite",
    "samples",
    "sum",
    "label",
    "score",
)


def show(
    run: Annotated[
        str, typer.Argument(help="The folder of a run, or its URL: s3://bucket/run.", metavar="RUN")
    ],
    sample: Annotated[
        list[str] | None,
        typer.Option(help="Sample ids: 17, or 0-31, or 3,5,8. Can be given again."),
    ] = None,
    epoch: Annotated[
        str | None,
        typer.Option(
            help="An epoch, or 'all'. Of samples, the newest is shown if this is left out."
        ),
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Only this method. Can be given again.")
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option(
            help="Draw the samples into this file: one as a strip, many as a contact sheet."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Shows what a run explained: a table of epochs and methods, samples in numbers, or a picture.

    hvd-xai show runs/demo

    hvd-xai show runs/demo --sample 17 --epoch 4 --png out.png

    hvd-xai show runs/demo --sample 0-31 --png sheet.png

    hvd-xai show runs/demo --sample 17 --epoch all --png evolution.png
    """
    explanations = open_explanations(run)
    newest_or_all = "newest" if sample or png else "all"
    chosen = select_explanations(explanations, epoch or newest_or_all, method or [])
    if png is not None and as_json:
        raise ValueError(
            "--png and --json cannot be given together; run the command once with each"
        )
    stored = chosen[0].column("sample_id")
    sample_ids = parse_sample_ids(sample, stored) if sample else stored[:DEFAULT_SAMPLES]
    if png is not None:
        _draw(explanations, chosen, sample_ids, png)
    elif sample:
        _tell_samples(run, explanations, chosen, sample_ids, as_json=as_json)
    else:
        _tell_run(run, explanations, chosen, as_json=as_json)


@dataclass(frozen=True, slots=True)
class _Line:
    """Holds one line of the table of a run: one explanation."""

    epoch: int
    method: str
    step: int
    n_samples: int
    world_size: int
    accuracy: float | None
    score: float
    convergence_delta: float | None
    drift: Drift | None
    nonfinite: int
    n_bytes: int
    created: str


def _draw(
    explanations: Explanations,
    chosen: Sequence[Explanation],
    sample_ids: Int64[np.ndarray, "m"],
    png: Path,
) -> None:
    """Draws samples into a file, and says what was drawn."""
    if not png.parent.is_dir():
        raise ValueError(
            f"the folder '{png.parent}' does not exist; make it, or choose another for --png"
        )
    title = explanations.path.resolve().parent.name
    png.write_bytes(encode_png(draw_run(chosen, sample_ids, explanations.probe(), title)))
    print(png)
    n_drawn, n_epochs = len(spread_epochs(chosen)), len({one.manifest.epoch for one in chosen})
    if n_drawn < n_epochs:
        print(
            f"{n_drawn} of {n_epochs} epochs are drawn, evenly spread; --epoch shows one by itself"
        )


def _tell_run(
    run: str, explanations: Explanations, chosen: Sequence[Explanation], *, as_json: bool
) -> None:
    """Prints a line for each explanation, and how to look at a sample."""
    lines = [_read_line(explanations, explanation) for explanation in chosen]
    if as_json:
        print(write_json({"run": run, "explanations": [asdict(line) for line in lines]}))
        return
    print_table(_table_of_run(lines))
    example = int(chosen[-1].column("sample_id")[0])
    command = f"{program('hvd-xai')} show {shlex.quote(run)}"
    print(
        f"Look at one sample: {command} --sample {example} --epoch {lines[-1].epoch} --png out.png"
    )


def _tell_samples(
    run: str,
    explanations: Explanations,
    chosen: Sequence[Explanation],
    sample_ids: Int64[np.ndarray, "m"],
    *,
    as_json: bool,
) -> None:
    """Prints a line for each sample and explanation.

    For a single sample at one epoch it prints the strongest parts as well.
    """
    probe = explanations.probe()
    by_explanation = [_read_records(one, sample_ids, probe, has_parts=as_json) for one in chosen]
    # Turned over: lines go sample by sample, and within a sample explanation by explanation.
    records = [record for of_sample in zip(*by_explanation, strict=True) for record in of_sample]
    if as_json:
        print(write_json({"run": run, "samples": list[Json](records)}))
        return
    print_table(_table_of_samples(records, () if probe is None else probe.class_names))
    if len(sample_ids) == 1 and len({one.manifest.epoch for one in chosen}) == 1:
        (sample,) = read_samples(chosen, sample_ids, probe)
        strongest = find_kind(sample.known).strongest(sample, MAX_STRONGEST)
        if strongest is not None:
            print()
            print_table(_table_of_parts(strongest))


def _read_records(
    explanation: Explanation,
    sample_ids: Int64[np.ndarray, "m"],
    probe: ProbeReader | None,
    *,
    has_parts: bool,
) -> list[dict[str, Json]]:
    """Reads the numbers of some samples in one explanation, in bounded memory.

    Args:
        explanation: explanation that is read.
        sample_ids: ids of the samples.
        probe: stored probe; None if the run has none.
        has_parts: whether each record includes the strongest parts of its sample.
    """
    records = read_columns(explanation, sample_ids)
    for start in range(0, len(records), _BLOCK):
        block = slice(start, start + _BLOCK)
        samples = read_samples([explanation], sample_ids[block], probe if has_parts else None)
        for record, sample in zip(records[block], samples, strict=True):
            record.update(summarise(sample.panels[0].attributions))
            if has_parts:
                found = find_kind(sample.known).strongest(sample, MAX_STRONGEST)
                record.update({} if found is None else found.record)
    return records


def _read_line(explanations: Explanations, explanation: Explanation) -> _Line:
    manifest, found = explanation.manifest, compute_statistics(explanations, explanation)
    return _Line(
        epoch=manifest.epoch,
        method=manifest.method,
        step=manifest.step,
        n_samples=manifest.n_samples,
        world_size=manifest.world_size,
        accuracy=found.accuracy,
        score=found.score,
        convergence_delta=found.convergence_delta,
        drift=found.drift,
        nonfinite=manifest.nonfinite,
        n_bytes=manifest.n_bytes,
        created=manifest.created,
    )


def _table_of_run(lines: Sequence[_Line]) -> Table:
    drifts = [line.drift for line in lines]
    columns = {
        "epoch": [str(line.epoch) for line in lines],
        "method": [line.method for line in lines],
        "samples": [str(line.n_samples) for line in lines],
        "ranks": [str(line.world_size) for line in lines],
        "accuracy": [write_number(line.accuracy, ".1%") for line in lines],
        "score": [write_number(line.score, ".3g") for line in lines],
        "|conv. delta|": [write_number(line.convergence_delta, ".2g") for line in lines],
        "drift: cosine": [write_number(one.mean_cosine if one else None, ".3f") for one in drifts],
        "rel. L2": [write_number(one.relative_l2 if one else None, ".2f") for one in drifts],
        "changed": [
            write_number(one.changed_predictions if one else None, ".1%") for one in drifts
        ],
        "not finite": [str(line.nonfinite) for line in lines],
        "size": [write_bytes(line.n_bytes) for line in lines],
        "committed": [
            f"{datetime.fromisoformat(line.created).astimezone():%m-%d %H:%M}" for line in lines
        ],
    }
    return fit_table(columns, find_starts(columns["epoch"]), _LEAST_IMPORTANT)


def _table_of_samples(records: Sequence[Mapping[str, Json]], class_names: Sequence[str]) -> Table:
    def describe(value: Json) -> str:
        if isinstance(value, int) and 0 <= value < len(class_names):
            name = class_names[value]
            return str(value) if name == str(value) else f"{value} {name}"
        return write_number(value, ".4g") if isinstance(value, float) else str(value)

    columns = {
        "sample": [str(record["sample_id"]) for record in records],
        "epoch": [str(record["epoch"]) for record in records],
        "method": [str(record["method"]) for record in records],
        "label": [describe(record["label"]) for record in records],
        "target": [describe(record["target"]) for record in records],
        "prediction": [describe(record["prediction"]) for record in records],
        "score": [write_number(record["score"], ".4g") for record in records],
        "conv. delta": [write_number(record.get("convergence_delta"), ".2g") for record in records],
        "sum": [write_number(record["sum"], ".3g") for record in records],
        "largest": [write_number(record["largest"], ".3g") for record in records],
        "not finite": [str(record["nonfinite"]) for record in records],
    }
    return fit_table(columns, find_starts(columns["sample"]), _LEAST_IMPORTANT)


def _table_of_parts(strongest: Strongest) -> Table:
    """Returns a table with a row for each of the strongest parts, and a column for each method."""
    others = () if strongest.others is None else (strongest.others,)
    parts = [*strongest.parts, *others]
    columns = {
        strongest.titles[0]: [part.name for part in parts],
        strongest.titles[1]: [part.beside for part in parts],
        **{
            panel.method: [f"{part.attributions[index]:+.3g}" for part in parts]
            for index, panel in enumerate(strongest.panels)
        },
    }
    return make_table(columns, left=[strongest.titles[0]])
