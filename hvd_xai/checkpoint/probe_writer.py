"""Stores the probe that a run explains."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import xxhash

from hvd_xai.checkpoint.integrity import check_staged, find_damage, read_record
from hvd_xai.checkpoint.json_record import SCHEMA, seal, unseal
from hvd_xai.checkpoint.listing import is_present
from hvd_xai.checkpoint.manifest import MANIFEST
from hvd_xai.checkpoint.probe_reader import ARRAYS, PROBE, ProbeReader, digest_head
from hvd_xai.errors import CheckpointError
from hvd_xai.probe.probe import Probe
from hvd_xai.probe.window import find_window
from hvd_xai.protocols import Json
from hvd_xai.storage import staging
from hvd_xai.storage.arrays import METADATA, ArrayWriter, create_array, group_metadata
from hvd_xai.storage.durable import FileEntry, digest_file, replace_durably, writing

_BLOCK_BYTES = 16 * 2**20


def write_probe(explanations_dir: Path, probe: Probe) -> None:
    """Stores the probe beside the explanations, in bounded blocks.

    If the probe is stored already, only what people say of it is brought up to date: names, window
    and kind.

    Args:
        explanations_dir: folder of the run's explanations.
        probe: examples to store.

    Raises:
        CheckpointError: if another probe is stored there, or the probe cannot be written.
        ValueError: if the probe's inputs are not numbers, or its names are too long.
    """
    destination, digest = explanations_dir / PROBE, probe_digest(probe)
    if not is_present(destination):
        with writing(destination):
            staged = staging.Staging(explanations_dir, PROBE)
            try:
                _fill(staged.directory, probe, digest)
                staged.publish(destination)
            # Another job of this run was first; its probe is checked below.
            except FileExistsError:
                pass
            finally:
                staged.discard()
    stored = ProbeReader(destination)
    if stored.digest != digest:
        raise another_probe(explanations_dir, stored.digest, digest)
    damage = find_damage(destination, stored.files)
    if damage:
        raise CheckpointError(f"{damage[0]}; delete {destination} to have the probe stored again")
    said = {name: given for name, given in _said(probe).items() if given != getattr(stored, name)}
    if said:
        _replace_said(destination, said)


def probe_digest(probe: Probe) -> str:
    """Returns the xxh3-128 of the probe's examples, without their names.

    The examples are read in bounded blocks. Names are left out, because they may be added to a run
    later.
    """
    digest = xxhash.xxh3_128()
    for name, values in _arrays(probe).items():
        digest.update(digest_head(name, _little(values.dtype), values.shape))
        for block in _blocks(values):
            digest.update(block.tobytes())
    return digest.hexdigest()


def another_probe(explanations_dir: Path, before: str, now: str) -> CheckpointError:
    """Returns the error of a run that stores a probe with another digest."""
    return CheckpointError(
        f"{explanations_dir} explains another probe: its digest is {before}, this one's {now}."
        " Epochs of one run compare only on one probe: resume with the data the run was started"
        " with, or start another run."
    )


def _fill(directory: Path, probe: Probe, digest: str) -> None:
    """Writes the probe's arrays, then its manifest."""
    names: Json = list(probe.class_names)
    (directory / METADATA).write_bytes(
        group_metadata({"class_names": names, "hvd_xai_schema": SCHEMA})
    )
    files = [FileEntry(METADATA, *digest_file(directory / METADATA))]
    arrays = _arrays(probe)
    for name, values in arrays.items():
        axes = ("sample", *(f"axis_{axis}" for axis in range(1, values.ndim)))
        files.append(create_array(directory / name, values.shape, _little(values.dtype), axes))
        writer = ArrayWriter(directory / name, values.shape, _little(values.dtype))
        for block in _blocks(values):
            writer.append(block)
        files += writer.close()
    record: dict[str, Json] = {
        "schema": SCHEMA,
        "n_samples": len(probe),
        "input_shape": probe.inputs.shape[1:],
        "probe_digest": digest,
        "class_names": names,
        "dtypes": {name: _little(values.dtype).str for name, values in arrays.items()},
        "files": [asdict(file) for file in files],
    }
    if probe.packing is not None:
        record["packing"] = asdict(probe.packing)
    record |= _said(probe)
    # Found once, of all inputs, by the one process that stores the probe: every picture of the run
    # has it, on any number of ranks. Features with names have units of their own, and words none.
    if not (probe.window or probe.feature_names or probe.vocabulary or probe.packing):
        record["window"] = find_window(probe.inputs.dtype, lambda: _blocks(probe.inputs))
    check_staged(directory, files)
    (directory / MANIFEST).write_bytes(seal(record))


def _arrays(probe: Probe) -> dict[str, np.ndarray]:
    labels = probe.targets if probe.labels is None else probe.labels
    each = (probe.inputs, probe.targets, labels, probe.sample_ids)
    arrays = dict(zip(ARRAYS, each, strict=True))
    for name, values in arrays.items():
        if values.dtype.kind not in "biuf":
            raise ValueError(
                f"'{name}' of the probe must hold booleans, integers or floating values; got dtype"
                f" {values.dtype}"
            )
    return arrays


def _blocks(values: np.ndarray) -> Iterator[np.ndarray]:
    size = max(1, _BLOCK_BYTES * len(values) // max(1, values.nbytes))
    for start in range(0, len(values), size):
        yield values[start : start + size].astype(_little(values.dtype))


def _little(dtype: np.dtype) -> np.dtype:
    # The digest must not depend on the machine, so every number is stored little-endian.
    return dtype.newbyteorder("<")


def _said(probe: Probe) -> dict[str, Json]:
    """Returns what people say of the probe: names of its features or tokens, window and kind."""
    # Names that follow from the packing may be very many, and the packing is stored.
    follow = probe.packing is not None and probe.feature_names == probe.packing.feature_names
    said: dict[str, Json] = {
        "feature_names": () if follow else probe.feature_names,
        "vocabulary": probe.vocabulary,
        "window": probe.window,
        "kind": probe.kind,
    }
    return {name: given for name, given in said.items() if given}


def _replace_said(directory: Path, said: Mapping[str, Json]) -> None:
    """Writes what people say of a stored probe, which a resumed run may be the first to bring."""
    record = unseal(read_record(directory / MANIFEST), str(directory / MANIFEST)).values
    names = {"feature_names", "vocabulary"}
    # A probe has names of features or a vocabulary, never both: the names given last replace both.
    replaced = {"digest", *said, *(names if names & said.keys() else ())}
    kept = {key: value for key, value in record.items() if key not in replaced}
    with writing(directory):
        replace_durably(directory / MANIFEST, seal({**kept, **said}))
