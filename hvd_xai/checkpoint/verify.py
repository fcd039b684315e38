"""Finds what is wrong with the explanation checkpoints of a run."""

from pathlib import Path

import numpy as np
import xxhash

from hvd_xai.checkpoint.integrity import Problem, find_changes, find_damage
from hvd_xai.checkpoint.manifest import MANIFEST
from hvd_xai.checkpoint.probe_reader import PROBE, ProbeReader
from hvd_xai.checkpoint.reader import Explanation, Explanations, open_explanations
from hvd_xai.checkpoint.rows import content_hashes
from hvd_xai.checkpoint.writer import EPOCHS
from hvd_xai.errors import CheckpointError
from hvd_xai.protocols import Progress, Silent
from hvd_xai.storage.durable import FileEntry
from hvd_xai.storage.paths import Place
from hvd_xai.storage.staging import leftovers

_BLOCK_BYTES = 16 * 2**20


def verify(
    run: str | Place, *, deep: bool = False, progress: Progress | None = None
) -> list[Problem]:
    """Checks every checkpoint of a run against its manifest.

    The quick check reads manifests and sizes; it finds files that are missing or cut off, and
    manifests that were edited. The deep check reads everything, finds every changed bit, and
    compares the rows with the manifest. Files that unfinished writers left behind are reported to
    `progress` and are no problem.

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
    # The folder of all explanations is first: it stands for what is compared between its units.
    units = [explanations.path, *_unit_paths(explanations.path)]
    progress.start("verify", len(units))
    problems = []
    for path in units:
        try:
            problems += _verify_unit(path, explanations, deep)
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


def _unit_paths(explanations_dir: Place) -> list[Place]:
    """Returns every folder that was, or should have been, committed as a whole."""
    below: list[Place] = list((explanations_dir / EPOCHS).glob("*/*"))
    methods = [path for path in below if path.parent.name.isdecimal() and path.is_dir()]
    probe = explanations_dir / PROBE
    return [*([probe] if probe.exists() else []), *sorted(methods, key=str)]


def _verify_unit(path: Place, explanations: Explanations, deep: bool) -> list[Problem]:
    if path == explanations.path:
        return _verify_probe(explanations)
    if path.parent == explanations.path:
        return _verify_files(path, ProbeReader(path).files, deep)
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


def _verify_probe(explanations: Explanations) -> list[Problem]:
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
    for path in _unit_paths(explanations.path):
        if (
            path.parent != explanations.path
            and (path / MANIFEST).exists()
            and Explanation(path).manifest.probe_digest != expected
        ):
            problems.append(Problem(path, f"explains another probe than the run's, {expected}"))
    return problems


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
