"""Writes an explanation checkpoint, which appears whole or not at all, from rows that stream in."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import xxhash

from hvd_xai.checkpoint.integrity import check_staged, find_damage, read_manifest
from hvd_xai.checkpoint.json_record import SCHEMA, plain
from hvd_xai.checkpoint.layout import EPOCHS
from hvd_xai.checkpoint.manifest import MANIFEST, Header, Manifest
from hvd_xai.checkpoint.rows import axes_of, dtypes_of
from hvd_xai.checkpoint.written_shards import Written, shard_keys
from hvd_xai.errors import CheckpointError
from hvd_xai.protocols import Json
from hvd_xai.storage import staging
from hvd_xai.storage.arrays import (
    METADATA,
    ArrayWriter,
    create_array,
    group_metadata,
)
from hvd_xai.storage.durable import (
    FileEntry,
    digest_file,
    fsync_directory,
    fsync_file,
    remove_trash,
    writing,
)

_COORDINATES = "sample_id label prediction target"


class Writer:
    """Writes the explanation of one epoch and method.

    Rows come in order of sample id, in blocks of any size; each array holds back less than a chunk.
    The bytes of the arrays depend on the rows alone, not on the blocks, the number of ranks, or the
    rank that writes a Zarr shard.

    Args:
        explanations_dir: folder of the run's explanations, which must exist.
        header: facts of the checkpoint that are known before its rows.
        dtype: dtype of the rows, from `row_dtype`.
        elsewhere: fields whose Zarr shards other ranks write with `write_shards`; appended rows
            lack these fields.

    Attributes:
        appended: dtype of the rows that `append` takes.
        destination: folder that the checkpoint has once it is committed.

    Raises:
        ValueError: if the dtype and the header differ in the shape of a sample.
        CheckpointError: if the folder cannot be written.
    """

    def __init__(
        self,
        explanations_dir: Path,
        header: Header,
        dtype: np.dtype,
        *,
        elsewhere: Sequence[str] = (),
    ) -> None:
        if dtype["attributions"].shape != tuple(header.sample_shape):
            raise ValueError(
                f"rows hold attributions of shape {dtype['attributions'].shape}; the header says"
                f" {header.sample_shape}"
            )
        self._header = header
        self._dtype = dtype
        names = [name for name in dtype.names or () if name not in elsewhere]
        self.appended = np.dtype([(name, dtype[name]) for name in names])
        self._elsewhere = tuple(elsewhere)
        self._epoch_dir = explanations_dir / EPOCHS / f"{header.epoch:06d}"
        self.destination = self._epoch_dir / header.method
        self._sample_order = xxhash.xxh3_128()
        self._last_id: int | None = None
        self._n_rows = 0
        self._nonfinite = 0
        self._negative = 0
        self._committed = False
        self._failed = False
        with writing(self.destination):
            # No folder above: where that is gone, the run was moved or removed.
            (explanations_dir / EPOCHS).mkdir(exist_ok=True)
            self._staging = staging.Staging(
                explanations_dir / EPOCHS, f"{header.epoch:06d}-{header.method}"
            )
            try:
                self._files = [self._create(name) for name in dtype.names or ()]
                self._arrays = {name: self._fill(name) for name in names}
            except BaseException:
                self._staging.discard()
                raise

    @property
    def staged(self) -> Path:
        """The folder that `write_shards` writes into, until the commit."""
        return self._staging.directory

    def _create(self, name: str) -> FileEntry:
        field = self._dtype[name]
        attributes: dict[str, Json] = {}
        if name == "attributions":
            attributes = {
                "long_name": "attributions divided by scale",
                "ancillary_variables": "scale",
                "coordinates": _COORDINATES,
            }
        return create_array(
            self.staged / name,
            self._shape(name),
            field.base,
            (
                "sample",
                *axes_of(name, len(field.shape), channels_first=self._header.channels_first),
            ),
            attributes,
        )

    def _fill(self, name: str) -> ArrayWriter:
        return ArrayWriter(self.staged / name, self._shape(name), self._dtype[name].base)

    def _shape(self, name: str) -> tuple[int, ...]:
        return (self._header.n_samples, *self._dtype[name].shape)

    def append(self, rows: np.ndarray) -> None:
        """Appends rows.

        Args:
            rows: records `[n]` of the dtype `appended`; n may be 0. Sample ids ascend, within the
                block and from block to block.

        Raises:
            ValueError: if the rows have another dtype, are out of order, or exceed `n_samples`;
                none of them is written.
            CheckpointError: if they cannot be written; the checkpoint can no longer be committed.
        """
        self._check_open()
        if rows.dtype != self.appended or rows.ndim != 1:
            raise ValueError(
                f"rows must be [n] records of the dtype the writer was made with; got {rows.ndim}-D"
                f" {rows.dtype}"
            )
        if self._n_rows + len(rows) > self._header.n_samples:
            raise ValueError(
                f"{self.destination.name} must have {self._header.n_samples} rows; got"
                f" {self._n_rows + len(rows)}"
            )
        if len(rows) == 0:
            return
        sample_ids = np.ascontiguousarray(rows["sample_id"])
        if np.any(sample_ids[1:] <= sample_ids[:-1]) or (
            self._last_id is not None and sample_ids[0] <= self._last_id
        ):
            raise ValueError(
                "rows must come in order of sample id, each id once; sort them by 'sample_id' and"
                " merge ranks in order"
            )
        # It stays True if a write below raises: arrays of unequal length must never be committed.
        self._failed = True
        with writing(self.destination):
            for name, array in self._arrays.items():
                array.append(rows[name])
            self._staging.renew()
        self._failed = False
        self._sample_order.update(sample_ids.data)
        self._last_id = int(sample_ids[-1])
        self._n_rows += len(rows)
        if "attributions" in self._arrays:
            self._nonfinite += int(np.count_nonzero(~np.isfinite(rows["attributions"])))
            self._negative += int(np.count_nonzero(rows["attributions"] < 0))

    def commit(self, replace: bool = False, written: Iterable[Written] = ()) -> Path:
        """Makes the checkpoint durable and renames it into place; it never changes again.

        If a checkpoint of the same weights, probe, method and options exists there already, this
        succeeds and keeps it: a job that died just after a commit can repeat its epoch.

        Args:
            replace: whether an existing checkpoint is replaced, in one step.
            written: Zarr shards that other ranks wrote, each of them once.

        Returns:
            The folder of the checkpoint.

        Raises:
            CheckpointError: if rows or Zarr shards are missing, the checkpoint cannot be written,
                or another explanation was committed there first.
        """
        self._check_open()
        if self._n_rows != self._header.n_samples:
            raise CheckpointError(
                f"{self.destination} must have {self._header.n_samples} rows to be committed; got"
                f" {self._n_rows}"
            )
        # As in `append`: a writer that fails half way through its commit is of no more use.
        self._failed = True
        with writing(self.destination):
            theirs = self._check_shards(written)
            files = [file for array in self._arrays.values() for file in array.close()]
            manifest = self._manifest([self._create_group(), *self._files, *files, *theirs])
            self._make_epoch()
            check_staged(self.staged, manifest.files)
            # Last of all files: a folder with a manifest is a checkpoint, and each file that the
            # manifest names was looked at a moment ago.
            (self.staged / MANIFEST).write_bytes(manifest.to_json())
            try:
                self._staging.publish(self.destination, replace=replace)
            except FileExistsError:
                self._staging.discard()
                _check_same(self.destination, manifest)
        self._failed = False
        self._committed = True
        return self.destination

    def discard(self) -> None:
        """Removes everything that was written, unless it was committed.

        It may be called at any time, and twice.
        """
        self._failed = self._failed or not self._committed
        self._staging.discard()

    def _check_open(self) -> None:
        if self._committed or self._failed:
            state = "was committed" if self._committed else "failed or was discarded"
            raise CheckpointError(f"the writer of {self.destination} {state}; make a new Writer")

    def _check_shards(self, written: Iterable[Written]) -> list[FileEntry]:
        """Adds the shards that other ranks wrote; raises unless each expected one is there once."""
        files: list[FileEntry] = []
        for part in written:
            files += part.files
            self._nonfinite += part.nonfinite
            self._negative += part.negative
        found = sorted(file.key for file in files)
        expected = sorted(
            key
            for name in self._elsewhere
            for key in shard_keys(name, self._shape(name), self._dtype[name].base)
        )
        if found != expected:
            odd = next(
                key
                for key in sorted({*found, *expected})
                if found.count(key) != expected.count(key)
            )
            often = f"{expected.count(odd)} times; got it {found.count(odd)} times"
            raise CheckpointError(f"{self.destination} must have the Zarr shard '{odd}' {often}")
        return files

    def _create_group(self) -> FileEntry:
        """Writes the metadata of the checkpoint's Zarr group.

        It is written late, so that Zarr lists no checkpoint that is still being written.
        """
        attributes: dict[str, Json] = {
            "Conventions": "CF-1.11",
            "hvd_xai_schema": SCHEMA,
            "method": self._header.method,
            "epoch": self._header.epoch,
            "step": self._header.step,
        }
        path = self.staged / METADATA
        path.write_bytes(group_metadata(attributes))
        return FileEntry(METADATA, *digest_file(path))

    def _make_epoch(self) -> None:
        """Makes the epoch's folder, a Zarr group; writers of other methods may do so meanwhile."""
        self._epoch_dir.mkdir(exist_ok=True)
        if not (self._epoch_dir / METADATA).exists():
            # Written aside and renamed: the writer of another method may do the same at this
            # moment, with the same bytes, and no reader must see half of them.
            prepared = self.staged / ".epoch"
            prepared.write_bytes(group_metadata({"epoch": self._header.epoch}))
            fsync_file(prepared)
            prepared.replace(self._epoch_dir / METADATA)
            fsync_directory(self._epoch_dir)

    def _manifest(self, files: list[FileEntry]) -> Manifest:
        header = {name: getattr(self._header, name) for name in Header.__dataclass_fields__}
        return Manifest(
            **header,
            dtypes=dtypes_of(self._dtype),
            sample_order_digest=self._sample_order.hexdigest(),
            nonfinite=self._nonfinite,
            negative=self._negative,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            files=tuple(sorted(files, key=lambda file: file.key)),
        )


