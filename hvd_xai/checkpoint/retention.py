"""Decides which epochs of a run are kept, and removes the others."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hvd_xai.checkpoint.integrity import find_damage, read_manifest
from hvd_xai.checkpoint.layout import EPOCHS
from hvd_xai.checkpoint.listing import list_committed, list_epochs
from hvd_xai.checkpoint.manifest import Manifest
from hvd_xai.errors import CheckpointError
from hvd_xai.protocols import Json
from hvd_xai.storage.durable import remove_durably, writing
from hvd_xai.storage.paths import Place


@dataclass(frozen=True, slots=True)
class Retention:
    """Decides which epochs of a run are kept: every epoch that at least one rule names.

    The newest undamaged epoch is kept in any case.

    Args:
        last: number of newest epochs to keep.
        every: interval between epochs to keep, counted from epoch 0.
        best: name of a metric in the epoch's logs, and "min" or "max", whichever is best; the epoch
            with the best value is kept, and the newest of equally good epochs.
        pinned: epochs to keep.

    Raises:
        ValueError: if no rule is given, a number is below 1, or `best` has another form.

    Example:
        >>> retention = Retention(last=2, best=("val_loss", "min"))
        >>> losses = {0: 0.9, 1: 0.4, 2: 0.6, 3: 0.7}
        >>> sorted(retention.kept({epoch: {"val_loss": loss} for epoch, loss in losses.items()}))
        [1, 2, 3]
    """

    last: int | None = None
    every: int | None = None
    best: tuple[str, Literal["min", "max"]] | None = None
    pinned: Collection[int] = ()

    def __post_init__(self) -> None:
        if self.last is None and self.every is None and self.best is None and not self.pinned:
            raise ValueError(
                "Retention must say what to keep: give last, every, best or pinned; without it"
                " everything is kept"
            )
        if any(number is not None and number < 1 for number in (self.last, self.every)):
            raise ValueError(
                f"last and every must be 1 or more epochs; got {self.last} and {self.every}"
            )
        if self.best is not None and self.best[1] not in ("min", "max"):
            raise ValueError(
                "best must be a metric and 'min' or 'max', as ('val_loss', 'min'); got"
                f" {self.best!r}"
            )

    def kept(self, metrics: Mapping[int, Mapping[str, Json]]) -> set[int]:
        """Returns the epochs to keep.

        Args:
            metrics: metrics of each epoch that the run has, by epoch and name.

        Raises:
            CheckpointError: if the metric of `best` is a list.
        """
        epochs = sorted(metrics)
        kept = {*self.pinned} & {*epochs}
        kept |= {*epochs[-self.last :]} if self.last else set()
        kept |= {epoch for epoch in epochs if self.every and epoch % self.every == 0}
        if self.best is not None:
            name, mode = self.best
            sign = 1 if mode == "max" else -1
            values = {
                epoch: _number(metrics[epoch][name], name)
                for epoch in epochs
                if name in metrics[epoch]
            }
            # Sorting is stable and the epochs ascend: the last of equal values is the newest.
            kept |= {*sorted(values, key=lambda epoch: sign * values[epoch])[-1:]}
        return kept


def _number(value: Json, name: str) -> float:
    if not isinstance(value, int | float):
        raise CheckpointError(
            f"Retention(best=...) needs a metric that is one number; '{name}' is a list of"
            " several. Name another metric."
        )
    return value


def retain(explanations_dir: Path, retention: Retention) -> list[int]:
    """Removes the epochs that a retention does not keep; each vanishes for readers in one step.

    Call it after an epoch has been committed. Epochs that cannot be read are neither counted nor
    removed.

    Args:
        explanations_dir: folder of the run's explanations.
        retention: rules by which epochs are kept.

    Returns:
        The epochs that were removed.

    Raises:
        CheckpointError: if an epoch cannot be removed.
    """
    manifests = {int(path.name): _manifests(path) for path in list_epochs(explanations_dir).folders}
    committed = {epoch: found for epoch, found in sorted(manifests.items()) if found}
    kept = retention.kept({epoch: {**found[0][1].metrics} for epoch, found in committed.items()})
    # Whatever the rules say, the newest epoch without damage stays: the run never loses all it has.
    kept |= {
        *[
            epoch
            for epoch, found in committed.items()
            if not any(find_damage(path, one.files) for path, one in found)
        ][-1:]
    }
    removed = [epoch for epoch in committed if epoch not in kept]
    for epoch in removed:
        path = explanations_dir / EPOCHS / f"{epoch:06d}"
        with writing(path):
            remove_durably(path)
    return removed


def _manifests(epoch_dir: Place) -> list[tuple[Place, Manifest]]:
    """Returns an epoch's checkpoints with their manifests; none if anything is unreadable."""
    try:
        return [(path, read_manifest(path)) for path in list_committed(epoch_dir)]
    except CheckpointError:
        return []
