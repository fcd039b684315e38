"""`hvd-xai show`: what a run explained, in a table, in numbers of single samples, or drawn."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from jaxtyping import Int64

from hvd_xai.checkpoint.explanation import Explanation
from hvd_xai.checkpoint.reader import Explanations, open_explanations
from hvd_xai.cli import options
from hvd_xai.cli.console import program, say
from hvd_xai.cli.run_table import make_run_table, read_line, tell_lines
from hvd_xai.cli.sample_table import (
    MAX_STRONGEST,
    make_parts_table,
    make_sample_table,
    read_records,
)
from hvd_xai.cli.selection import parse_sample_ids, select_explanations
from hvd_xai.cli.tables import print_table, write_json
from hvd_xai.errors import write_ranges
from hvd_xai.protocols import Json
from hvd_xai.storage.durable import writing
from hvd_xai.views.kind import find_kind
from hvd_xai.views.layout import png as encode_png
from hvd_xai.views.run_picture import draw_run, spread_epochs
from hvd_xai.views.samples import read_samples

DEFAULT_SAMPLES = 32


def show(
    run: options.Run,
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
    picture = encode_png(draw_run(chosen, sample_ids, explanations.probe(), title))
    with writing(png):
        png.write_bytes(picture)
    say(str(png))
    n_drawn, n_epochs = len(spread_epochs(chosen)), len({one.manifest.epoch for one in chosen})
    if n_drawn < n_epochs:
        say(f"{n_drawn} of {n_epochs} epochs are drawn, evenly spread; --epoch shows one by itself")


def _tell_run(
    run: str, explanations: Explanations, chosen: Sequence[Explanation], *, as_json: bool
) -> None:
    """Prints a line for each explanation, and how to look at a sample."""
    lines = [read_line(explanations, explanation) for explanation in chosen]
    if as_json:
        told: Json = [asdict(line) for line in lines]
        record: Json = {"run": run, "explanations": told, "gaps": {**explanations.gaps}}
        say(*write_json(record).splitlines())
        return
    print_table(make_run_table(lines))
    say(*tell_lines(lines))
    for name, epochs in explanations.gaps.items():
        say(f"{name} has a gap: epoch {write_ranges(epochs)} was due and never committed")
    example = int(chosen[-1].column("sample_id")[0])
    command = f"{program('hvd-xai')} show {shlex.quote(run)}"
    say(f"Look at one sample: {command} --sample {example} --epoch {lines[-1].epoch} --png out.png")


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
    by_explanation = [read_records(one, sample_ids, probe, has_parts=as_json) for one in chosen]
    # Turned over: lines go sample by sample, and within a sample explanation by explanation.
    records = [record for of_sample in zip(*by_explanation, strict=True) for record in of_sample]
    if as_json:
        say(*write_json({"run": run, "samples": list[Json](records)}).splitlines())
        return
    print_table(make_sample_table(records, () if probe is None else probe.class_names))
    if len(sample_ids) == 1 and len({one.manifest.epoch for one in chosen}) == 1:
        (sample,) = read_samples(chosen, sample_ids, probe)
        strongest = find_kind(sample.known).strongest(sample, MAX_STRONGEST)
        if strongest is not None:
            say("")
            print_table(make_parts_table(strongest))
