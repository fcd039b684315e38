"""Tells samples in numbers: a line for each sample and explanation, and its strongest parts."""

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from jaxtyping import Int64
from rich.table import Table

from hvd_xai.analysis.sample_numbers import read_columns, summarise
from hvd_xai.checkpoint.explanation import Explanation
from hvd_xai.checkpoint.probe_reader import ProbeReader
from hvd_xai.cli.tables import find_starts, fit_table, make_table, write_number
from hvd_xai.protocols import Json, ScoreClass, ScoreFacts, ScoreUnit
from hvd_xai.views.captions import describe_score
from hvd_xai.views.doubtful import find_doubts
from hvd_xai.views.kind import Part, Strongest, find_kind
from hvd_xai.views.samples import read_samples

MAX_STRONGEST = 10
# Number of samples whose attributions are held at a time.
_BLOCK = 32
# Columns that are left out if the terminal is narrow, in this order.
_LEAST_IMPORTANT = ("largest", "not finite", "sum", "label", "score of", "score")


def read_records(
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
        samples = read_samples([explanation], sample_ids[block], probe)
        for record, sample in zip(records[block], samples, strict=True):
            record.update(summarise(sample.panels[0].attributions))
            record["doubts"] = list(find_doubts(sample.panels[0], sample).doubts)
            if has_parts:
                found = find_kind(sample.known).strongest(sample, MAX_STRONGEST)
                record.update({} if found is None else found.record)
    return records


def make_sample_table(records: Sequence[Mapping[str, Json]], class_names: Sequence[str]) -> Table:
    """Makes the table of records, which `read_records` returned, that fits the terminal."""

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
        "score of": [_tell_score(record, class_names) for record in records],
        "conv. delta": [write_number(record.get("convergence_delta"), ".2g") for record in records],
        "sum": [write_number(record["sum"], ".3g") for record in records],
        "largest": [write_number(record["largest"], ".3g") for record in records],
        "not finite": [str(record["nonfinite"]) for record in records],
        "doubts": [
            ", ".join(map(str, doubts)) if isinstance(doubts := record["doubts"], list) else ""
            for record in records
        ],
    }
    # columns that would be empty
    for name in ("score of", "doubts"):
        if not any(columns[name]):
            del columns[name]
    return fit_table(columns, find_starts(columns["sample"]), _LEAST_IMPORTANT)


def _tell_score(record: Mapping[str, Json], class_names: Sequence[str]) -> str:
    """Says what a record's score is, and of which class; empty if that is not known."""
    unit, of_class = (
        value if isinstance(value := record[name], str) else None
        for name in ("score_unit", "score_class")
    )
    facts = ScoreFacts(cast(ScoreUnit | None, unit), cast(ScoreClass | None, of_class))
    prediction, target = (
        value if isinstance(value := record[name], int | float) else 0
        for name in ("prediction", "target")
    )
    return describe_score(facts, prediction, target, class_names)


def make_parts_table(strongest: Strongest) -> Table:
    """Returns a table with a row for each of the strongest parts, and a column for each method."""
    others = () if strongest.others is None else (strongest.others,)
    parts = [*strongest.parts, *others]
    columns = {
        strongest.titles[0]: [part.name for part in parts],
        strongest.titles[1]: [part.beside for part in parts],
        **{
            panel.method: [_write_attribution(part, index) for part in parts]
            for index, panel in enumerate(strongest.panels)
        },
    }
    return make_table(columns, left=[strongest.titles[0]])


def _write_attribution(part: Part, index: int) -> str:
    """Writes the attribution of a part in one panel, with its standard error if it has one."""
    error = part.standard_errors[index] if part.standard_errors else None
    return f"{part.attributions[index]:+.3g}" + ("" if error is None else f" ± {error:.2g}")
