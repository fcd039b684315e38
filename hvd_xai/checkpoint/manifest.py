"""Defines the header and the manifest of an explanation checkpoint.

The header has the facts that are known before the rows; the manifest adds the facts that follow
from the rows, and lists every file of the checkpoint.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import PurePosixPath
from typing import cast, get_args

import numpy as np

from hvd_xai.checkpoint.json_record import SCHEMA, Fields, seal, unseal
from hvd_xai.checkpoint.rows import BUILT_IN, NAME_FORM, dtypes_of, row_dtype
from hvd_xai.errors import CheckpointError
from hvd_xai.protocols import (
    AttributedTo,
    Channels,
    Json,
    ScoreClass,
    ScoreFacts,
    ScoreUnit,
)
from hvd_xai.storage.durable import FileEntry

MANIFEST = "manifest.json"


def check_name(method: str) -> None:
    """Raises `ValueError` if a method cannot be committed under this name."""
    if not NAME_FORM.fullmatch(method):
        raise ValueError(
            "a method's name must be letters, digits, '_' and '-', and begin with a letter or '_',"
            f" for it names a folder; got {method!r}"
        )


@dataclass(frozen=True, slots=True)
class RankRows:
    """The rows that one rank computed: `start` to `stop`, which may be equal."""

    rank: int
    host: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The facts about an explanation that are known before its rows.

    Args:
        run: name of the run.
        epoch: epoch of the explanation, 0-based.
        step: number of optimizer updates so far.
        method: name that the method is committed under, and name of the checkpoint's folder.
        options: options of the method.
        n_samples: number of rows that the checkpoint will have, at least 1.
        sample_shape: shape of one sample's attributions.
        world_size: number of ranks that took part.
        ranks: rows of each rank, in order; together they are 0 to `n_samples`.
        weights_digest: digest of the explained weights.
        probe_digest: digest of the probe.
        versions: versions of the libraries that computed it, by name.
        metrics: metrics of the epoch by name, such as `val_loss`: finite numbers, or lists of
            numbers, in which None stands for a number that is not finite.
        git_commit: commit of the code that computed it; None if the code is not under git.
        function: name of the method's function; `method` if empty.
        attributed_to: "inputs", "places" or "units", to which attributions belong; None if the
            method does not say.
        signed: whether attributions have a sign by definition; None if the method does not say.
        score_facts: unit of the score, and class that it belongs to, as far as they are known.
        doubts: number of samples by each reason to doubt their attributions, as
            `hvd_xai.analysis.doubts` names it; without reasons that no sample has.
        channels: where the inputs, and attributions of them, have their channels; None if the model
            does not tell.
        precision: precision of the computation, such as `bfloat16`; None for the model's own.
        precision_error: relative L2 error that the precision makes on the first examples; None if
            it was not measured, or is not finite.

    Raises:
        ValueError: if a value is out of range or malformed.
    """

    run: str
    epoch: int
    step: int
    method: str
    options: Mapping[str, Json]
    n_samples: int
    sample_shape: tuple[int, ...]
    world_size: int
    ranks: tuple[RankRows, ...]
    weights_digest: str
    probe_digest: str
    versions: Mapping[str, str]
    metrics: Mapping[str, Json] = field(default_factory=dict)
    git_commit: str | None = None
    function: str = ""
    attributed_to: AttributedTo | None = None
    signed: bool | None = None
    score_facts: ScoreFacts = field(default_factory=ScoreFacts)
    doubts: Mapping[str, int] = field(default_factory=dict)
    channels: Channels | None = None
    precision: str | None = None
    precision_error: float | None = None

    @property
    def channels_first(self) -> bool:
        """Whether the first axis of one sample's attributions has channels."""
        return (
            self.channels == "first"
            and self.attributed_to == "inputs"
            and len(self.sample_shape) > 1
        )

    def __post_init__(self) -> None:
        check_name(self.method)
        object.__setattr__(self, "function", self.function or self.method)
        if self.n_samples < 1 or self.epoch < 0 or self.step < 0:
            raise ValueError(
                f"n_samples must be 1 or more, epoch and step 0 or more; got {self.n_samples},"
                f" {self.epoch} and {self.step}"
            )
        if len(self.ranks) != self.world_size:
            raise ValueError(
                f"ranks must say the rows of each of the {self.world_size} ranks; got"
                f" {len(self.ranks)} entries"
            )
        stop = 0
        for rows in self.ranks:
            if rows.start != stop or rows.stop < stop:
                raise ValueError(
                    f"ranks must cut rows 0 to {self.n_samples} in order; rank {rows.rank} has"
                    f" {rows.start} to {rows.stop} after {stop}"
                )
            stop = rows.stop
        if stop != self.n_samples:
            raise ValueError(f"the ranks' rows end at {stop}; n_samples is {self.n_samples}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest(Header):
    """The commit record of a checkpoint: the header, and facts that follow from its rows.

    Args:
        dtypes: dtypes of the arrays by name, such as `"<f4"`.
        sample_order_digest: xxh3-128 of the sample ids in row order; checkpoints with equal digests
            compare row by row.
        nonfinite: number of attribution values that are NaN or infinite.
        negative: number of attribution values below zero; None in old checkpoints, which do not
            count them.
        created: time of the commit, ISO 8601, UTC.
        files: files of the checkpoint, without the manifest.
        schema: schema of the version that wrote it.
    """

    dtypes: Mapping[str, str]
    sample_order_digest: str
    nonfinite: int
    created: str
    files: tuple[FileEntry, ...]
    negative: int | None = None
    schema: str = SCHEMA

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the rows.

        Raises:
            CheckpointError: if this version cannot write rows of the manifest's dtypes.
        """
        per_sample = {name: dtype for name, dtype in self.dtypes.items() if name not in BUILT_IN}
        try:
            dtype = row_dtype(
                self.sample_shape,
                target=self.dtypes["target"],
                prediction=self.dtypes["prediction"],
                per_sample=per_sample,
                channels_first=self.channels_first,
            )
        except (KeyError, ValueError, TypeError) as error:
            raise CheckpointError(
                f"the manifest names arrays that do not make a row: {error}"
            ) from error
        if dtypes_of(dtype) != dict(self.dtypes):
            raise CheckpointError(
                f"the manifest must name the arrays {dtypes_of(dtype)}; got {dict(self.dtypes)}"
            )
        return dtype

    @property
    def is_signed(self) -> bool | None:
        """Whether attributions have a sign; None if that is not known.

        If the method does not say, they have a sign if any value is negative.
        """
        if self.signed is not None or self.negative is None:
            return self.signed
        return self.negative > 0

    @property
    def n_bytes(self) -> int:
        """Bytes of all files but the manifest itself."""
        return sum(file.size for file in self.files)

    def header(self) -> Header:
        """Returns the header of the checkpoint, from which a copy is written."""
        return Header(**{name: getattr(self, name) for name in Header.__dataclass_fields__})

    def to_json(self) -> bytes:
        """Returns the manifest as JSON text that carries its own digest."""
        record: dict[str, Json] = {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if one.name not in ("ranks", "files", "score_facts")
        }
        record["score_unit"] = self.score_facts.unit
        record["score_class"] = self.score_facts.of_class
        record["ranks"] = [
            {name: getattr(rows, name) for name in RankRows.__slots__} for rows in self.ranks
        ]
        record["files"] = [
            {name: getattr(file, name) for name in FileEntry.__slots__} for file in self.files
        ]
        if self.function == self.method:
            del record["function"]
        return seal(record)

    @classmethod
    def from_json(cls, text: bytes, where: str = MANIFEST) -> "Manifest":
        """Reads a manifest; keys that this version does not know are ignored.

        Raises:
            CheckpointError: if the manifest is too long, damaged, changed or of a higher major
                schema, or names a file outside the checkpoint.
        """
        record = unseal(text, where)
        if "attributed_to" not in record.values:
            record = _with_facts(record)
        created = record.text("created")
        try:
            datetime.fromisoformat(created).astimezone()
            manifest = cls(
                schema=record.text("schema"),
                run=record.text("run"),
                epoch=record.integer("epoch"),
                step=record.integer("step"),
                method=record.text("method"),
                options=record.mapping("options"),
                n_samples=record.integer("n_samples"),
                sample_shape=record.integers("sample_shape"),
                world_size=record.integer("world_size"),
                ranks=tuple(_rank_rows(rows) for rows in record.records("ranks")),
                weights_digest=record.text("weights_digest"),
                probe_digest=record.text("probe_digest"),
                versions=record.texts("versions"),
                metrics=record.numbers_or_lists("metrics") if "metrics" in record.values else {},
                git_commit=record.optional("git_commit", record.text),
                function=record.text("function") if "function" in record.values else "",
                attributed_to=cast(
                    AttributedTo | None, _word(record, "attributed_to", get_args(AttributedTo))
                ),
                signed=record.optional("signed", record.claim),
                score_facts=_score_facts(record),
                doubts=_doubts(record),
                channels=cast(Channels | None, _word(record, "channels", get_args(Channels))),
                precision=record.optional("precision", record.text),
                precision_error=record.optional("precision_error", record.number),
                dtypes=record.texts("dtypes"),
                sample_order_digest=record.digest("sample_order_digest"),
                nonfinite=record.integer("nonfinite"),
                negative=record.optional("negative", record.integer),
                created=created,
                files=read_files(record),
            )
        except (ValueError, OverflowError) as error:
            raise CheckpointError(f"{where}: {error}") from error
        _ = manifest.dtype
        return manifest


def _word(record: Fields, name: str, known: tuple[str, ...]) -> str | None:
    said = record.optional(name, record.text)
    if said is not None and said not in known:
        raise CheckpointError(
            f"{record.where} must have one of {', '.join(map(repr, known))}, or null under"
            f" '{name}'; got {said!r}"
        )
    return said


def _score_facts(record: Fields) -> ScoreFacts:
    said = [record.optional(name, record.text) for name in ("score_unit", "score_class")]
    # mypy knows no words; the record refuses others, which makes the manifest damaged
    unit, of_class = cast(tuple[ScoreUnit | None, ScoreClass | None], tuple(said))
    return ScoreFacts(unit, of_class)


def _doubts(record: Fields) -> dict[str, int]:
    if "doubts" not in record.values:
        return {}
    counts = Fields(record.mapping("doubts"), f"{record.where}, doubts")
    return {name: counts.integer(name) for name in counts.values}


def _with_facts(record: Fields) -> Fields:
    """Adds to a manifest of schema 1.0 the facts that later schemas state.

    This is the only place that reads facts out of a method's options: schema 1.0 kept the precision
    among the options, and readers guessed from their names what a method attributes to.
    """
    options = dict(record.mapping("options"))
    facts: dict[str, Json] = {"attributed_to": None}
    # Only with its error is it the precision of the computation: a user's method may have an option
    # of its own that is called so.
    if "precision_error" in options:
        facts |= {name: options.pop(name, None) for name in ("precision", "precision_error")}
    # Names of features and words stand beside attributions with one axis, of nothing else.
    if len(record.integers("sample_shape")) == 1:
        given = list(_nested(options))
        if ("is_summed", False) in given:
            facts["attributed_to"] = "units"
        elif any(name == "layer" and value is not None for name, value in given):
            # A layer's units may be as many as a table's features, and are none of them; if they
            # are as many as a text's tokens, they are taken to be those tokens.
            facts["attributed_to"] = "places"
        else:
            facts["attributed_to"] = "inputs"
    return Fields({**record.values, "options": options, **facts}, record.where)


def _nested(options: Mapping[str, Json]) -> Iterator[tuple[str, Json]]:
    """Yields the options of a method and of the functions that it is made of."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _nested(value)
        else:
            yield name, value


def read_files(record: Fields) -> tuple[FileEntry, ...]:
    """Reads the files that a manifest names.

    It refuses names that lead out of the checkpoint, and names that appear twice.
    """
    files = tuple(
        FileEntry(file.text("key"), file.integer("size"), file.digest("xxh3_128"))
        for file in record.records("files")
    )
    for file in files:
        parts = PurePosixPath(file.key).parts
        if (
            file.key != "/".join(parts)
            or not parts
            or any(part in ("..", "/") or "\\" in part or "\0" in part for part in parts)
        ):
            raise CheckpointError(
                f"{record.where} names the file {file.key!r}; names must be relative and stay"
                " inside the checkpoint"
            )
    if len({file.key for file in files}) != len(files):
        raise CheckpointError(f"{record.where} names a file twice")
    return files


def _rank_rows(record: Fields) -> RankRows:
    return RankRows(
        record.integer("rank"), record.text("host"), record.integer("start"), record.integer("stop")
    )
