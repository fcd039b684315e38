"""Finds what is wrong with the explanation checkpoints of a run."""

import json
from pathlib import Path

import numpy as np
import xxhash

from hvd_xai.checkpoint.explanation import Explanation
from hvd_xai.checkpoint.gaps import list_problems
from hvd_xai.checkpoint.integrity import Problem, find_changes, find_damage, read_record
from hvd_xai.checkpoint.layout import EPOCHS, RUN
from hvd_xai.checkpoint.listing import find_renamed, is_present, list_epochs, list_methods
from hvd_xai.checkpoint.probe_reader import PROBE, ProbeReader
from hvd_xai.checkpoint.reader import Explanations, open_explanations
from hvd_xai.checkpoint.rows import content_hashes
from hvd_xai.errors import CheckpointError
from hvd_xai.protocols import Json, Progress, Silent
from hvd_xai.storage.arrays import METADATA
from hvd_xai.storage.durable import FileEntry
from hvd_xai.storage.paths import Place
from hvd_xai.storage.staging import leftovers

_BLOCK_BYTES = 16 * 2**20


def verify(
    run: str | Place, *, deep: bool = False, progress: Progress | None = None
) -> list[Problem]:
    """Checks every checkpoint of a run against its manifest.

    The quick check reads manifests and sizes; it finds files that are missing or cut off, and
    manifests that were edited. The deep check reads everything, the metadata of Zarr groups
    included, finds every changed bit, decodes every row, and compares rows and probe with their
    manifests. Whatever has the name of an epoch or a method and cannot be looked into is a problem.
    Files that unfinished writers left behind are reported to `progress` and are no problem.

    Args:
        run: folder or URL of the run.
        deep: whether every byte is read.
        progress: object that is told of each checkpoint; None for silence.

    Returns:
        The problems that were found.

    Raises:
        CheckpointError: if the folder holds no run.

    Example:
        >>> verify("runs/example", deep=True)
        []
    """
    progress = progress or Silent()
    explanations = open_explanations(run)
    below, problems = _find_units(explanations.path)
    # The folder of all explanations is first: it stands for what is compared between its units.
    units = [explanations.path, *below]
    progress.start("verify", len(units))
    for path in units:
        try:
            problems += _verify_unit(path, explanations, below, deep=deep)
        except CheckpointError as error:
            problems.append(Problem(path, f"cannot be read: {error}"))
        progress.advance()
    for directory in (explanations.path, explanations.path / EPOCHS):
        for path in leftovers(directory) if isinstance(directory, Path) else []:
            progress.say(
                f"note: {path} is not committed: a writer is at work, or died and will be swept"
                " when the run is resumed"
            )
    return problems


def _find_units(explanations_dir: Place) -> tuple[list[Place], list[Problem]]:
    """Finds every folder that was, or should have been, committed as a whole.

    Returns:
        The probe and the methods of each epoch, and the things that cannot be looked into.
    """
    units: list[Place] = []
    epochs = list_epochs(explanations_dir)
    problems = [*epochs.problems]
    if is_present(explanations_dir / PROBE):
        units.append(explanations_dir / PROBE)
    for epoch_dir in epochs.folders:
        methods = list_methods(epoch_dir)
        units += methods.folders
        problems += [*methods.problems, *find_renamed(epoch_dir)]
    return units, problems


def _verify_unit(
    path: Place, explanations: Explanations, units: list[Place], *, deep: bool
) -> list[Problem]:
    if path == explanations.path:
        problems = _verify_config(explanations, units) + list_problems(explanations.path)
        return problems + (_verify_groups(explanations.path, units) if deep else [])
    if path.parent == explanations.path:
        probe = ProbeReader(path)
        problems = _verify_files(path, probe.files, deep)
        return problems + (_verify_probe(probe) if deep and not problems else [])
    explanation = Explanation(path)
    problems = _verify_files(path, explanation.manifest.files, deep)
    if (explanation.manifest.epoch, explanation.manifest.method) != (
        int(path.parent.name),
        path.name,
    ):
        said = f"epoch {explanation.manifest.epoch}, {explanation.manifest.method}"
        problems.append(Problem(path, f"was moved here: its manifest says {said}"))
    if deep and not problems:
        problems += _verify_rows(explanation)
    return problems


