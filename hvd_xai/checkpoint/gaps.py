"""Keeps account of explanations that a job lost before they were committed.

While an epoch trains, the explanation of the epoch before is on its way to the disk. A job that is
killed then loses it, and a job that goes on may have no weights left to make it again. The run's
config notes such gaps, so that a run with a hole does not look whole.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hvd_xai.checkpoint.integrity import Problem, read_record
from hvd_xai.checkpoint.json_record import Fields, unseal
from hvd_xai.checkpoint.layout import EPOCHS, RUN
from hvd_xai.checkpoint.listing import is_present, list_committed, list_epochs
from hvd_xai.checkpoint.manifest import MANIFEST
from hvd_xai.storage.paths import Place

GAPS = "gaps"
"""Key of the config: by method, the epochs that were due and never committed."""


def read_gaps(explanations_dir: Place) -> dict[str, list[int]]:
    """Returns the epochs, by method, whose explanations were lost and are still missing.

    Raises:
        CheckpointError: if `run.json` is damaged.
    """
    return _missing(explanations_dir, _read_noted(explanations_dir))


def merge_gaps(explanations_dir: Path, gaps: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """Returns the gaps that a run has noted together with others, for its config.

    What is committed is no gap: a sink may have failed after the commit, and retention may remove
    the epoch later.
    """
    noted = _read_noted(explanations_dir)
    merged = {
        method: sorted({*noted.get(method, ()), *gaps.get(method, ())})
        for method in sorted({*noted, *gaps})
    }
    return _missing(explanations_dir, merged)


def prune_gaps(explanations_dir: Path, removed: Sequence[int]) -> dict[str, list[int]] | None:
    """Returns the gaps that are left once retention has removed epochs; None if all are left.

    A gap goes with its epoch, and with every older one: the run is no longer asked for them.
    """
    noted = _read_noted(explanations_dir)
    left = {
        method: [epoch for epoch in epochs if epoch > max(removed, default=-1)]
        for method, epochs in noted.items()
    }
    left = {method: epochs for method, epochs in left.items() if epochs}
    return None if left == noted else left


def find_gaps(explanations_dir: Place, method: str, *, before: int, every: int) -> list[int]:
    """Finds the epochs that a method must have explained, and has not committed.

    A job commits one epoch before it explains the next, so that all gaps lie behind the newest
    committed epoch. A method that has committed nothing can have lost the last epoch only.

    Args:
        explanations_dir: folder of the run's explanations.
        method: name that the method is committed under.
        before: epoch that training goes on with.
        every: number of epochs from one explanation to the next.

    Raises:
        CheckpointError: if an epoch cannot be looked at.
    """
    committed = [epoch for epoch in _committed_epochs(explanations_dir, method) if epoch < before]
    first = max(committed) + 1 if committed else before - 1
    return [epoch for epoch in range(max(0, first), before) if (epoch + 1) % every == 0]


def _committed_epochs(explanations_dir: Place, method: str) -> list[int]:
    """Returns the epochs that a method has committed, ascending."""
    return [
        int(path.name)
        for path in list_epochs(explanations_dir).checked()
        if method in [one.name for one in list_committed(path)]
    ]


def list_problems(explanations_dir: Place) -> list[Problem]:
    """Returns each gap as a problem of the run.

    Raises:
        CheckpointError: if `run.json` is damaged.
    """
    return [
        Problem(
            explanations_dir / EPOCHS / f"{epoch:06d}" / method,
            "was due and never committed: a job ended, or failed, before that",
        )
        for method, epochs in read_gaps(explanations_dir).items()
        for epoch in epochs
    ]


def _missing(explanations_dir: Place, gaps: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """Returns the gaps that are not closed by a commit."""
    missing = {
        method: [
            epoch
            for epoch in epochs
            if not is_present(explanations_dir / EPOCHS / f"{epoch:06d}" / method / MANIFEST)
        ]
        for method, epochs in gaps.items()
    }
    return {method: epochs for method, epochs in missing.items() if epochs}


def _read_noted(explanations_dir: Place) -> dict[str, list[int]]:
    path = explanations_dir / RUN
    if not is_present(path):
        return {}
    config = Fields(unseal(read_record(path), str(path)).mapping("config"), str(path))
    if GAPS not in config.values:
        return {}
    noted = Fields(config.mapping(GAPS), f"{path}, {GAPS}")
    return {method: list(noted.integers(method)) for method in noted.values}
