"""`hvd-xai show`: what a run explained, as a table, as numbers of single samples, or as a
picture.
"""

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from hvd_xai.analysis.drift import Drift
from hvd_xai.analysis.statistics import figures, signs
from hvd_xai.checkpoint.reader import Explanation, Explanations, open_explanations
from hvd_xai.cli.console import program
from hvd_xai.errors import CheckpointError
from hvd_xai.protocols import Json
from hvd_xai.views import contact_sheet, layout, pixels
from hvd_xai.views.token_text import words_of

MAX_SAMPLES = 500
MAX_EPOCHS = 12
DEFAULT_SAMPLES = 32
MAX_STRONGEST = 10

# What is left out first where the terminal is narrow.
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
    chosen = _chosen(explanations, epoch or ("newest" if sample or png else "all"), method or [])
    if png is not None and as_json:
        raise ValueError(
            "--png and --json cannot be given together; run the command once with each"
        )
    if png is not None:
        sample_ids = (
            _sample_ids(sample, chosen)
            if sample
            else chosen[0].column("sample_id")[:DEFAULT_SAMPLES]
        )
        _draw(explanations, chosen, sample_ids, png, name=explanations.path.resolve().parent.name)
    elif sample:
        sample_ids = _sample_ids(sample, chosen)
        rows = _numbers(explanations, chosen, sample_ids)
        if as_json:
            print(_json({"run": run, "samples": rows}))
            return
        _print(_samples_table(explanations, rows))
        if len({(row["sample_id"], row["epoch"]) for row in rows}) == 1:
            _print_strongest(explanations, chosen, sample_ids)
    else:
        lines = [_line(explanations, explanation) for explanation in chosen]
        if as_json:
            print(_json({"run": run, "explanations": [asdict(line) for line in lines]}))
            return
        _print(_table(lines))
        example = int(chosen[-1].column("sample_id")[0])
        command = f"{program('hvd-xai')} show {shlex.quote(run)}"
        print(
            f"Look at one sample: {command} --sample {example} --epoch {lines[-1].epoch} --png"
            " out.png"
        )


@dataclass(frozen=True, slots=True)
class _Line:
    """What the table says of one explanation."""

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


def _chosen(explanations: Explanations, epoch: str, methods: Sequence[str]) -> list[Explanation]:
    """Opens the explanations asked for; at least one."""
    epochs = explanations.epochs
    if not epochs:
        raise CheckpointError(
            f"{explanations.path} holds no explanation yet; one is committed at the end of each"
            " epoch that is explained"
        )
    known = sorted({name for number in epochs for name in explanations.methods(number)})
    absent = [name for name in methods if name not in known]
    if absent:
        raise ValueError(
            f"there is no method '{absent[0]}' in this run; there are: {', '.join(known)}"
        )
    having = [
        number
        for number in epochs
        if not methods or set(methods) & set(explanations.methods(number))
    ]
    if epoch == "all":
        wanted = having
    elif epoch == "newest":
        wanted = having[-1:]
    elif epoch.isdecimal() and int(epoch) in having:
        wanted = [int(epoch)]
    else:
        of_methods = f" of {', '.join(methods)}" if methods else ""
        raise ValueError(
            f"there is no epoch {epoch}{of_methods} in this run; there are: {_ranges(having)}, and"
            " 'all'"
        )
    opened = [
        explanations.explanation(number, name)
        for number in wanted
        for name in explanations.methods(number)
        if not methods or name in methods
    ]
    # Within an epoch the finest first: what is attributed to each pixel, then the coarse maps that
    # are laid over the input.
    return sorted(
        opened,
        key=lambda one: (one.manifest.epoch, -math.prod(one.sample_shape), one.manifest.method),
    )


def _sample_ids(said: Sequence[str], chosen: Sequence[Explanation]) -> np.ndarray:
    """Returns the sample ids that are meant, each once, in the order given."""
    wanted: dict[int, None] = {}
    for part in (part.strip() for text in said for part in text.split(",")):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(
                "sample ids are numbers such as 17, ranges such as 0-31, or several with commas;"
                f" got {part!r}"
            )
        if dash and int(last) < int(first):
            raise ValueError(f"a range of sample ids ends where it begins or later; got {part!r}")
        if int(last or first) - int(first) + len(wanted) >= MAX_SAMPLES:
            raise ValueError(f"at most {MAX_SAMPLES} samples can be shown at a time; ask for fewer")
        wanted.update(dict.fromkeys(range(int(first), int(last or first) + 1)))
    stored = chosen[0].column("sample_id")
    absent = [sample_id for sample_id in wanted if sample_id not in stored]
    if absent:
        raise ValueError(
            f"there is no sample {absent[0]} in this run; there are: {_ranges(stored.tolist())}"
        )
    return np.array(list(wanted), np.int64)