def sweep(explanations_dir: Path) -> list[Path]:
    """Removes the staging directories of dead writers in a run, and returns their paths.

    Writers at work are left alone.
    """
    remove_trash(explanations_dir / EPOCHS)
    return [
        path
        for directory in (explanations_dir, explanations_dir / EPOCHS)
        for path in staging.sweep(directory)
    ]


def _check_same(destination: Path, manifest: Manifest) -> None:
    """Raises unless the existing checkpoint is undamaged and holds the same explanation."""
    existing = read_manifest(destination)
    # Not among these are time, hosts and versions, which differ between two jobs that computed the
    # same.
    names = (
        "weights_digest",
        "probe_digest",
        "function",
        "precision",
        "n_samples",
        "sample_order_digest",
        "dtypes",
    )
    differing = [name for name in names if getattr(existing, name) != getattr(manifest, name)]
    differing += ["options"] if plain(existing.options) != plain(manifest.options) else []
    if differing:
        raise CheckpointError(
            f"{destination} was committed before by another writer and differs in"
            f" {', '.join(differing)}; this one was discarded. Write to another run, or commit with"
            " replace=True."
        )
    damage = find_damage(destination, existing.files)
    if damage:
        raise CheckpointError(
            f"{destination} exists but is damaged: {damage[0]}. Commit with replace=True to"
            " mend it."
        )
