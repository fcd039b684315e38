"""What an explanation checkpoint holds: its rows as records of one NumPy dtype, and its manifest.

A sample's row travels as one record, so that everything a sample has moves together and every
buffer between ranks is bounded.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import PurePosixPath

import numpy as np

from hvd_xai.checkpoint.json_record import SCHEMA, Fields, seal, unseal
from hvd_xai.checkpoint.rows import BUILT_IN, NAME_FORM, dtypes_of, row_dtype
from hvd_xai.errors import CheckpointError
from hvd_xai.protocols import Json
from hvd_xai.storage.durable import FileEntry

MANIFEST = "manifest.json"


def check_name(method: str) -> None:
    """Raises `ValueError` if this cannot be what a method is committed under."""
    if not NAME_FORM.fullmatch(method):
        raise ValueError(
            "a method's name must be letters, digits, '_' and '-', and begin with a letter or '_',"
            f" for it names a folder; got {method!r}"
        )


@dataclass(frozen=True, slots=True)
class RankRows:
    """The rows one rank computed: `start` to `stop`, which may be none."""

    rank: int
    host: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What is known of an explanation before its rows flow.

    Args:
        run: name of the run.
        epoch: 0-based.
        step: optimizer updates so far.
        method: what the method is committed under, which is the checkpoint's folder name: its own
            name, or one that it was given.
        options: the method's options.
        n_samples: rows the checkpoint will have, at least 1.
        sample_shape: shape of one sample's attributions.
        world_size: ranks that took part.
        ranks: the rows of each rank in order; together they are 0 to `n_samples`.
        weights_digest: digest of the weights explained.
        probe_digest: digest of the probe.
        versions: versions of what computed it, by name.
        metrics: of the epoch, by name, such as `val_loss`; finite ones.
        git_commit: of the code that computed it, where it is under git.
        function: the method's own name; `method` if left out.

    Raises:
        ValueError: if a value is not as said here.
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
    metrics: Mapping[str, float] = field(default_factory=dict)
    git_commit: str | None = None
    function: str = ""

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
    """The commit record of a checkpoint: the header, and what was learned while the rows flowed.

    Args:
        dtypes: dtype of each array by name, such as `"<f4"`.
        sample_order_digest: xxh3-128 of the sample ids in row order; checkpoints with equal ones
            compare row by row.
        nonfinite: attribution values that are NaN or infinite.
        negative: attribution values below zero; None where they were not counted, in checkpoints of
            before.
        created: when it was committed, ISO 8601, UTC.
        files: every other file of the checkpoint.
        schema: of the version that wrote it.
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
            CheckpointError: if the manifest's dtypes are none that this version writes.
        """
        per_sample = {name: dtype for name, dtype in self.dtypes.items() if name not in BUILT_IN}
        try:
            dtype = row_dtype(
                self.sample_shape,
                target=self.dtypes["target"],
                prediction=self.dtypes["prediction"],
                per_sample=per_sample,
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
    def n_bytes(self) -> int:
        """Bytes of all files but the manifest itself."""
        return sum(file.size for file in self.files)

    def header(self) -> Header:
        """Returns what was known before the rows flowed, as for a copy."""
        return Header(**{name: getattr(self, name) for name in Header.__dataclass_fields__})

    def to_json(self) -> bytes:
        """Returns the manifest as JSON text that carries its own digest."""
        record: dict[str, Json] = {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if one.name not in ("ranks", "files")
        }
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
            CheckpointError: if it is too long, damaged, changed, of a higher major schema, or names
                a file outside the checkpoint.
        """
        record = unseal(text, where)
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
                metrics=record.numbers("metrics") if "metrics" in record.values else {},
                git_commit=(
                    None if record.values.get("git_commit") is None else record.text("git_commit")
                ),
                function=record.text("function") if "function" in record.values else "",
                dtypes=record.texts("dtypes"),
                sample_order_digest=record.digest("sample_order_digest"),
                nonfinite=record.integer("nonfinite"),
                negative=(
                    None if record.values.get("negative") is None else record.integer("negative")
                ),
                created=created,
                files=read_files(record),
            )
        except (ValueError, OverflowError) as error:
            raise CheckpointError(f"{where}: {error}") from error
        _ = manifest.dtype
        return manifest


def read_files(record: Fields) -> tuple[FileEntry, ...]:
    """Reads the files a manifest names; refuses names that lead out of the checkpoint, and a name
    that stands twice.
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