def _verify_config(explanations: Explanations, units: list[Place]) -> list[Problem]:
    """Checks that the stored probe, and each explanation's, is the probe of the run's config."""
    expected = explanations.config.get("probe_digest")
    if expected is None:
        return []
    stored = explanations.probe()
    problems = []
    if stored is None:
        problems.append(Problem(explanations.path / PROBE, "was deleted"))
    elif stored.digest != expected:
        problems.append(
            Problem(
                explanations.path / PROBE,
                f"is another probe, {stored.digest}, than the run's, {expected}",
            )
        )
    for path in units:
        if path.parent == explanations.path:
            continue
        try:
            is_other = Explanation(path).manifest.probe_digest != expected
        except CheckpointError:
            # It is reported as a unit of its own.
            continue
        if is_other:
            problems.append(Problem(path, f"explains another probe than the run's, {expected}"))
    return problems


def _verify_groups(explanations_dir: Place, units: list[Place]) -> list[Problem]:
    """Reads the metadata of the Zarr groups above the checkpoints, by which zarr opens a run."""
    expected: dict[Place, Json | None] = {
        path.parent: {"epoch": int(path.parent.name)}
        for path in units
        if path.parent != explanations_dir
    }
    # Made with the run, before its record.
    if is_present(explanations_dir / RUN):
        expected |= {explanations_dir: None, explanations_dir / EPOCHS: {}}
    problems = []
    for folder, attributes in expected.items():
        path = folder / METADATA
        try:
            found = json.loads(read_record(path))
        except CheckpointError as error:
            problems.append(Problem(path, f"cannot be read: {error}"))
            continue
        except (ValueError, RecursionError) as error:
            problems.append(Problem(path, f"is not readable JSON ({error})"))
            continue
        known: Json = attributes
        if attributes is None:
            # Of the uppermost group only the schema may differ, with the version that wrote it.
            said = found.get("attributes") if isinstance(found, dict) else None
            schema = said.get("hvd_xai_schema") if isinstance(said, dict) else None
            known = {"hvd_xai_schema": str(schema)}
        if found != {"zarr_format": 3, "node_type": "group", "attributes": known}:
            problems.append(Problem(path, "was changed: it is not the metadata of this Zarr group"))
    return problems


def _verify_probe(probe: ProbeReader) -> list[Problem]:
    """Decodes every value of the probe, and compares their digest with the manifest's."""
    found = probe.compute_digest()
    if found == probe.digest:
        return []
    return [
        Problem(probe.path, f"holds other examples than its manifest says: their digest is {found}")
    ]


def _verify_files(directory: Place, files: tuple[FileEntry, ...], deep: bool) -> list[Problem]:
    problems = find_damage(directory, files)
    damaged = {problem.path for problem in problems}
    return problems + (
        find_changes(directory, [file for file in files if directory / file.key not in damaged])
        if deep
        else []
    )


def _verify_rows(explanation: Explanation) -> list[Problem]:
    """Checks every row against its hash, and counts and order of all rows against the manifest."""
    manifest, path = explanation.manifest, explanation.path
    order, nonfinite, negative, last_id = xxhash.xxh3_128(), 0, 0, None
    changed: list[int] = []
    ascending = True
    size = max(1, _BLOCK_BYTES // manifest.dtype.itemsize)
    for start in range(0, manifest.n_samples, size):
        rows = explanation.rows(start, start + size, checked=False)
        # Copied: a field of structured rows lies in pieces, and a digest takes a single one.
        sample_ids = np.ascontiguousarray(rows["sample_id"])
        # Within the block, and from the last id of the block before.
        ascending &= bool(
            np.all(sample_ids[1:] > sample_ids[:-1])
            and (last_id is None or sample_ids[0] > last_id)
        )
        changed += (start + np.flatnonzero(content_hashes(rows) != rows["content_hash"])).tolist()
        order.update(sample_ids.data)
        nonfinite += int(np.count_nonzero(~np.isfinite(rows["attributions"])))
        negative += int(np.count_nonzero(rows["attributions"] < 0))
        last_id = sample_ids[-1]
    problems = []
    if changed:
        problems.append(
            Problem(
                path,
                f"has {len(changed)} rows that do not fit their content hash, the first"
                f" {changed[0]}",
            )
        )
    if not ascending:
        problems.append(Problem(path, "has rows that are not in order of sample id"))
    if order.hexdigest() != manifest.sample_order_digest:
        problems.append(Problem(path, "has other sample ids than its manifest says"))
    if nonfinite != manifest.nonfinite:
        problems.append(
            Problem(
                path,
                f"has {nonfinite} non-finite attribution values; the manifest says"
                f" {manifest.nonfinite}",
            )
        )
    # None where an older version did not count.
    if manifest.negative not in (None, negative):
        problems.append(
            Problem(
                path,
                f"has {negative} negative attribution values; the manifest says"
                f" {manifest.negative}",
            )
        )
    return problems