def _ranges(numbers: Sequence[int]) -> str:
    """Writes ascending numbers as people do: 0-4, 7, 9-11; cut off after a few."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    parts = [str(first) if first == last else f"{first}-{last}" for first, last in runs]
    return ", ".join(parts[:8]) + (f", ... {numbers[-1]}" if len(parts) > 8 else "")


def _draw(
    explanations: Explanations,
    chosen: Sequence[Explanation],
    sample_ids: np.ndarray,
    png: Path,
    name: str,
) -> None:
    if not png.parent.is_dir():
        raise ValueError(
            f"the folder '{png.parent}' does not exist; make it, or choose another for --png"
        )
    epochs = sorted({explanation.manifest.epoch for explanation in chosen})
    if len(epochs) > 1 and len(sample_ids) > 1:
        raise ValueError(
            f"{len(sample_ids)} samples of {len(epochs)} epochs do not go into one picture; give"
            " one --sample, or one --epoch"
        )
    shown = [
        epochs[round(index)]
        for index in np.linspace(0, len(epochs) - 1, min(len(epochs), MAX_EPOCHS))
    ]
    chosen = [explanation for explanation in chosen if explanation.manifest.epoch in shown]
    probe = explanations.probe()
    inputs = None if probe is None else probe.inputs(chosen[0].rows_of(sample_ids))
    class_names = () if probe is None else probe.class_names
    signed = signs(chosen)
    samples = contact_sheet.samples(chosen, sample_ids, inputs, signed=signed)
    if len(samples) == 1:
        image = contact_sheet.strip(
            samples[0], class_names=class_names, size=200 if len(shown) == 1 else 176, title=name
        )
    else:
        image = contact_sheet.contact_sheet(
            samples, class_names=class_names, title=f"{name} · epoch {shown[0]}"
        )
    png.write_bytes(layout.png(image))
    print(png)
    if len(shown) < len(epochs):
        print(
            f"{len(shown)} of {len(epochs)} epochs are drawn, evenly spread; --epoch shows one by"
            " itself"
        )


def _line(explanations: Explanations, explanation: Explanation) -> _Line:
    manifest, found = explanation.manifest, figures(explanations, explanation)
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


def _numbers(
    explanations: Explanations, chosen: Sequence[Explanation], sample_ids: np.ndarray
) -> list[dict[str, Json]]:
    """Returns what is known of samples, one record a sample and explanation."""
    probe = explanations.probe()
    records: dict[int, list[dict[str, Json]]] = {int(sample_id): [] for sample_id in sample_ids}
    for explanation in chosen:
        rows, names, vocabulary = (
            explanation.rows_of(sample_ids),
            explanation.feature_names,
            explanation.vocabulary,
        )
        tokens = probe.inputs(rows) if probe is not None and vocabulary else None
        columns = {
            name: explanation.column(name)[rows].tolist()
            for name in explanation.columns
            if name not in ("scale", "content_hash")
        }
        for index, row in enumerate(rows.tolist()):
            attributions = explanation.attributions(row, row + 1)
            finite = attributions[np.isfinite(attributions)].astype(np.float64)
            record: dict[str, Json] = {name: values[index] for name, values in columns.items()}
            record |= {"epoch": explanation.manifest.epoch, "method": explanation.manifest.method}
            record |= {
                "sum": float(finite.sum()),
                "largest": float(np.abs(finite).max(initial=0.0)),
            }
            record["nonfinite"] = int(attributions.size - finite.size)
            if names:
                strongest = pixels.strongest(attributions, MAX_STRONGEST).tolist()
                record["features"] = {
                    names[feature]: float(attributions[0, feature]) for feature in strongest
                }
            if tokens is not None:
                words = words_of(tokens[index], vocabulary)
                record["tokens"] = [
                    {
                        "word": words[position],
                        "position": position,
                        "attribution": float(attributions[0, position]),
                    }
                    for position in _strongest_words(attributions, words).tolist()
                ]
            records[int(sample_ids[index])].append(record)
    return [record for of_sample in records.values() for record in of_sample]


def _table(figures: Sequence[_Line]) -> Table:
    cells = {
        "epoch": [str(row.epoch) for row in figures],
        "method": [row.method for row in figures],
        "samples": [str(row.n_samples) for row in figures],
        "ranks": [str(row.world_size) for row in figures],
        "accuracy": [_number(row.accuracy, ".1%") for row in figures],
        "score": [_number(row.score, ".3g") for row in figures],
        "|conv. delta|": [_number(row.convergence_delta, ".2g") for row in figures],
        "drift: cosine": [
            _number(row.drift.mean_cosine if row.drift else None, ".3f") for row in figures
        ],
        "rel. L2": [
            _number(row.drift.relative_l2 if row.drift else None, ".2f") for row in figures
        ],
        "changed": [
            _number(row.drift.changed_predictions if row.drift else None, ".1%") for row in figures
        ],
        "not finite": [str(row.nonfinite) for row in figures],
        "size": [_bytes(row.n_bytes) for row in figures],
        "committed": [
            f"{datetime.fromisoformat(row.created).astimezone():%m-%d %H:%M}" for row in figures
        ],
    }
    return _fitted(
        cells,
        starts=[
            index
            for index, row in enumerate(figures)
            if index and row.epoch != figures[index - 1].epoch
        ],
    )


def _samples_table(explanations: Explanations, rows: Sequence[dict[str, Json]]) -> Table:
    probe = explanations.probe()
    names = () if probe is None else probe.class_names

    def named(value: Json) -> str:
        if isinstance(value, int) and 0 <= value < len(names) and names[value] != str(value):
            return f"{value} {_harmless(names[value])}"
        return _number(value, ".4g") if isinstance(value, float) else str(value)

    cells = {
        "sample": [str(row["sample_id"]) for row in rows],
        "epoch": [str(row["epoch"]) for row in rows],
        "method": [str(row["method"]) for row in rows],
        **{name: [named(row[name]) for row in rows] for name in ("label", "target", "prediction")},
        "score": [_number(row["score"], ".4g") for row in rows],
        "conv. delta": [_number(row.get("convergence_delta"), ".2g") for row in rows],
        "sum": [_number(row["sum"], ".3g") for row in rows],
        "largest": [_number(row["largest"], ".3g") for row in rows],
        "not finite": [str(row["nonfinite"]) for row in rows],
    }
    return _fitted(
        cells,
        starts=[
            index
            for index, row in enumerate(rows)
            if index and row["sample_id"] != rows[index - 1]["sample_id"]
        ],
    )


def _print_strongest(
    explanations: Explanations, chosen: Sequence[Explanation], sample_ids: np.ndarray
) -> None:
    """Prints which features or words of a sample are the strongest, with a column for each method,
    where they have names.
    """
    named = [
        explanation for explanation in chosen if explanation.feature_names or explanation.vocabulary
    ]
    probe = explanations.probe()
    if not named or probe is None:
        return
    names, inputs = named[0].feature_names, probe.inputs(named[0].rows_of(sample_ids))[0]
    attributions = [explanation.attributions_of(sample_ids)[0] for explanation in named]
    scaled = np.stack([values / pixels.robust_limit(values, 100.0) for values in attributions])
    if names:
        titles, order = ("feature", "value", "others"), pixels.strongest(scaled, MAX_STRONGEST)
        beside = [f"{value:.4g}" for value in inputs.tolist()]
    else:
        names = words_of(inputs, named[0].vocabulary)
        titles, order = ("word", "position", "other tokens"), _strongest_words(scaled, names)
        beside = [str(position) for position in range(len(names))]
    n_others = len(names) - len(order)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column(titles[0], overflow="fold")
    for name in (titles[1], *(explanation.manifest.method for explanation in named)):
        table.add_column(name, justify="right", overflow="fold")
    for place in order.tolist():
        table.add_row(
            _harmless(names[place]),
            beside[place],
            *(f"{values[place]:+.3g}" for values in attributions),
        )
    if n_others:
        table.add_row(
            f"{n_others} {titles[2]}",
            "",
            *(f"{pixels.sum_of_others(values, order):+.3g}" for values in attributions),
        )
    print()
    _print(table)


def _harmless(name: str) -> str:
    """Returns a name, which may come from anybody, without characters that steer a terminal."""
    return "".join(character if character.isprintable() else "?" for character in name)


def _strongest_words(attributions: np.ndarray, words: Sequence[str]) -> np.ndarray:
    """Returns the places of the strongest words, padding left out, the strongest of any row of
    attributions first.
    """
    places = np.flatnonzero(np.array(words) != "")
    return places.take(pixels.strongest(attributions[:, places], MAX_STRONGEST))


def _fitted(cells: dict[str, list[str]], starts: Sequence[int]) -> Table:
    """Makes a table with a line above some rows; columns are left out, the least important first,
    until it fits the terminal.
    """
    available, unlimited = _console().width, Console(width=10_000)
    for left_out in ("", *_LEAST_IMPORTANT):
        cells.pop(left_out, None)
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for name in cells:
            table.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
        for index, row in enumerate(zip(*cells.values(), strict=True)):
            if index in starts and len(cells["method"]) > len(starts) + 1:
                table.add_row()
            table.add_row(*row)
        if Measurement.get(unlimited, unlimited.options, table).maximum <= available:
            return table
    return table


def _console() -> Console:
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=200)


def _print(table: Table) -> None:
    _console().print(table)


def _number(value: Json, form: str) -> str:
    return "-" if not isinstance(value, int | float) or math.isnan(value) else format(value, form)


def _bytes(n_bytes: int) -> str:
    if n_bytes < 1000:
        return f"{n_bytes} B"
    size = float(n_bytes)
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 1000:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"


def _json(record: Json) -> str:
    """Writes JSON that every reader takes: what is not finite becomes null."""

    def plain(value: Json) -> Json:
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list) else value

    return json.dumps(plain(record), indent=2)
